"""The table of `failed list` as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEFT_OUT = ("ATTEMPTS", "WHEN", "EXECUTOR")
"""Columns that are left out, in this order, where the terminal is narrow. IDs stay whole, for `show` and `retry`."""
MIN_LAST = 24
"""Cells that the last column gets before another one is left out."""


def table(rows: Sequence[Mapping[str, str]], width: int | None = None, more: str = "…") -> list[str]:
    """The names of the columns, then a line for each of the rows, which all have the same columns.

    With a `width` in cells, no line is longer: columns of `LEFT_OUT` go, and lines are cut, which `more` shows.
    """
    *names, last = rows[0]
    widths = {name: max(map(cell_len, (name, *(row[name] for row in rows)))) for name in names}
    for name in LEFT_OUT:
        if width is not None and sum(widths[each] + 2 for each in names) + MIN_LAST > width:
            names.remove(name)
    head = {name: name for name in (*names, last)}
    lines = ["".join(set_cell_size(row[name], widths[name] + 2) for name in names) + row[last] for row in (head, *rows)]
    return lines if width is None else [_cut(line, width, more) for line in lines]


def _cut(line: str, width: int, more: str) -> str:
    return line if cell_len(line) <= width else set_cell_size(line, width - len(more)) + more
