"""When the queue is polled, and why it is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.limits import Limits
from queueworker.routing.memory_budget import TASK_COPIES
from queueworker.routing.polling import Hold, Poller
from queueworker.routing.queue.shared_backoff import SharedBackoff
from tests.support.memory import account
from tests.support.model.virtual_time import VirtualLoop

BUDGET_BYTES = 10_000_000


@dataclass
class Journal:
    writable: bool = True
    has_room: bool = True


@dataclass
class Reporter:
    all_refused: bool = False


@dataclass
class Queue:
    reporter: Reporter = field(default_factory=Reporter)
    poll_pause: float = 0.0
    backoff: SharedBackoff = field(default_factory=lambda: SharedBackoff(lambda: None))


class Polling:
    def __init__(self, **spec: Any) -> None:
        self.loop = VirtualLoop()
        self.queue, self.journal = Queue(), Journal()
        self.due = 0
        self.memory = account(BUDGET_BYTES)
        limits = Limits(max_concurrent_polls=8)
        parts = (cast("Any", self.queue), cast("Any", self.journal), self.memory, limits)
        self.poller = Poller(QueueWorkerSpec.model_validate(spec), *parts, on_due=self._due)
        self.poller.routing = True

    def _due(self) -> None:
        self.due += 1

    def start_all(self) -> int:
        """Start as many polls as may start."""
        started = 0
        while self.poller.may_start():
            self.poller.started()
            started += 1
        return started

    def end(self, *, found: bool) -> None:
        async def ended() -> None:
            self.poller.ended(found=found)

        self.loop.run_until_complete(ended())


@pytest.fixture
def polling() -> Polling:
    made = Polling()
    made.poller.resume()
    return made


def test_one_poll_goes_first_and_each_task_doubles_what_may_be_under_way(polling: Polling) -> None:
    seen = []
    for _ in range(5):
        seen.append(polling.start_all() + 0)
        while polling.poller.under_way:
            polling.end(found=True)
            if polling.poller.allowed >= 8:
                break
    assert seen[0] == 1
    assert polling.poller.allowed == 8, "the bound of the limits"


def test_an_empty_queue_is_asked_once_per_interval(polling: Polling) -> None:
    assert polling.start_all() == 1
    polling.end(found=False)
    assert polling.start_all() == 0
    due = polling.due
    polling.loop.advance(0.99)
    assert polling.due == due
    polling.loop.advance(0.02)
    assert polling.due == due + 1
    assert polling.start_all() == 1


def test_foreign_answers_lengthen_the_pause(polling: Polling) -> None:
    polling.start_all()
    polling.queue.poll_pause = 5.0
    due = polling.due
    polling.end(found=False)
    polling.loop.advance(4.9)
    assert polling.due == due
    polling.loop.advance(0.2)
    assert polling.due == due + 1


@pytest.mark.parametrize("hold", list(Hold))
def test_each_reason_to_pull_nothing_holds_and_names_itself(hold: Hold) -> None:
    polling = Polling(routing={"journal": "Required"})
    polling.poller.resume()
    assert polling.poller.hold() is None
    match hold:
        case Hold.NOT_ROUTING:
            polling.poller.routing = False
        case Hold.JOURNAL:
            polling.journal.writable = False
        case Hold.REFUSED_REPORTS:
            polling.queue.reporter.all_refused = True
        case Hold.MEMORY:
            polling.memory.take_result(BUDGET_BYTES)
        case Hold.EVENTS:
            polling.journal.has_room = False
    assert polling.poller.hold() is hold
    assert polling.start_all() == 0


def test_a_journal_that_cannot_be_written_holds_nothing_when_it_is_preferred(polling: Polling) -> None:
    polling.journal.writable = False
    assert polling.poller.hold() is None


def test_while_the_queue_is_away_only_the_due_try_starts(polling: Polling) -> None:
    backoff = polling.queue.backoff

    async def fail() -> None:
        backoff.failed(backoff.epoch)

    polling.loop.run_until_complete(fail())
    assert polling.start_all() == 0
    polling.loop.advance(5)
    polling.poller.allowed = 8
    assert polling.start_all() == 1


def test_no_more_polls_are_under_way_than_the_budget_has_room_for_tasks_like_those_before(polling: Polling) -> None:
    polling.poller.allowed = 8
    size = BUDGET_BYTES // 10 // TASK_COPIES
    polling.memory.take_task(size)
    polling.memory.give_task(size)
    assert polling.start_all() == 8
    polling.memory.take_task(3 * size)
    polling.memory.give_task(3 * size)
    polling.end(found=True)
    assert polling.start_all() == 0, "seven polls may bring tasks that are three times as large"


def test_a_closed_poller_asks_no_more(polling: Polling) -> None:
    polling.start_all()
    polling.poller.close()
    polling.end(found=False)
    due = polling.due
    polling.loop.advance(100)
    assert polling.due == due
