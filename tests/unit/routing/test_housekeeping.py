"""The watchdog, and what the log of a router tells."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from queueworker.routing.counters import Counters
from queueworker.routing.housekeeping import STALL_SECONDS, Watchdog
from queueworker.routing.in_flight import InFlightTask
from queueworker.routing.polling import Hold
from queueworker.routing.router_log import MAX_FAILURES_PER_SECOND, QUIET_SECONDS, RouterLog
from queueworker.routing.snapshot import ExecutorSnapshot, Link, LinkReason

if TYPE_CHECKING:
    from collections.abc import Iterator

WELL = Link(LinkReason.CONNECTED)
AWAY = Link(LinkReason.CONNECTION_FAILED, "queue cannot be reached at http://queue:8081: Connection refused")


# --- the watchdog


@pytest.mark.parametrize("hold", [None, Hold.EVENTS])
def test_tasks_that_wait_while_slots_are_free_for_a_minute_are_a_stall(hold: Hold | None) -> None:
    watchdog = Watchdog()
    for second in range(int(STALL_SECONDS)):
        assert not watchdog.look(due=True, pulled=7, hold=hold, depth=3, now=float(second))
    why = watchdog.look(due=True, pulled=7, hold=hold, depth=3, now=STALL_SECONDS)
    assert "3 tasks wait and slots are free" in why
    assert (hold.value if hold else "restart") in why
    assert not watchdog.look(due=True, pulled=8, hold=hold, depth=3, now=STALL_SECONDS + 1), "one was pulled"


def test_a_router_that_has_nothing_to_pull_is_not_stalled() -> None:
    watchdog = Watchdog()
    for second in range(200):
        assert not watchdog.look(due=second % 50 > 0, pulled=7, hold=None, depth=3, now=float(second))


# --- the log


@dataclass
class Lines:
    caplog: pytest.LogCaptureFixture
    log: RouterLog

    def take(self) -> list[str]:
        taken = [record.getMessage() for record in self.caplog.records]
        self.caplog.clear()
        return taken


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    with caplog.at_level(logging.INFO):
        yield Lines(caplog, RouterLog("team/legacy"))


def executor(name: str = "executor-1", *, healthy: bool, reason: str = "") -> ExecutorSnapshot:
    fields: dict[str, Any] = {"in_flight": 0, "capacity": 1, "last_check": 1.0, "reason": reason}
    return ExecutorSnapshot(name=name, url=f"http://{name}", healthy=healthy, **fields)


def flight(eval_id: str = "a") -> InFlightTask:
    task = InFlightTask(cast("Any", type("Task", (), {"eval_id": eval_id})), cast("Any", None), 0.0)
    task.executor = "executor-1"
    return task


def test_each_change_of_a_link_and_of_an_executor_is_one_line(lines: Lines) -> None:
    sick = executor(healthy=False, reason="no answer from http://executor-1/health: Connection refused")
    assert not lines.log.observe({"queue": AWAY, "journal": WELL}, [sick], 0.0)
    assert lines.take() == [f"team/legacy: queue: {AWAY.message}", f"team/legacy: executor executor-1: {sick.reason}"]
    lines.log.observe({"queue": AWAY, "journal": WELL}, [sick], 1.0)
    assert lines.take() == []
    lines.log.observe({"queue": WELL, "journal": WELL}, [executor(healthy=True)], 20.0)
    assert lines.take() == ["team/legacy: queue is well again", "team/legacy: executor executor-1 is well again"]


def test_what_flaps_is_logged_rarely_and_its_last_state_is_not_forgotten(lines: Lines) -> None:
    for tenth in range(40):
        lines.log.observe({"queue": AWAY if tenth % 2 == 0 else WELL}, [], tenth / 10)
    assert len(lines.take()) == 1
    assert lines.log.observe({"queue": WELL}, [], 5.0), "it is well again, and that has to be told later"
    assert not lines.log.observe({"queue": WELL}, [], QUIET_SECONDS)
    assert lines.take() == ["team/legacy: queue is well again"]


def test_a_link_that_was_not_tried_yet_is_no_news(lines: Lines) -> None:
    lines.log.observe({"queue": Link()}, [ExecutorSnapshot(**vars_of(executor(healthy=False)))], 0.0)
    assert lines.take() == []


def vars_of(snapshot: ExecutorSnapshot) -> dict[str, Any]:
    return {name: getattr(snapshot, name) for name in type(snapshot).__slots__} | {"last_check": None}


def test_each_failed_task_is_a_line_with_the_last_line_of_its_error(lines: Lines) -> None:
    lines.log.failed(flight(), 'Traceback (most recent call last):\n  File "x"\nValueError: bad\n', 1.5, 0.0)
    assert lines.take() == ["team/legacy: task a failed on executor-1, attempt 1, 1500 ms: ValueError: bad"]


def test_many_failed_tasks_are_summarized(lines: Lines) -> None:
    for i in range(500):
        lines.log.failed(flight(f"t{i}"), "oops", 0.1, i / 1000)
    assert len(lines.take()) == MAX_FAILURES_PER_SECOND
    lines.log.summarize(Counters(), 0, None, 2.0)
    assert lines.take() == [f"team/legacy: {500 - MAX_FAILURES_PER_SECOND} more tasks failed within that second"]


def test_a_minute_is_summarized_when_something_happened_in_it(lines: Lines) -> None:
    counters = Counters()
    lines.log.summarize(counters, 0, 0, 0.0)
    lines.log.summarize(counters, 0, 0, 60.0)
    assert lines.take() == []
    counters.completed, counters.failed = 261, 39
    lines.log.summarize(counters, 2, 5, 90.0)
    assert lines.take() == []
    lines.log.summarize(counters, 2, 5, 120.0)
    assert lines.take() == [
        "team/legacy: in the last minute 261 tasks completed, 39 failed, 0 attempts retried; 2 in flight, 5 tasks wait"
    ]


def test_each_task_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        RouterLog("team/legacy").completed(flight(), 0.25)
    assert caplog.messages == ["team/legacy: task a completed on executor-1, attempt 1, 250 ms"]


@pytest.mark.parametrize(
    ("fails", "words"),
    [(True, "whenUnavailable: Fail is about tasks that were pulled"), (False, "they stay in the queue")],
)
def test_tasks_that_wait_while_no_executor_is_healthy_are_one_warning(lines: Lines, fails: bool, words: str) -> None:
    lines.log.unserved(6, fails=fails)
    lines.log.unserved(0, fails=fails)
    first, second = lines.take()
    assert first.startswith("team/legacy: 6 tasks wait and no executor is healthy: nothing is pulled; ")
    assert words in first
    assert second == "team/legacy: no tasks wait for an executor any more"
