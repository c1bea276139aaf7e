"""`top` as lines of text, and what each key does: pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from queueworker.cli.plugin.screen import Glyphs, Line, Size, Span, columns, cut, length, number, sparkline
from queueworker.cli.plugin.status_screen import age_of, status_lines
from queueworker.cli.plugin.times import seconds
from queueworker.cli.plugin.values import Level
from queueworker.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.cli.plugin.values import View

SPARK_POINTS = (12, 8, 5, 0)
"""Of 5 s each: a minute, and what is tried where a minute does not fit."""
MAX_NAME, MIN_NAME = 32, 16
MAX_STATE = 24
SORTS = ("state", "/min", "queued", "fail/min", "name")
HELP = "q quit  enter open  s sort  / filter  p pause  up/down select"
_ORDER = list(Level)


@dataclass(frozen=True, slots=True)
class TopState:
    """What the person has chosen. `opened` is the key of an object, or empty for the list."""

    selected: int = 0
    sort: int = 0
    words: str = ""
    typing: bool = False
    paused: bool = False
    opened: str = ""
    done: bool = False

    @property
    def sort_name(self) -> str:
        return SORTS[self.sort]


def press(state: TopState, key: str, rows: Sequence[View]) -> TopState:
    """The state after a key: a character, or up, down, enter, escape, backspace."""
    if state.typing:
        return _type(state, key)
    last = max(0, len(rows) - 1)
    match key:
        case "q" | "\x03":
            return replace(state, done=True)
        case "escape":
            return replace(state, opened="") if state.opened else replace(state, words="", selected=0)
        case "up" | "k":
            return replace(state, selected=max(0, min(state.selected, last) - 1))
        case "down" | "j":
            return replace(state, selected=min(last, state.selected + 1))
        case "enter" if rows:
            return replace(state, opened="" if state.opened else rows[min(state.selected, last)].key)
        case "s":
            return replace(state, sort=(state.sort + 1) % len(SORTS), selected=0)
        case "/":
            return replace(state, typing=True, words="", opened="", selected=0)
        case "p" | " ":
            return replace(state, paused=not state.paused)
    return state


def _type(state: TopState, key: str) -> TopState:
    match key:
        case "enter":
            return replace(state, typing=False)
        case "escape" | "\x03":
            return replace(state, typing=False, words="")
        case "backspace":
            return replace(state, words=state.words[:-1])
    return replace(state, words=state.words + key) if len(key) == 1 and key.isprintable() else state


def rows_of(views: Sequence[View], state: TopState) -> list[View]:
    """The objects that the filter leaves, in the chosen order: worst or largest first."""
    word = state.words.lower()
    shown = [view for view in views if word in f"{view.key} {view.state.word}".lower()]
    orders = {
        "state": lambda v: (_ORDER.index(v.state.level), v.key),
        "/min": lambda v: (-(v.per_minute or 0), v.key),
        "queued": lambda v: (-(v.queue_depth or 0), v.key),
        "fail/min": lambda v: (-(v.failed_per_minute or 0), v.key),
        "name": lambda v: v.key,
    }
    return sorted(shown, key=orders[state.sort_name])


def top_lines(views: Sequence[View], state: TopState, size: Size, glyphs: Glyphs) -> list[Line]:
    """The list, or the object that is opened. Exactly as many lines as fit."""
    opened = next((view for view in views if view.key == state.opened), None)
    foot: Line = [(f"/{state.words}" if state.typing else _foot(state), "dim")]
    if opened is not None:
        return [
            *status_lines(opened, Size(size.width, (size.height or 24) - 1), glyphs),
            [("escape back  q quit", "dim")],
        ]
    rows = rows_of(views, state)
    table = _table(rows, state, size, glyphs)
    head = [_summary(views, state, glyphs), *table[:1]]
    room = len(rows) if size.height is None else max(1, size.height - len(head) - 3)
    first = max(0, min(state.selected, len(rows) - 1) - room + 1)
    body = table[1 + first : 1 + first + room]
    hidden = len(rows) - len(body)
    more: list[Line] = [[(f"{glyphs.more} {hidden} more", "dim")]] if hidden else []
    notes: list[Line] = [[(_empty(views), "")]] if not rows else []
    return [cut(line, size.width, glyphs) for line in (*head, *body, *notes, *more, *_note(views), foot)]


def _foot(state: TopState) -> str:
    return f"{HELP}  filter: {state.words}" if state.words else HELP


def _empty(views: Sequence[View]) -> str:
    if views:
        return "no object matches the filter"
    return "no QueueWorker yet: kubectl apply -f manifests/samples/minimal.yaml, or look with -A"


def _note(views: Sequence[View]) -> list[Line]:
    note = next((view.source.note for view in views if view.source.note), "")
    return [[(f"not live: {note}", "bold")]] if note else []


def _summary(views: Sequence[View], state: TopState, glyphs: Glyphs) -> Line:
    spans: list[Span] = [(f"{counted(len(views), 'object')} ", "bold")]
    counts = {level: sum(view.state.level is level for view in views) for level in (*_ORDER[2:], *_ORDER[1::-1])}
    spans += [(f" {glyphs.levels[level]}{count}", level) for level, count in counts.items() if count]
    spans.append((f"   in use {sum(v.in_use for v in views)}/{sum(v.capacity for v in views)}   ", ""))
    age = age_of(views[0].source) if views else ""
    spans.append(("paused" if state.paused else age, "bold" if state.paused else "dim"))
    return spans


def _table(rows: Sequence[View], state: TopState, size: Size, glyphs: Glyphs) -> list[Line]:
    """Where it is narrow, the line of the last minute becomes shorter or goes, then names are cut."""
    widest = min(MAX_NAME, max((len(view.key) for view in rows), default=0))
    for points in SPARK_POINTS:
        lines = _lines(rows, state, points, widest, glyphs)
        if (excess := length(lines[0]) - size.width) > 0:
            lines = _lines(rows, state, points, max(MIN_NAME, widest - excess), glyphs)
        if length(lines[0]) <= size.width:
            break
    return [
        [(text, "reverse") for text, _ in line] if i - 1 == min(state.selected, len(rows) - 1) else line
        for i, line in enumerate(lines)
    ]


def _lines(rows: Sequence[View], state: TopState, points: int, name: int, glyphs: Glyphs) -> list[Line]:
    titles = ["NAME", "STATE", "/MIN", f"{5 * points} s", "QUEUED", "IN USE", "FAIL/MIN", "P95"]
    sorted_by = state.sort_name.upper()
    head: list[Span] = [(f"{title}*" if title == sorted_by else title, "bold") for title in titles]
    cells = [head, *(_row(view, points, name, glyphs) for view in rows)]
    if not points:
        cells = [[*row[:3], *row[4:]] for row in cells]
    first = 4 if points else 3
    return columns(cells, right=frozenset({2, *range(first, first + 4)}))


def _row(view: View, points: int, name: int, glyphs: Glyphs) -> list[Span]:
    state = view.state
    text = f"{glyphs.levels[state.level]} {state.word}"[:MAX_STATE]
    failing = Level.ERROR if view.failed_per_minute else ""
    return [
        (_short(view.key, name, glyphs), ""),
        (text, state.level),
        (number(view.per_minute), ""),
        (sparkline(view.history, glyphs, points or 1) or "-", ""),
        (number(view.queue_depth), ""),
        (f"{view.in_use}/{view.capacity}", ""),
        (number(view.failed_per_minute), failing),
        (seconds(view.p95_seconds), ""),
    ]


def _short(key: str, width: int, glyphs: Glyphs) -> str:
    """Cut in the middle: both the namespace and the name can be told."""
    if len(key) <= width:
        return key
    kept = width - len(glyphs.more)
    return key[: kept // 2] + glyphs.more + key[len(key) - (kept - kept // 2) :]


def farewell(views: Sequence[View], first: Sequence[View], lasted: float, glyphs: Glyphs) -> str:
    """The line that stays on the terminal: what was seen between the first and the last look."""
    before = {view.key: (view.completed or 0, view.failed or 0) for view in first}
    done = sum((v.completed or 0) - before.get(v.key, (0, 0))[0] for v in views)
    failed = sum((v.failed or 0) - before.get(v.key, (0, 0))[1] for v in views)
    levels = " ".join(
        f"{glyphs.levels[level]}{count}" for level in _ORDER if (count := sum(v.state.level is level for v in views))
    )
    objects = counted(len(views), "object")
    return f"{objects} for {seconds(lasted)}: {levels}; {done:,} completed, {failed:,} failed"
