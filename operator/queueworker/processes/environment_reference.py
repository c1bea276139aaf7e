"""Writes docs/environment.md from the table of variables; with `--check`, fails if the page is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from queueworker.processes.environment_table import FURTHER, LEGACY
from queueworker.resource.generate import renew

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.processes.environment_table import Variable

PATH = Path(__file__).parents[3] / "docs" / "environment.md"

_HEAD = """<!-- Made by `make generate` from operator/queueworker/processes; do not edit. -->
# The worker's environment

`queueworker worker` reads these variables. An empty variable counts as not set; other variables are ignored, with a
warning if a name is nearly one of these. Names of choices may be written in upper or lower case. If a variable cannot
be used, the worker exits at once with status 2 and writes one line for each such variable to standard error, with its
name and the permitted values.

Proxies are not used: neither worker nor operator reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` or `NO_PROXY`, and both
log a warning when a proxy is set. Queue, executors, Redis and the API server are reached directly.
"""


def reference() -> str:
    """The text of docs/environment.md."""
    return "\n".join(
        [
            _HEAD,
            "## Variables of the legacy worker",
            "",
            *_table(LEGACY),
            "",
            "## Further variables",
            "",
            *_table(FURTHER),
            "",
        ]
    )


def _table(variables: Iterable[Variable]) -> list[str]:
    rows = ["| variable | default | permitted values | meaning |", "|---|---|---|---|"]
    for v in variables:
        default = f"`{v.default}`" if v.default else ""
        rows.append(f"| `{v.name}` | {default} | {v.may_be} | {v.meaning} |")
    return rows


def run(path: Path = PATH, *, check: bool) -> int:
    """Returns the exit status."""
    return int(renew(path, f"docs/{path.name}", reference(), check=check) and check)


if __name__ == "__main__":
    sys.exit(run(check="--check" in sys.argv[1:]))
