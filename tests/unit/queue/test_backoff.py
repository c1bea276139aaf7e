"""How long to wait, and the gate that lets one caller at a time try a queue that cannot be reached."""

from __future__ import annotations

import asyncio

import pytest

from queueworker.routing.backoff import Gate, exponential, queue_delay
from queueworker.routing.executors.health import HealthState, period
from tests.support.model.virtual_time import VirtualLoop


def test_the_queues_backoff_is_the_legacy_workers() -> None:
    assert [queue_delay(errors) for errors in range(1, 9)] == [5, 10, 15, 20, 25, 30, 30, 30]


@pytest.mark.parametrize(
    ("attempt", "first", "most", "seconds"),
    [(1, 1, 30, 1), (2, 1, 30, 2), (5, 1, 30, 16), (6, 1, 30, 30), (10_000, 1, 30, 30), (3, 0, 30, 0), (1, 5, 2, 2)],
)
def test_attempts_back_off_exponentially_up_to_a_bound(attempt: int, first: float, most: float, seconds: float) -> None:
    assert exponential(attempt, first, most) == seconds


class Tries:
    """Callers of one gate, on a virtual clock; each notes when it got its turn."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.turns: list[tuple[float, str]] = []
        self.offered: list[float] = []
        self.gate = Gate(lambda: self.offered.append(self.now))

    @property
    def now(self) -> float:
        return round(self.loop.time() - 1000, 6)

    def call(self, name: str) -> asyncio.Task[None]:
        async def caller() -> None:
            await self.gate.turn()
            self.turns.append((self.now, name))

        return self.loop.create_task(caller())

    def fail(self) -> None:
        self.loop.call_soon(self.gate.failed, self.gate.epoch)
        self.loop.advance(0)


@pytest.fixture
def tries() -> Tries:
    return Tries()


def test_an_open_gate_lets_everybody_through(tries: Tries) -> None:
    for name in "abc":
        tries.call(name)
    tries.loop.advance(0)
    assert tries.turns == [(0, "a"), (0, "b"), (0, "c")]


def test_a_closed_gate_lets_one_caller_try_after_each_delay(tries: Tries) -> None:
    tries.fail()
    for name in "abc":
        tries.call(name)
    tries.loop.advance(12)
    assert tries.turns == [(5, "a")], "one at a time, while it has not said how it went"
    tries.fail()
    tries.loop.advance(60)
    assert tries.turns == [(5, "a"), (22, "b")]
    tries.gate.succeeded()
    tries.loop.advance(0)
    assert tries.turns[2:] == [(72, "c")]
    assert tries.gate.open


def test_the_many_requests_that_one_outage_breaks_count_once(tries: Tries) -> None:
    epoch = tries.gate.epoch
    for _ in range(5):
        tries.loop.call_soon(tries.gate.failed, epoch)
    tries.loop.advance(0)
    assert tries.gate.consecutive_errors == 1


def test_a_turn_that_nobody_waits_for_is_offered_and_kept(tries: Tries) -> None:
    tries.fail()
    assert not tries.gate.take_turn()
    tries.loop.advance(6)
    assert tries.offered == [5]
    assert tries.gate.take_turn()
    assert not tries.gate.take_turn(), "it is one turn"


def test_hurry_brings_the_turn_forward(tries: Tries) -> None:
    tries.fail()
    tries.call("a")
    tries.loop.advance(1)
    tries.loop.call_soon(tries.gate.hurry)
    tries.loop.advance(1)
    assert tries.turns == [(1, "a")]
    tries.gate.succeeded()
    tries.loop.call_soon(tries.gate.hurry)
    tries.loop.advance(60)
    assert tries.offered == [2], "an open gate has nothing to hurry"


def test_success_lets_all_that_wait_through_at_once(tries: Tries) -> None:
    tries.fail()
    for name in "abc":
        tries.call(name)
    tries.loop.advance(1)
    tries.gate.succeeded()
    tries.loop.advance(0)
    assert tries.turns == [(1, "a"), (1, "b"), (1, "c")]
    tries.loop.advance(60)
    assert tries.gate.consecutive_errors == 0


def test_a_caller_that_gives_up_with_its_turn_in_hand_passes_it_on(tries: Tries) -> None:
    tries.fail()
    first, _ = tries.call("a"), tries.call("b")
    tries.loop.advance(1)
    tries.gate._offer()  # `a` is woken, and ended before it runs
    first.cancel()
    tries.loop.advance(0.1)
    assert tries.turns == [(1, "b")]


def test_a_try_that_ends_without_an_answer_gives_its_turn_back(tries: Tries) -> None:
    tries.fail()
    tries.call("a")
    tries.call("b")
    tries.loop.advance(6)
    assert tries.turns == [(5, "a")]
    tries.gate.abandoned(tries.gate.epoch)
    tries.loop.advance(0)
    assert tries.turns == [(5, "a"), (6, "b")]


@pytest.mark.parametrize("when", ["open", "of another epoch", "the timer runs"])
def test_a_try_that_held_no_turn_gives_none_back(tries: Tries, when: str) -> None:
    epoch = tries.gate.epoch
    if when != "open":
        tries.fail()
    if when == "the timer runs":
        epoch = tries.gate.epoch
    tries.gate.abandoned(epoch)
    assert tries.offered == []


# --- health


def test_an_executor_is_unhealthy_until_its_first_good_check() -> None:
    state = HealthState()
    assert not state.healthy
    assert state.reason
    assert state.good(success_threshold=3), "the first good check counts at once"
    assert (state.healthy, state.reason) == (True, "")


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_thresholds_count_checks_in_a_row(threshold: int) -> None:
    state = HealthState()
    state.good(1)
    for failed in range(1, threshold + 1):
        assert state.bad("away", threshold) is (failed == threshold)
    assert (state.healthy, state.reason) == (False, "away")
    for passed in range(1, threshold + 1):
        assert state.good(threshold) is (passed == threshold)
    for _ in range(threshold - 1):
        state.bad("away", threshold)
        state.good(threshold)
    assert state.healthy, "a good check in between begins the count anew"


def test_an_unhealthy_executor_is_looked_for_at_least_once_a_second() -> None:
    assert [period(True, 5), period(False, 5), period(False, 0.5)] == [5, 1.0, 0.5]
