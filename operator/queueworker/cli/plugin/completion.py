"""Completion: kubectl runs the script `kubectl_complete-queueworker`, with the words after `kubectl queueworker`.

kubectl (1.26 or newer) does the rest for bash, zsh, fish and PowerShell. The answer is cobra's: a candidate a line, its
description after a tab, and a last line that says whether files may be completed as well.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

NO_FILES = ":4"
WIDTH = "1000"
"""Columns of a description, which must not be wrapped."""


def main() -> None:
    from queueworker.cli.plugin.main import PROG, app  # noqa: PLC0415 -- only the script needs them

    print("\n".join([*candidates(app, PROG, sys.argv[1:]), NO_FILES]))


def candidates(app: typer.Typer, prog: str, words: list[str]) -> list[str]:
    """What may follow. The last of the words is what is there of the one that is typed; it may be empty."""
    *before, typed = words or [""]
    line = shlex.join([prog.replace(" ", "-"), *before]) + " " + (shlex.quote(typed) if typed else "")
    asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args", "COLUMNS": WIDTH}
    return [found for found in _ask(app, prog, "complete_fish", asked).splitlines() if found]


def _ask(app: typer.Typer, prog: str, instruction: str, asked: dict[str, str]) -> str:
    """Typer answers on standard output, and is asked by environment variables."""
    from typer.completion import get_completion_inspect_parameters  # noqa: PLC0415 -- only completion needs it

    get_completion_inspect_parameters()  # typer knows the shells from then on
    variable = "_QUEUEWORKER_PLUGIN_COMPLETE"
    before, output = dict(os.environ), io.StringIO()
    os.environ.update(asked, **{variable: instruction})
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            app(args=[], prog_name=prog, complete_var=variable)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return output.getvalue()


if __name__ == "__main__":
    main()
