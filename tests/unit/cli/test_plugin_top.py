"""The list of `kubectl queueworker top`, and what its keys do."""

from __future__ import annotations

from dataclasses import replace

from queueworker.cli.plugin.screen import ASCII, UNICODE, Size, length, plain
from queueworker.cli.plugin.top import pause, split
from queueworker.cli.plugin.top_screen import TopState, farewell, press, rows_of, top_lines
from queueworker.cli.plugin.values import Level, State
from tests.support.plugin_views import executor, live, seen

GOOD = seen(live(executor(1, in_flight=2), executor(2)))
BAD = replace(GOOD, name="gpu", namespace="eval", state=State(Level.ERROR, "QueueUnreachable"), per_minute=7, failed=20)
VIEWS = [GOOD, BAD]
SMALL = Size(80, 24)


def after(*keys: str, state: TopState | None = None) -> TopState:
    """The state after these keys, from the beginning."""
    found = state or TopState()
    for key in keys:
        found = press(found, key, rows_of(VIEWS, found))
    return found


def shown(state: TopState | None = None, size: Size = SMALL) -> list[str]:
    return plain(top_lines(VIEWS, state or TopState(), size, UNICODE)).splitlines()


def test_the_list_has_a_line_for_each_object_worst_first() -> None:
    assert shown() == [
        "2 objects  ●1 ✕1   in use 4/8   live from pod-a",
        "NAME            STATE*              /MIN  60 s  QUEUED  IN USE  FAIL/MIN    P95",
        "eval/gpu        ✕ QueueUnreachable     7  ▁▅ █     118     2/4         4  3.2 s",
        "default/legacy  ● Routing            412  ▁▅ █     118     2/4         4  3.2 s",
        "q quit  enter open  s sort  / filter  p pause  up/down select",
    ]


def test_arrows_select_and_enter_opens() -> None:
    assert after("down", "down").selected == 1, "the last one"
    assert after("down", "up", "up").selected == 0
    opened = after("down", "enter")
    assert opened.opened == "default/legacy"
    assert shown(opened)[0].startswith("default/legacy  ● Routing")
    assert after("escape", state=opened).opened == ""


def test_s_sorts_by_the_next_column() -> None:
    by_rate = after("s")
    assert by_rate.sort_name == "/min"
    assert [view.name for view in rows_of(VIEWS, by_rate)] == ["legacy", "gpu"]
    assert "/MIN*" in shown(by_rate)[1]


def test_slash_filters_by_what_is_typed() -> None:
    typing = after("/", "g", "x", "backspace")
    assert (typing.typing, typing.words) == (True, "g")
    assert shown(typing)[-1] == "/g"
    assert [view.name for view in rows_of(VIEWS, after("/", "g", "p", "enter"))] == ["gpu"]
    assert after("/", "q", "escape").words == ""
    assert not after("/", "q").done, "a q that is typed does not quit"
    assert "no object matches the filter" in shown(after("/", "z"))


def test_p_pauses_and_q_quits() -> None:
    assert "paused" in shown(after("p"))[0]
    assert not after("p", "p").paused
    assert after("q").done


def test_objects_that_do_not_fit_are_counted_and_the_selected_one_is_seen() -> None:
    views = [replace(GOOD, name=f"worker-{n:02}") for n in range(40)]
    lines = plain(top_lines(views, TopState(selected=39), Size(80, 12), UNICODE)).splitlines()
    assert len(lines) <= 11
    assert any("worker-39" in line for line in lines)
    assert any(line.startswith("… 3") for line in lines)


def test_no_line_is_wider_than_the_screen() -> None:
    long = replace(GOOD, name="n" * 200)
    lines = top_lines([long], TopState(), Size(60, 24), ASCII)
    assert max(map(length, lines)) <= 60
    assert plain(lines).isascii()


def test_on_a_small_screen_every_number_fits_beside_long_names() -> None:
    history = tuple(float(n) for n in range(12))
    views = [replace(view, namespace="n" * 63, name="m" * 63, history=history) for view in VIEWS]
    head, row = plain(top_lines(views, TopState(), SMALL, UNICODE)).splitlines()[1:3]
    assert head.split() == ["NAME", "STATE*", "/MIN", "QUEUED", "IN", "USE", "FAIL/MIN", "P95"]
    assert row.startswith("nnn")
    assert "…mmm" in row, "the name is told, not only the namespace"
    assert row.endswith("3.2 s")
    short = [replace(BAD, history=history)]
    assert "  40 s  " in plain(top_lines(short, TopState(), SMALL, UNICODE)).splitlines()[1]


def test_without_objects_it_says_how_to_make_one() -> None:
    assert "no QueueWorker yet: kubectl apply" in plain(top_lines([], TopState(), SMALL, UNICODE))


def test_the_last_line_sums_up_what_was_seen() -> None:
    now = [replace(view, completed=(view.completed or 0) + 30) for view in VIEWS]
    assert farewell(now, VIEWS, 34, UNICODE) == "2 objects for 34 s: ✕1 ●1; 60 completed, 0 failed"


def test_arrows_are_one_key_though_terminals_send_three_characters() -> None:
    assert split("\x1b[Aq\x1b[B\r\x1b\x7f") == ["up", "q", "down", "enter", "escape", "backspace"]


def test_many_objects_are_asked_for_more_rarely() -> None:
    assert (pause(0), pause(100), pause(500)) == (1, 1, 5)
