"""The screen of the show as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.show.acts import ACT_SECONDS, ACTS, POD_ACTS, REDIS, Act
from demo.show.acts import ROUTER as KILLED
from demo.show.facts import Executor, Facts, Legacy, Pod, Router, Stored
from demo.show.run import state
from demo.show.screen import ASCII, UNICODE, Symbols, draw, sparkline, symbols_for
from demo.show.show import CALM_SECONDS, Outcome, Performance, Show
from demo.show.view import View

EXECUTORS = (
    Executor("executor-1", healthy=True, in_flight=2, capacity=2),
    Executor("executor-2", healthy=False, in_flight=0, capacity=2),
    Executor("executor-3", healthy=True, in_flight=1, capacity=2, leaving=True),
)
ROUTER = Router("http://127.0.0.1:8084", EXECUTORS, queue=True, redis=False, buffered=37, in_flight=3, recovered=0)
WELL = replace(ROUTER, executors=EXECUTORS[:1], redis=True, buffered=0)
FACTS = Facts(0.0, ROUTER, queue_answers=True, submitted=820, handed_out=760, reported=750, stored=Stored(700, 41, 39))


def view(facts: Facts = FACTS, show: Show | None = None) -> View:
    shown = View(show or Show(), facts)
    shown.add(facts)
    return shown


def text(shown: View, width: int = 80, height: int = 24, symbols: Symbols = UNICODE) -> list[str]:
    return [line.plain for line in draw(shown, width, height, symbols)]


def redis_stopped() -> View:
    """In the act with Redis, three seconds after the router noticed."""
    show = Show([REDIS])
    shown = view(replace(FACTS, router=WELL), show)
    for at in (0.0, CALM_SECONDS, CALM_SECONDS + 1, CALM_SECONDS + 4):
        facts = replace(FACTS, at=at, router=ROUTER if at > CALM_SECONDS else WELL)
        shown.add(facts)
        show.step(facts)
    return shown


def test_the_screen_tells_what_is_broken_and_for_how_long() -> None:
    lines = "\n".join(text(redis_stopped()))
    assert "▶ ACT 1 of 1  Redis is stopped: events wait in memory, tasks go on" in lines
    assert "router ● up   queue ● up   Redis ✕ 3.0 s   37 events wait" in lines
    assert "executors 1 ● ██  2 ✕ ░░  3 ◐ █░" in lines
    assert "▶ Redis stopped     noticed 1.0 s" in lines
    assert "http://127.0.0.1:8084/" in lines


def test_the_counts_tell_the_failures_on_purpose_from_others() -> None:
    assert "submitted 820    stored 741    under way 79    failed 41 (39 on purpose)" in text(view())


def test_the_legacy_loop_has_a_line_with_what_it_lost() -> None:
    shown = view(replace(FACTS, legacy=Legacy(submitted=100, handed_out=60, reported=55, stored=51)))
    assert "the legacy loop lost 8 of 60 tasks so far" in text(shown)


def begun() -> Show:
    """Everything was up once."""
    show = Show()
    show.step(replace(FACTS, router=WELL))
    return show


def test_before_everything_is_up_nothing_looks_broken() -> None:
    down = replace(FACTS, router=None, queue_answers=False)
    lines = "\n".join(text(view(down)))
    assert "router · starting   queue · starting   Redis ● up" in lines
    assert "executors starting" in lines


@pytest.mark.parametrize(
    ("show", "router", "line"),
    [
        (Show(), None, "starting: waiting for the first router"),
        (Show(), ROUTER, "starting: waiting for queue, Redis and executors"),
        (begun(), None, "no router answers: submitted 820, completed 700, failed 41"),
        (begun(), ROUTER, "routing, executors 1/2: submitted 820, completed 700, failed 41"),
    ],
)
def test_in_a_log_a_start_is_told_from_an_outage(show: Show, router: Router | None, line: str) -> None:
    assert state(show, replace(FACTS, router=router)) == line


def test_the_address_stays_while_no_router_answers() -> None:
    shown = view(show=begun())
    shown.add(replace(FACTS, at=2.0, router=None))
    lines = "\n".join(text(shown))
    assert "http://127.0.0.1:8084/" in lines
    assert "router ✕ 0.0 s" in lines
    assert "executors unknown while no router answers" in lines


PODS = (
    Pod("queueworker-operator-75d9c8f6b-x2x4v", "Running", ready=True, age=71.0, leads=True),
    Pod("legacy-executor-4", "ContainerCreating", ready=False, age=1.4),
    Pod("legacy-executor-5", "Terminating", ready=True, age=30.0),
)


def test_the_pods_of_a_cluster_are_shown_as_kubectl_says_them() -> None:
    lines = text(view(replace(FACTS, pods=PODS)))
    assert "● queueworker-operator-75d9c8f6b-x2x4v     Running              71 s  leads" in lines
    assert "· legacy-executor-4                        ContainerCreating   1.4 s" in lines
    assert "◐ legacy-executor-5                        Terminating          30 s" in lines


def test_many_pods_leave_room_for_the_acts() -> None:
    lines = text(view(replace(FACTS, pods=PODS * 5), Show(POD_ACTS)))
    assert "and 7 more pods" in lines
    assert [line[2:] for line in lines[-4:-1] if line] == ["pool 3 → 5 → 2", "pod killed", "leader killed"]
    assert "more pods" not in "".join(text(view(replace(FACTS, pods=PODS * 5)), height=40))


def test_the_foot_has_the_keys_of_the_acts_and_a_command_for_another_terminal() -> None:
    shown = View(Show(POD_ACTS), FACTS, hint="kubectl get pods -w")
    assert text(shown)[-2:] == ["kubectl get pods -w", "e executor  r router  + - pool  space pause  q end"]
    assert text(view())[-1] == "e executor  r router  d Redis  u queue  + - pool  space pause  q end"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 12), (40, 5)])
def test_the_screen_fits(width: int, height: int) -> None:
    show = Show()
    shown = view(show=show)
    for number in range(40):
        show.step(replace(FACTS, at=number * ACT_SECONDS))
    lines = text(shown, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("act", [*ACTS, *POD_ACTS], ids=lambda act: act.name)
def test_the_title_of_an_act_fits_80_columns(act: Act) -> None:
    assert len(f"> ACT 1 of 5  {act.title}") <= 80


def test_on_a_narrow_screen_sentences_and_keys_are_wrapped() -> None:
    shown = view()
    shown.show.performances.append(Performance(KILLED, FACTS, Outcome.HEALED, 0.3, 7.1, "6 taken from the journal"))
    words = " ".join(" ".join(text(shown, 50, 40)).split())
    assert "healed 7.1 s 6 taken from the journal" in words
    assert words.endswith("+ - pool space pause q end")


def test_a_low_screen_keeps_the_head_and_the_newest_act() -> None:
    shown = redis_stopped()
    lines = text(shown, height=10)
    assert lines[0].startswith("QueueWorker demo")
    assert any(line.startswith("▶ Redis stopped") for line in lines)


def test_ascii_is_all_that_a_terminal_without_utf_8_gets() -> None:
    assert all(line.isascii() for line in text(redis_stopped(), symbols=ASCII))
    assert all(line.isascii() for line in text(view(show=Show()), symbols=ASCII))


@pytest.mark.parametrize(
    ("encoding", "environ", "symbols"),
    [
        ("utf-8", {}, UNICODE),
        ("utf-8", {"LANG": "de_DE.UTF-8"}, UNICODE),
        ("utf-8", {"LANG": "C.UTF-8", "LC_ALL": ""}, UNICODE),
        ("utf-8", {"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, ASCII),
        ("utf-8", {"LANG": "POSIX"}, ASCII),
        ("ascii", {}, ASCII),
        ("iso8859-1", {"LANG": "en_US.ISO-8859-1"}, ASCII),
    ],
)
def test_symbols_follow_the_stream_and_the_locale(encoding: str, environ: dict[str, str], symbols: Symbols) -> None:
    assert symbols_for(encoding, environ) is symbols


def test_a_sparkline_begins_at_zero_and_is_cut_at_its_top() -> None:
    assert sparkline([0, 5, 10, 50], UNICODE, 10) == "▁▅██"
    assert sparkline([0, 0], UNICODE, 0) == "▁▁"
