"""Lines of coloured text on a terminal, on a pipe, and without UTF-8."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len, set_cell_size

from queueworker.cli.plugin.values import Level
from queueworker.words import harmless

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.text import Text

Span = tuple[str, str]
"""A text and its style: the name of a `Level`, `dim`, `bold`, or empty."""
Line = Sequence[Span]

STYLES = {Level.ERROR: "red", Level.OFF: "", "dim": "dim"}
SIGN_STYLES = {Level.WARNING: "bold yellow", Level.OK: "cyan"}
"""Only the sign at the begin of such a text is coloured: neither can be read well on a light background."""
PIPE_WIDTH = 500
"""Nothing is cut to the width of a pipe but what is longer than this."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs of a terminal. A level has a sign of its own, so that nothing depends on colour."""

    levels: Mapping[Level, str]
    arrow: str
    hint: str
    more: str
    full: str
    empty: str
    spark: str
    half: str


UNICODE = Glyphs(
    {Level.ERROR: "✕", Level.WARNING: "▲", Level.OK: "●", Level.OFF: "○"}, "→", "→", "…", "█", "░", "▁▂▃▄▅▆▇█", "◐"
)
ASCII = Glyphs(
    {Level.ERROR: "x", Level.WARNING: "!", Level.OK: "*", Level.OFF: "o"}, "->", "=>", "...", "#", "-", "_.-=+*#@", "~"
)


def glyphs_for(stream: TextIO, environ: Mapping[str, str]) -> Glyphs:
    """ASCII if the stream's encoding or the locale (LC_ALL, LC_CTYPE, LANG) is another one than UTF-8."""
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := environ.get(name))), "utf-8")
    names = (getattr(stream, "encoding", None) or "", locale)
    return UNICODE if all("utf8" in name.lower().replace("-", "") for name in names) else ASCII


@dataclass(frozen=True, slots=True)
class Size:
    """Columns and lines of the screen. `height` is None if nothing is cut to it."""

    width: int
    height: int | None


def size_of(stream: TextIO) -> Size:
    """The terminal's; a pipe has no height."""
    if not stream.isatty():
        return Size(PIPE_WIDTH, None)
    columns, lines = shutil.get_terminal_size()
    return Size(columns, lines)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def bar(used: int, capacity: int, glyphs: Glyphs, width: int = 10) -> str:
    """A bar of one cell a slot, of at most `width` cells."""
    cells = min(width, max(1, capacity))
    full = 0 if capacity <= 0 else min(cells, -(-used * cells // capacity))
    return glyphs.full * full + glyphs.empty * (cells - full)


def sparkline(values: Sequence[float | None], glyphs: Glyphs, width: int) -> str:
    """The latest values as a line of signs, from zero to the largest; a gap is a space."""
    shown = values[-width:]
    top = max((value for value in shown if value is not None), default=0) or 1
    last = len(glyphs.spark) - 1
    return "".join(" " if value is None else glyphs.spark[round(value / top * last)] for value in shown)


def length(line: Line) -> int:
    """In cells: a wide character takes two."""
    return sum(cell_len(text) for text, _ in line)


def cut(line: Line, width: int, glyphs: Glyphs) -> Line:
    """The line without what does not fit; its end shows that."""
    if length(line) <= width:
        return line
    left = width - len(glyphs.more)
    found: list[Span] = []
    for text, style in line:
        found.append((text if cell_len(text) <= left else set_cell_size(text, max(0, left)), style))
        left -= cell_len(text)
    return [*found, (glyphs.more, "dim")]


def columns(rows: Iterable[Sequence[Span]], right: frozenset[int] = frozenset()) -> list[Line]:
    """The rows with cells of the same width, two spaces apart. Columns in `right` are aligned to the right."""
    rows = list(rows)
    widths = [max(cell_len(row[i][0]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines: list[Line] = []
    for row in rows:
        cells: list[Span] = []
        for i, (text, style) in enumerate(row):
            room = " " * (widths[i] - cell_len(text))
            padded = f"{room}{text}" if i in right else f"{text}{room}"
            last = i == len(row) - 1
            cells.append((text if last and i not in right else f"{padded}{'' if last else '  '}", style))
        lines.append(cells)
    return lines


def fit(head: Sequence[Line], body: Sequence[Line], foot: Sequence[Line], size: Size, glyphs: Glyphs) -> list[Line]:
    """All lines cut to the width. If the height does not suffice, the last lines of `body` go, and a line says so."""
    room = None if size.height is None else size.height - len(head) - len(foot) - 1
    if room is not None and len(body) > room:
        kept = max(0, room - 1)
        body = [*body[:kept], [(f"{glyphs.more} {len(body) - kept} more", "dim")]]
    return [cut(line, size.width, glyphs) for line in (*head, *body, *foot)]


def plain(lines: Iterable[Line]) -> str:
    """The lines without colours."""
    return "\n".join(harmless("".join(text for text, _ in line)).rstrip() for line in lines)


def as_text(line: Line) -> Text:
    """For rich."""
    from rich.text import Text  # noqa: PLC0415 -- JSON needs no rich

    parts = (part for text, style in line for part in _styled(harmless(text), style))
    return Text.assemble(*parts, no_wrap=True, end="")


def _styled(text: str, style: str) -> list[Span]:
    if style in SIGN_STYLES:
        return [(text[:1], SIGN_STYLES[Level(style)]), (text[1:], "")]
    return [(text, STYLES.get(style, style))]


def console(stream: TextIO | None = None) -> Console:
    """Colours only on a terminal, and not with NO_COLOR or TERM=dumb."""
    from rich.console import Console  # noqa: PLC0415 -- JSON needs no rich

    return Console(file=stream or sys.stdout, highlight=False, soft_wrap=True, emoji=False, markup=False)


def show(lines: Iterable[Line]) -> None:
    """Print the lines."""
    target = console()
    for line in lines:
        target.print(as_text(line))


def here() -> tuple[Glyphs, Size]:
    """The signs and the size of standard output."""
    return glyphs_for(sys.stdout, os.environ), size_of(sys.stdout)
