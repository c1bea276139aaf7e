"""The screens of `kubectl queueworker` as text, at the sizes that people have."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from queueworker.cli.plugin.check_screen import check_lines
from queueworker.cli.plugin.findings import of_object
from queueworker.cli.plugin.screen import (
    ASCII,
    UNICODE,
    Size,
    as_text,
    bar,
    console,
    cut,
    glyphs_for,
    length,
    plain,
    sparkline,
)
from queueworker.cli.plugin.status_screen import status_lines
from queueworker.cli.plugin.times import seconds
from queueworker.cli.plugin.values import Level
from tests.support.plugin_views import AWAY, NOW, condition, executor, live, seen

PIPE = Size(500, None)
SMALL = Size(80, 24)


def shown(*given: Any, size: Size = PIPE, glyphs: Any = UNICODE, **fields: Any) -> str:
    return plain(status_lines(seen(*given, **fields), size, glyphs))


def test_status_is_one_screen_with_what_is_wrong_first() -> None:
    sick = executor(3, state="Ejected", healthy=False, reason="502 Bad Gateway", ejected_until=NOW.timestamp() + 18)
    slow = executor(2, state="WarmingUp", in_flight=1)
    assert shown(live(executor(1, in_flight=2), slow, sick), size=SMALL).splitlines() == [
        "default/legacy  ▲ Degraded: 1 of 3 executors is ejected          live from pod-a",
        "Rate       412/min  ▁▅ █  p50 0.9 s  p95 3.2 s  failed 4/min",
        "Tasks      200 completed, 12 failed in all",
        "Queue      ● 118 wait, connected  http://queue:8081",
        "Events     ● 37 buffered, 0 dropped, connected",
        "Journal    ● connected",
        "Pipeline   pulled 0 → executing 3 → to report 0 → to publish 37",
        "Executors  2 of 3 healthy, 3/6 in use",
        "EXECUTOR    STATE      IN USE  CHECKED  LAST FAILURE",
        "executor-3  ✕ ejected  ░░ 0/2  0.3 s    502 Bad Gateway; back in 18 s",
        "executor-2  ◐ warming  █░ 1/2  0.3 s",
        "executor-1  ● healthy  ██ 2/2  0.3 s",
        "Next:      kubectl queueworker check legacy",
        "           kubectl queueworker failed list legacy",
    ]


def test_data_that_is_not_live_says_so_with_its_age() -> None:
    text = shown(AWAY)
    assert "status of 14 s ago" in text.splitlines()[0]
    assert text.splitlines()[1] == "Not live   no replica of the operator is ready"


def test_a_message_that_says_what_to_do_is_wrapped_and_not_cut() -> None:
    message = (
        "queue http://queue:8081 refused the connection: check that the Service exists and that its pods are ready"
    )
    text = shown(AWAY, condition("QueueReachable", "False", "ConnectionFailed", message), size=SMALL)
    words = " ".join(text.split())
    assert message in words
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_message_is_shown_once() -> None:
    message = "queue http://queue:8081 refused the connection"
    sick = {"connected": False, "reason": "ConnectionFailed", "message": message, "url": "http://queue:8081"}
    conditions = (
        condition("Ready", "False", "QueueUnreachable", message),
        condition("QueueReachable", "False", "ConnectionFailed", message),
    )
    text = shown(live(queue=sick | {"depth": None}), *conditions, size=SMALL)
    assert text.count(message) == 1
    assert "Queue      ✕ ConnectionFailed  http://queue:8081" in text


@pytest.mark.parametrize("width", [60, 70, 80])
def test_the_history_takes_the_room_that_the_numbers_leave(width: int) -> None:
    view = replace(seen(live()), history=tuple(float(n) for n in range(60)))
    lines = plain(status_lines(view, Size(width, 24), UNICODE)).splitlines()
    rate = next(line for line in lines if line.startswith("Rate"))
    assert rate.endswith("p50 0.9 s  p95 3.2 s  failed 4/min")
    assert ("█" in rate) is (width > 60)


def test_executors_that_do_not_fit_the_screen_are_counted() -> None:
    lines = shown(live(*(executor(n) for n in range(1, 31))), size=SMALL).splitlines()
    assert len(lines) == 23, "one line is left for the prompt"
    assert lines[0].startswith("default/legacy  ● Routing")
    assert "… 18 more" in lines
    assert lines[-1] == "Next:      kubectl queueworker failed list legacy"


def test_a_pipe_gets_all_executors() -> None:
    assert "executor-30" in shown(live(*(executor(n) for n in range(1, 31))))


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    lines = status_lines(seen(live(executor(1, reason="x" * 200))), Size(width, 24), UNICODE)
    assert max(map(length, lines)) <= width


def test_ascii_has_no_other_signs() -> None:
    sick = executor(2, healthy=False, reason="timeout")
    assert shown(live(executor(1, in_flight=1), sick), glyphs=ASCII).isascii()


@pytest.mark.parametrize(
    ("encoding", "environ", "expected"),
    [
        ("utf-8", {"LANG": "de_DE.UTF-8"}, UNICODE),
        ("utf-8", {}, UNICODE),
        ("utf-8", {"LANG": "en_US.UTF-8", "LC_ALL": "C"}, ASCII),
        ("iso-8859-1", {"LANG": "en_US.UTF-8"}, ASCII),
    ],
)
def test_signs_follow_the_encoding(encoding: str, environ: dict[str, str], expected: object) -> None:
    assert glyphs_for(io.TextIOWrapper(io.BytesIO(), encoding), environ) is expected


def test_a_pipe_has_no_colours() -> None:
    stream = io.StringIO()
    console(stream).print("text", style="red")
    assert stream.getvalue() == "text\n"


@pytest.mark.parametrize(
    ("span", "text"),
    [(0.31, "0.3 s"), (14, "14 s"), (119, "119 s"), (600, "10 min"), (7200, "2 h"), (172800, "2 d"), (None, "-")],
)
def test_time_spans_are_short(span: float | None, text: str) -> None:
    assert seconds(span) == text


def test_yellow_and_cyan_are_for_signs_only() -> None:
    """On a light background, text in these colours can hardly be read."""
    shown = as_text([("▲ Degraded", Level.WARNING), ("● connected", Level.OK), ("✕ away", Level.ERROR)])
    coloured = [(shown.plain[span.start : span.end], span.style) for span in shown.spans]
    assert coloured == [("▲", "bold yellow"), ("●", "cyan"), ("✕ away", "red")]


def test_a_bar_shows_slots_in_use() -> None:
    assert bar(1, 2, UNICODE) == "█░"
    assert bar(0, 0, UNICODE) == "░"
    assert bar(64, 64, UNICODE) == "█" * 10
    assert bar(1, 64, UNICODE) == "█" + "░" * 9, "one task is seen"


def test_a_sparkline_begins_at_zero() -> None:
    assert sparkline([0, 50, 100], UNICODE, 8) == "▁▅█"
    assert sparkline([0, 0], UNICODE, 8) == "▁▁"


def test_a_line_that_is_cut_shows_it() -> None:
    assert plain([cut([("abcdef", ""), ("ghi", "")], 5, UNICODE)]) == "abcd…"


def test_what_others_wrote_does_not_control_the_terminal() -> None:
    written = io.StringIO()
    names = ["\x1b]0;title\x07", "a\rb", "c\x9b2J"]
    view = seen(live(executor(1)), spec={"executors": {"drained": names}})
    for line in (*status_lines(view, PIPE, UNICODE), *check_lines([*of_object(view)], PIPE, UNICODE, short=False)):
        console(written).print(as_text(line))
        written.write(plain([line]))
    assert "�]0;title�, a�b, c�2J" in written.getvalue()
    assert not {"\x1b", "\x07", "\r", "\x9b"} & {*written.getvalue()}


def test_a_command_to_copy_has_the_names_of_executors_in_quotes() -> None:
    gone = seen(executors={"desired": 0}, spec={"executors": {"drained": ["x;reboot"]}})
    assert "kubectl queueworker undrain 'x;reboot' legacy" in gone.next
    (drained,) = [finding for finding in of_object(gone) if finding.check == "drained"]
    assert drained.advice == "`kubectl queueworker undrain 'x;reboot' legacy -n default`"
