"""Writes docs/environment.md from the settings, or with `--check` says that it is out of date (status 1)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from queueworker.processes.environment import described

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.processes.environment import Described

PATH = Path(__file__).parents[3] / "docs" / "environment.md"
_COMMAND = "make generate"

_HEAD = f"""<!-- Made by `{_COMMAND}` from operator/queueworker/processes; do not edit. -->
# The worker's environment

`queueworker worker` reads these variables. An empty variable is as if it were not set; other variables are ignored.
Upper and lower case do not matter in a value that is a word. A variable that cannot be used ends the worker at once,
with exit status 2 and a line on standard error that names it and what it may be.
"""


def reference() -> str:
    """The page, as a pure function of the settings."""
    variables = described()
    return "\n".join(
        [
            _HEAD,
            "## As the legacy worker had them",
            "",
            *_table(v for v in variables if v.legacy),
            "",
            "## Further ones",
            "",
            *_table(v for v in variables if not v.legacy),
            "",
        ]
    )


def _table(variables: Iterable[Described]) -> list[str]:
    rows = ["| variable | default | what it may be | meaning |", "|---|---|---|---|"]
    for v in variables:
        default = f"`{v.default}`" if v.default else ""
        rows.append(f"| `{v.name}` | {default} | {v.may_be} | {v.meaning} |")
    return rows


def run(path: Path = PATH, *, check: bool) -> int:
    """The exit status."""
    text = reference()
    if path.exists() and path.read_text() == text:
        return 0
    if check:
        print(f"docs/{path.name} is out of date: run `{_COMMAND}` and commit what it writes", file=sys.stderr)
        return 1
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(f"wrote docs/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(run(check="--check" in sys.argv[1:]))
