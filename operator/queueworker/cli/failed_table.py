"""The table of `failed list` as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from queueworker.cli.plugin.screen import UNICODE, Glyphs, columns, cut, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEFT_OUT = ("ATTEMPTS", "WHEN", "EXECUTOR")
"""Columns that are left out, in this order, where the terminal is narrow. IDs stay whole, for `show` and `retry`."""
MIN_LAST = 24
"""Cells that the last column gets before another one is left out."""


def table(rows: Sequence[Mapping[str, str]], width: int | None = None, glyphs: Glyphs = UNICODE) -> list[str]:
    """The names of the columns, then a line for each of the rows, which all have the same columns.

    With a `width` in cells, no line is longer: columns of `LEFT_OUT` go, and lines are cut, which `glyphs.more` shows.
    """
    *names, last = rows[0]
    widths = {name: max(map(cell_len, (name, *(row[name] for row in rows)))) for name in names}
    for name in LEFT_OUT:
        if width is not None and sum(widths[each] + 2 for each in names) + MIN_LAST > width:
            names.remove(name)
    shown = (*names, last)
    lines = columns([[(row[name], "") for name in shown] for row in ({name: name for name in shown}, *rows)])
    return [plain([line if width is None else cut(line, width, glyphs)]) for line in lines]
