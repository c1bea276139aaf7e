"""Writes docs/queueworker.md and docs/http.md: the command and the HTTP API, from the code that they describe.

With `--check`, fails if one of them is out of date.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from typer.main import get_command

from queueworker.cli.main import app as cli
from queueworker.resource.generate import main
from queueworker.web.app import Mode, create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queueworker.web.source import Source

MADE = "<!-- Made by `make generate` from {source}; do not edit. -->\n"
WIDTH = 100
COMMAND_HEAD = """\
# The command queueworker

The help of each command, as `--help` prints it. [kubectl queueworker](command.md) is another one.
"""
HTTP_HEAD = """\
# The HTTP API

Operator and worker serve it on port 8084. It has no login: [what it shows to whom](page.md#what-it-shows-to-whom).
Every process describes its own fields at `/docs`, `/openapi.json` and `/openapi.yaml`; [the page](page.md) is at `/`.
"""


def command_page() -> str:
    parts = [MADE.format(source="operator/queueworker/cli"), COMMAND_HEAD]
    for path, text in helps(get_command(cli), "queueworker"):
        parts.append(f"## {path}\n\n```text\n{_trimmed(text)}\n```\n")
    return "\n".join(parts)


def helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """Name and help of the command and of all below it. They are of Typer's own copy of click."""
    width = {"max_content_width": WIDTH, "terminal_width": WIDTH}
    context = command.make_context(name, [], parent, resilient_parsing=True, **width)
    yield context.command_path, command.get_help(context)
    for child_name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from helps(child, child_name, context)


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def http_page() -> str:
    parts = [MADE.format(source="operator/queueworker/web"), HTTP_HEAD]
    for title, mode in (("Operator", Mode.OPERATOR), ("Worker", Mode.WORKER)):
        parts.append(f"## {title}\n\n{_paths(create_app(_nobody(), mode).openapi())}\n")
    return "\n".join(parts)


def _paths(schema: dict[str, Any]) -> str:
    rows = ["| call | what it does, and its answers |", "|---|---|"]
    for path, calls in schema["paths"].items():
        for verb, call in calls.items():
            about = f"{call['summary']}. {call.get('description', '')}"
            answers = "; ".join(f"{status}: {text.rstrip('.')}" for status, text in _answers(call))
            rows.append(f"| `{verb.upper()} {path}` | {_cell(about)}<br>{_cell(answers)} |")
    return "\n".join(rows)


def _answers(call: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """All but FastAPI's own answer to a parameter that it cannot read."""
    for status, answer in call["responses"].items():
        if answer["description"] != "Validation Error":
            yield status, answer["description"]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _nobody() -> Source:
    """A source that is never asked: only the description of the routes is wanted."""

    class Nobody:
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    return cast("Source", Nobody())


TARGETS = {"docs/queueworker.md": command_page, "docs/http.md": http_page}


if __name__ == "__main__":
    sys.exit(main(TARGETS, sys.argv[1:]))
