"""docs/performance.md: written by the runs, a section at a time. What a run did not measure stays as it was."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from bench import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """\
# Performance

Written by `make bench`, `make bench-objects` and `make bench-profile`; every figure is of a run. Absolute numbers are
the machine's, which others may have been using at the same time: what counts is the ratio between rows that were
measured side by side.
"""


def write(order: Sequence[str], measured: dict[str, str], page: Path = PAGE) -> None:
    """Put the sections in, by title, with where and when they were measured."""
    sections = _read(page) if page.exists() else {}
    today = dt.datetime.now(dt.UTC).date()
    stamp = f"*{today}; {machine.describe()}; load {machine.load():.1f} at the end.*"
    sections |= {title: f"{stamp}\n\n{text.strip()}\n" for title, text in measured.items()}
    parts = [f"## {title}\n\n{sections[title].strip()}\n" for title in order if title in sections]
    page.write_text("\n".join([HEAD, *parts]))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown; the first column to the left, the rest to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _read(page: Path) -> dict[str, str]:
    _, *parts = page.read_text().split("\n## ")
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}
