"""docs/reliability.md: a row for each case, gathered from whichever processes ran them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

PROPERTY = "reliability"
"""The user property of a test's report that holds its row."""
_CLASSES = ((1, "under 1 s"), (3, "under 3 s"), (10, "under 10 s"), (30, "under 30 s"), (60, "under 60 s"))

_HEAD = """# What was lost, and what ran twice

Made by `make reliability` from a run of `tests/faults`: real queue, executors, Redis and workers as processes on one
Linux machine, with faults made by signals and by a proxy between them. {count} cases, each with a load of numbered
tasks running through it. Lost: ids that the queue handed out and that were never reported to it. Recovery: from the
fault's end to the next report that the queue took.
"""


class Row(NamedTuple):
    """One case. `place` orders the rows: topic, file and line of the case."""

    place: tuple[str, int, str]
    case: str
    fault: str
    lost: str
    ran_twice: str
    recovery: str


def recovery_class(seconds: float) -> str:
    """Coarse: a page that is committed must not change with every run."""
    return next((text for most, text in _CLASSES if seconds < most), "a minute or more")


def page(rows: Iterable[Row]) -> str:
    """The whole page, in Markdown."""
    ordered = sorted(rows)
    parts = [_HEAD.format(count=len(ordered))]
    topic = None
    for row in ordered:
        name = row.place[0].rpartition("/")[2].removeprefix("test_").removesuffix(".py").replace("_", " ")
        if name != topic:
            topic = name
            parts += [
                f"\n## {name.capitalize()}\n",
                "| case | fault | lost | ran twice | recovery |",
                "|---|---|---|---|---|",
            ]
        cells = (row.case, row.fault, row.lost, row.ran_twice, row.recovery)
        parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"
