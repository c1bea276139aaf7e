"""Writes docs/performance.md. A run replaces the sections that it measured and keeps the others."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from bench import charts, machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """\
# Performance

Written by `make bench`, `make bench-objects` and `make bench-profile`; every number was measured. Absolute numbers
depend on the machine, which others may have used at the same time. Compare rows that were measured in the same run.
"""


def write(order: Sequence[str], measured: dict[str, str], page: Path = PAGE) -> None:
    """Insert the sections by title, with the machine, the date and their charts."""
    sections = _read(page) if page.exists() else {}
    today = dt.datetime.now(dt.UTC).date()
    stamp = f"*{today}; {machine.describe()}; load {machine.load():.1f} at the end.*"
    sections |= {title: f"{stamp}\n\n{charts.links(title)}{text.strip()}\n" for title, text in measured.items()}
    parts = [f"## {title}\n\n{sections[title].strip()}\n" for title in order if title in sections]
    page.write_text("\n".join([HEAD, *parts]))
    charts.draw(page)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. The first column is aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _read(page: Path) -> dict[str, str]:
    _, *parts = page.read_text().split("\n## ")
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}
