"""An animated SVG of a terminal: no script, no font from elsewhere, so it may be shown as an image.

The frames are one below the other, and a CSS animation moves the one that is shown into view. Equal lines are stored
once. The frame in the middle is shown where nothing moves: to those who prefer reduced motion, and by programs that
know no animations.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

CELL_WIDTH, CELL_HEIGHT = 8.4, 18
MARGIN = 14
COLOURS = {
    "default": "#d7dde5",
    "black": "#8b96a5",
    "red": "#ff6b6b",
    "green": "#5fd07a",
    "brown": "#f0b429",
    "yellow": "#f0b429",
    "blue": "#6cb6f0",
    "magenta": "#d59bf6",
    "cyan": "#6cd3e0",
    "white": "#ffffff",
}


@dataclass(frozen=True, slots=True)
class Run:
    """Cells of one style, from `column` on. `colour` is a name of `COLOURS` or six hexadecimal digits."""

    column: int
    text: str
    colour: str
    bold: bool


Line = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    lines: tuple[Line, ...]
    seconds: float


def animation(frames: list[Frame], columns: int, rows: int, title: str) -> str:
    """The SVG document."""
    width, height = columns * CELL_WIDTH + 2 * MARGIN, rows * CELL_HEIGHT + 2 * MARGIN
    numbers: dict[Line, int] = {}
    shown = []
    for index, frame in enumerate(frames):
        for row, line in enumerate(frame.lines):
            if line:
                number = numbers.setdefault(line, len(numbers))
                shown.append(f'<use href="#l{number}" y="{_short(index * height + row * CELL_HEIGHT)}"/>')
    lines = "\n".join(f'<g id="l{number}">{"".join(map(_text, line))}</g>' for line, number in numbers.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">
<title>{escape(title)}</title>
<style>
text {{ font: 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
.b {{ font-weight: bold }}
{_styles()}
#film {{ animation: film {_short(sum(f.seconds for f in frames))}s steps(1, end) infinite }}
@keyframes film {{
{_keyframes(frames, height)}
}}
@media (prefers-reduced-motion: reduce) {{
#film {{ animation: none }}
}}
</style>
<defs>
{lines}
</defs>
<rect width="100%" height="100%" rx="8" fill="#11161d"/>
<svg x="{MARGIN}" y="{MARGIN}" width="{_short(columns * CELL_WIDTH)}" height="{rows * CELL_HEIGHT}">
<g id="film" transform="translate(0 {_short(-(len(frames) // 2) * height)})">
{chr(10).join(shown)}
</g>
</svg>
</svg>
"""


def _keyframes(frames: list[Frame], height: float) -> str:
    total, at, lines = sum(frame.seconds for frame in frames), 0.0, []
    for index, frame in enumerate(frames):
        lines.append(f"{at / total:.3%} {{ transform: translateY({_short(-index * height)}px) }}")
        at += frame.seconds
    return "\n".join(lines)


def _styles() -> str:
    return "\n".join(f".{name} {{ fill: {colour} }}" for name, colour in COLOURS.items())


def _text(run: Run) -> str:
    """A run at its place, stretched to its cells: fonts differ in the width of symbols."""
    lead = len(run.text) - len(run.text.lstrip(" "))
    text = run.text.strip(" ")
    style = f'class="{run.colour} b"' if run.bold else f'class="{run.colour}"'
    if run.colour not in COLOURS:
        style = f'fill="#{run.colour}"'
    x, length = _short((run.column + lead) * CELL_WIDTH), _short(len(text) * CELL_WIDTH)
    fit = f'textLength="{length}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{x}" y="14" {fit} {style}>{escape(text)}</text>'


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
