"""When the demo stops waiting for the tasks that are under way."""

from __future__ import annotations

from dataclasses import replace

from demo.settling import IDLE_SECONDS, NO_PROGRESS_SECONDS, SETTLE_SECONDS, Settling
from demo.show.acts import TAKEOVER_SECONDS
from demo.show.facts import Executor, Facts, Router, Stored

EXECUTORS = (Executor("executor-1", healthy=True, in_flight=0, capacity=2),)
IDLE = Router("http://router", EXECUTORS, queue=True, redis=True, buffered=0, in_flight=0, recovered=0)
BUSY = replace(IDLE, in_flight=1)
FACTS = Facts(100.0, BUSY, queue_answers=True, submitted=10, handed_out=10, reported=9, stored=Stored(9))


def at(seconds: float, router: Router = BUSY, stored: int = 9) -> Facts:
    return replace(FACTS, at=100.0 + seconds, router=router, stored=Stored(stored))


def test_it_is_done_when_every_task_has_an_outcome() -> None:
    settling = Settling([], 100.0)
    assert not settling.is_done(at(0), 10)
    assert settling.is_done(at(1, stored=10), 10)


def test_a_lost_task_is_not_waited_for_once_nobody_works_on_it() -> None:
    settling = Settling([], 100.0)
    assert not settling.is_done(at(1), 10)
    assert not settling.is_done(at(2, IDLE), 10)
    assert settling.is_done(at(1 + IDLE_SECONDS, IDLE), 10)


def test_the_journal_of_a_killed_router_is_waited_for() -> None:
    settling = Settling([100.0], 100.0)
    assert not settling.is_done(at(TAKEOVER_SECONDS, IDLE), 10)
    assert settling.is_done(at(TAKEOVER_SECONDS + IDLE_SECONDS, IDLE), 10)


def test_a_slow_machine_gets_time_while_there_is_progress() -> None:
    settling = Settling([], 100.0)
    assert not settling.is_done(at(0, stored=1), 10)
    assert not settling.is_done(at(NO_PROGRESS_SECONDS - 1, stored=2), 10)
    assert not settling.is_done(at(NO_PROGRESS_SECONDS + 1, stored=2), 10)
    assert settling.is_done(at(2 * NO_PROGRESS_SECONDS, stored=2), 10)


def test_it_ends_in_any_case() -> None:
    settling = Settling([], 100.0)
    for second in range(int(SETTLE_SECONDS)):
        assert not settling.is_done(at(second, stored=second), 1000)
    assert settling.is_done(at(SETTLE_SECONDS, stored=999), 1000)
