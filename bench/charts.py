"""Draws bar charts of the tables in docs/performance.md and docs/balance.md, as SVG beside the pages.

The benches call `draw` when they have written a page. `python -m bench.charts` draws them again without measuring.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = "images"
OURS = {"this router", "LeastLoaded"}
WIDTH, LABELS, ROW, HEAD = 720, 230, 30, 46
FONT = 'font-family="system-ui, sans-serif" font-size="13"'
NUMBER_SPACE = 80
"""Pixels to the right of the longest bar, for its number."""


@dataclass(frozen=True)
class Chart:
    """The values of one column in the first table of a section that has it."""

    section: str
    column: str
    title: str

    @property
    def image(self) -> str:
        return f"{FOLDER}/chart-{_slug(self.section)}-{_slug(self.column)}.svg"


_P99 = "p99 of the wait, in units of a task's time: less is better"
CHARTS = (
    Chart("Side by side", "tasks/s", "Tasks per second: more is better"),
    Chart("Side by side", "CPU µs/task", "CPU per task in µs: less is better"),
    Chart("From 1 to 1,000 executors", "tasks/s", "Tasks per second by number of executors"),
    Chart("Many objects", "MiB", "Memory in MiB by number of objects"),
    Chart("Many, all equal", "p99", _P99),
    Chart("One of eight is ten times slower", "p99", _P99),
    Chart("Unequal capacity", "p99", _P99),
    Chart("One of eight answers every task with a 500", "p99", _P99),
    Chart("One of eight fails every task at once", "p99", _P99),
)


def links(section: str) -> str:
    """The Markdown of a section's charts, to be placed above its tables; empty if it has none."""
    return "".join(
        f"![{chart.section}. {chart.title}.]({chart.image})\n\n" for chart in CHARTS if chart.section == section
    )


def draw(page: Path) -> list[Path]:
    """Writes the charts of the sections that the page has, and returns their files."""
    text, written = page.read_text(), []
    for chart in CHARTS:
        values = column(text, chart.section, chart.column)
        if values:
            path = page.parent / chart.image
            path.parent.mkdir(exist_ok=True)
            path.write_text(bars(f"{chart.section}. {chart.title}", values))
            written.append(path)
    return written


def column(text: str, section: str, name: str) -> list[tuple[str, float]]:
    """Label and value of each row. Empty if the page has no such section, or the section no such column."""
    body = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    head: Sequence[str] = ()
    values = []
    for cells in _rows(body[1] if body else ""):
        if not head:
            head = cells if name in cells else ()
        elif not cells:
            break
        elif not cells[0].startswith("---"):
            values.append((cells[0], float(cells[head.index(name)].replace(",", ""))))
    return values


def _rows(text: str) -> Iterator[list[str]]:
    """The cells of each line; none for a line outside of tables."""
    for line in text.splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """A horizontal bar chart from zero, with the numbers beside the bars."""
    most = max(value for _, value in values) or 1.0
    height = HEAD + ROW * len(values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-weight="700" fill="#1c2430">{escape(title)}</text>',
    ]
    for i, (label, value) in enumerate(values):
        y, length = HEAD + ROW * i, (WIDTH - LABELS - NUMBER_SPACE) * value / most
        fill = "#0b63a5" if label in OURS else "#8b96a5"
        parts += [
            f'<text x="{LABELS - 8}" y="{y + 15}" text-anchor="end" fill="#1c2430">{escape(label)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="22" fill="{fill}"/>',
            f'<text x="{LABELS + length + 6:.1f}" y="{y + 15}" fill="#1c2430">{value:,.10g}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("µ", "u")).strip("-")


if __name__ == "__main__":
    for name in ("performance.md", "balance.md"):
        for path in draw(DOCS / name):
            print(f"wrote docs/{path.relative_to(DOCS)}")
