"""`status`: one QueueWorker on one screen, as lines of text."""

from __future__ import annotations

from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING

from queueworker.cli.plugin.screen import Glyphs, Line, Size, Span, bar, columns, fit, length, number, sparkline
from queueworker.cli.plugin.times import seconds
from queueworker.cli.plugin.values import Level

if TYPE_CHECKING:
    from queueworker.cli.plugin.values import ExecutorView, LinkView, Source, View

LABEL_WIDTH = 11
HISTORY_WIDTH, MIN_HISTORY_WIDTH = 24, 6
MAX_MESSAGE_LINES = 6
TITLE_WIDTH = 120
"""A title is not spread over more columns than these."""


def status_lines(view: View, size: Size, glyphs: Glyphs) -> list[Line]:
    """The head says what is wrong, the executors are worst first, and the foot says what to do next."""
    executors = executor_lines(view, glyphs)
    foot = [_labelled("Next:" if i == 0 else "", [(command, "")]) for i, command in enumerate(view.next)]
    return fit([*_head(view, size, glyphs), *executors[:1]], executors[1:], foot, size, glyphs)


def _head(view: View, size: Size, glyphs: Glyphs) -> list[Line]:
    lines = _title(view, size, glyphs)
    if not view.source.live:
        lines += _message("Not live", view.source.note, "", size)
    for note in view.notes:
        lines += _message("Note", note, "", size)
    lines.append(_labelled("Rate", _rate(view, size, glyphs)))
    if view.completed is not None:
        text = f"{number(view.completed)} completed, {number(view.failed)} failed in all"
        lines.append(_labelled("Tasks", [(text, "")]))
    for label, link, numbers, url in (
        ("Queue", view.queue, _waiting(view), view.queue_url),
        ("Events", view.events, _events(view), ""),
        ("Journal", view.journal, "", ""),
        *([("Pool", view.pool, "", "")] if view.pool is not None else []),
    ):
        shown = replace(link, message="") if link.message == view.state.message else link  # the title has it
        lines += _peer(label, shown, numbers, url, size, glyphs)
    lines += _message("Pipeline", _pipeline(view, glyphs), "", size)
    lines += _message("Executors", _pool(view), "", size)
    return lines


def _title(view: View, size: Size, glyphs: Glyphs) -> list[Line]:
    """Name, state, and the age of what is shown; a message that does not fit goes below."""
    state, age = view.state, age_of(view.source)
    text = f"{glyphs.levels[state.level]} {state.word}"
    width = min(size.width, TITLE_WIDTH)
    left = width - len(view.key) - len(text) - len(age) - 4
    below = len(state.message) + 2 > left
    if state.message and not below:
        text += f": {state.message}"
        left -= len(state.message) + 2
    title: Line = [(view.key, "bold"), ("  ", ""), (text, state.level), (" " * max(2, left + 2), ""), (age, "dim")]
    style = state.level if state.level is Level.ERROR else ""
    return [title, *(_message("", state.message, style, size) if below else [])]


def _message(label: str, text: str, style: str, size: Size) -> list[Line]:
    """A sentence, wrapped to the width: it says what to do, so it is not cut to one line. An error is wholly coloured,
    of others the first line has the style.
    """
    width = max(20, size.width - LABEL_WIDTH)
    first, *rest = wrap(text, width, max_lines=MAX_MESSAGE_LINES, placeholder=" ...", break_on_hyphens=False) or [""]
    later = style if style == Level.ERROR else ""
    return [_labelled(label, [(first, style)]), *(_labelled("", [(line, later)]) for line in rest)]


def _pipeline(view: View, glyphs: Glyphs) -> str:
    if view.pipeline:
        return f" {glyphs.arrow} ".join(f"{name.replace('_', ' ')} {count}" for name, count in view.pipeline.items())
    return f"{number(view.in_flight)} in flight"


def age_of(source: Source) -> str:
    if source.live:
        return f"live{f' from {source.replica}' if source.replica else ''}"
    return f"status of {seconds(source.age_seconds)} ago" if source.age_seconds is not None else "no status"


def _labelled(label: str, spans: list[Span]) -> Line:
    return [(label.ljust(LABEL_WIDTH), "bold"), *spans]


def _rate(view: View, size: Size, glyphs: Glyphs) -> list[Span]:
    """The numbers; and in what room they leave, the history."""
    spans: list[Span] = [(f"{number(view.per_minute)}/min", "")]
    if view.p50_seconds is not None:
        spans.append((f"  p50 {seconds(view.p50_seconds)}  p95 {seconds(view.p95_seconds)}", ""))
    if view.failed_per_minute is not None:
        spans.append((f"  failed {number(view.failed_per_minute)}/min", Level.ERROR if view.failed_per_minute else ""))
    room = min(HISTORY_WIDTH, size.width - LABEL_WIDTH - length(spans) - 2)
    if view.history and room >= MIN_HISTORY_WIDTH:
        spans.insert(1, (f"  {sparkline(view.history, glyphs, room)}", ""))
    return spans


def _waiting(view: View) -> str:
    return "" if view.queue_depth is None else f"{number(view.queue_depth)} wait"


def _events(view: View) -> str:
    if view.events_buffered is None:
        return ""
    return f"{number(view.events_buffered)} buffered, {number(view.events_dropped)} dropped"


def _peer(label: str, link: LinkView, numbers: str, url: str, size: Size, glyphs: Glyphs) -> list[Line]:
    """One line while all is well, else the whole message."""
    sign = glyphs.levels[link.level]
    if link.level is not Level.OK and link.message:
        return _message(label, f"{sign} {f'{numbers}: ' if numbers else ''}{link.message}", link.level, size)
    reason = link.reason.lower() if link.level is Level.OK else link.reason
    parts = [part for part in (numbers, link.message or reason) if part]
    return [_labelled(label, [(f"{sign} {', '.join(parts)}", link.level), (f"  {url}" if url else "", "dim")])]


def _pool(view: View) -> str:
    parts = [f"{view.executors_healthy} of {view.executors_desired} healthy", f"{view.in_use}/{view.capacity} in use"]
    if view.executors_hidden:
        parts.append(f"{view.executors_hidden} not listed")
    if view.migration:
        parts.append(f"migration: {view.migration} ({view.celery_percent} % to Celery)")
    return ", ".join(parts)


def executor_lines(view: View, glyphs: Glyphs) -> list[Line]:
    """A head line, and a line for each executor; nothing if there are none."""
    if not view.executors:
        return []
    head: list[Span] = [(name, "bold") for name in ("EXECUTOR", "STATE", "IN USE", "CHECKED", "LAST FAILURE")]
    return columns([head, *(_executor(e, glyphs) for e in view.executors)])


def _executor(e: ExecutorView, glyphs: Glyphs) -> list[Span]:
    sign = glyphs.half if e.state == "warming" else glyphs.levels[e.level]
    used = f"{bar(e.in_flight, e.capacity, glyphs)} {e.in_flight}/{e.capacity}" if e.url else ""
    checked = seconds(e.checked_seconds_ago)
    return [(e.name, ""), (f"{sign} {e.state}", e.level), (used, ""), (checked, "dim"), (e.last_failure, "")]
