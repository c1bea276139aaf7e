"""How long to wait, and the backoff that lets one caller at a time try a queue that cannot be reached."""

from __future__ import annotations

import asyncio

import pytest

from queueworker.routing.backoff import exponential, queue_delay
from queueworker.routing.queue.shared_backoff import SharedBackoff
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
    """Callers of one backoff, on a virtual clock; each records when it was allowed to try."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.turns: list[tuple[float, str]] = []
        self.offered: list[float] = []
        self.backoff = SharedBackoff(lambda: self.offered.append(self.now))

    @property
    def now(self) -> float:
        return round(self.loop.time() - 1000, 6)

    def call(self, name: str) -> asyncio.Task[None]:
        async def caller() -> None:
            await self.backoff.acquire()
            self.turns.append((self.now, name))

        return self.loop.create_task(caller())

    def fail(self) -> None:
        self.loop.call_soon(self.backoff.failed, self.backoff.epoch)
        self.loop.advance(0)


@pytest.fixture
def tries() -> Tries:
    return Tries()


def test_an_healthy_backoff_lets_everybody_through(tries: Tries) -> None:
    for name in "abc":
        tries.call(name)
    tries.loop.advance(0)
    assert tries.turns == [(0, "a"), (0, "b"), (0, "c")]


def test_a_backoff_lets_one_caller_try_after_each_delay(tries: Tries) -> None:
    tries.fail()
    for name in "abc":
        tries.call(name)
    tries.loop.advance(12)
    assert tries.turns == [(5, "a")], "one at a time, while it has not said how it went"
    tries.fail()
    tries.loop.advance(60)
    assert tries.turns == [(5, "a"), (22, "b")]
    tries.backoff.succeeded()
    tries.loop.advance(0)
    assert tries.turns[2:] == [(72, "c")]
    assert tries.backoff.healthy


def test_the_many_requests_that_one_outage_breaks_count_once(tries: Tries) -> None:
    epoch = tries.backoff.epoch
    for _ in range(5):
        tries.loop.call_soon(tries.backoff.failed, epoch)
    tries.loop.advance(0)
    assert tries.backoff.consecutive_errors == 1


def test_a_turn_that_nobody_waits_for_is_offered_and_kept(tries: Tries) -> None:
    tries.fail()
    assert not tries.backoff.try_acquire()
    tries.loop.advance(6)
    assert tries.offered == [5]
    assert tries.backoff.try_acquire()
    assert not tries.backoff.try_acquire(), "it is one turn"


def test_retry_now_brings_the_turn_forward(tries: Tries) -> None:
    tries.fail()
    tries.call("a")
    tries.loop.advance(1)
    tries.loop.call_soon(tries.backoff.retry_now)
    tries.loop.advance(1)
    assert tries.turns == [(1, "a")]
    tries.backoff.succeeded()
    tries.loop.call_soon(tries.backoff.retry_now)
    tries.loop.advance(60)
    assert tries.offered == [2], "a healthy backoff has nothing to retry"


def test_success_lets_all_that_wait_through_at_once(tries: Tries) -> None:
    tries.fail()
    for name in "abc":
        tries.call(name)
    tries.loop.advance(1)
    tries.backoff.succeeded()
    tries.loop.advance(0)
    assert tries.turns == [(1, "a"), (1, "b"), (1, "c")]
    tries.loop.advance(60)
    assert tries.backoff.consecutive_errors == 0


def test_a_caller_that_gives_up_with_its_turn_in_hand_passes_it_on(tries: Tries) -> None:
    tries.fail()
    first, _ = tries.call("a"), tries.call("b")
    tries.loop.advance(1)
    tries.backoff._offer()  # `a` is woken, and ended before it runs
    first.cancel()
    tries.loop.advance(0.1)
    assert tries.turns == [(1, "b")]


def test_a_try_that_ends_without_an_answer_gives_its_turn_back(tries: Tries) -> None:
    tries.fail()
    tries.call("a")
    tries.call("b")
    tries.loop.advance(6)
    assert tries.turns == [(5, "a")]
    tries.backoff.abandoned(tries.backoff.epoch)
    tries.loop.advance(0)
    assert tries.turns == [(5, "a"), (6, "b")]


@pytest.mark.parametrize("when", ["healthy", "of another epoch", "the timer runs"])
def test_a_try_that_held_no_turn_gives_none_back(tries: Tries, when: str) -> None:
    epoch = tries.backoff.epoch
    if when != "healthy":
        tries.fail()
    if when == "the timer runs":
        epoch = tries.backoff.epoch
    tries.backoff.abandoned(epoch)
    assert tries.offered == []


# --- health
