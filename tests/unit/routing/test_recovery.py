"""What a dead router left, and what becomes of it."""

from __future__ import annotations

from typing import cast

import pytest

from queueworker.resource.spec import Recovery
from queueworker.routing.in_flight import MAX_DEATHS, InFlightTask, failed_task, record_outcome, record_state
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State, UnreadableEntry
from queueworker.routing.journal.failed_tasks import NO_TASK
from queueworker.routing.journal.journal import Journal
from queueworker.routing.limits import Limits
from queueworker.routing.queue.client import QueueClient
from queueworker.routing.recovery import revive
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.task import Task

QUEUE = "http://queue:8081"
RAW = b'{"eval_id": "a", "code": "x", "timeout": 1.10, "n": 123456789012345678901234567890, "n": 1}'


class _Queue:
    def __init__(self, url: str = QUEUE) -> None:
        self.url = url


class _Journal(dict[str, bytes]):
    def put(self, eval_id: str, entry: bytes) -> None:
        self[eval_id] = entry


def queue(url: str) -> QueueClient:
    return cast("QueueClient", _Queue(url))


def left(entry: bytes, recovery: Recovery = Recovery.RETRY, eval_id: str = "a") -> InFlightTask:
    return revive(eval_id, entry, recovery, queue, 7.0)


def task() -> InFlightTask:
    return InFlightTask(Task("a", "x", 1, "", "", RAW), queue(QUEUE), 0.0)


def recorded(flight: InFlightTask, state: State | Outcome, executor: str = "") -> bytes:
    journal = _Journal()
    if isinstance(state, Outcome):
        record_outcome(flight, cast("Journal", journal), state)
    else:
        record_state(flight, cast("Journal", journal), state, executor)
    return journal["a"]


def test_a_pulled_task_is_run_as_if_it_had_just_been_pulled() -> None:
    flight = left(recorded(task(), State.PULLED))
    assert (flight.task.code, flight.task.timeout, flight.queue.url, flight.pulled_at) == ("x", 1, QUEUE, 7.0)
    assert (flight.may_have_entry, flight.ambiguous, flight.outcome) == (True, False, None)
    assert flight.task.raw == RAW, "byte for byte, through the journal"


@pytest.mark.parametrize("recovery", list(Recovery))
def test_a_task_that_may_have_run_is_run_again_or_failed_as_recovery_says(recovery: Recovery) -> None:
    flight = left(recorded(task(), State.EXECUTING, "executor-1"), recovery)
    assert flight.ambiguous
    if recovery is Recovery.RETRY:
        assert flight.outcome is None
    else:
        assert flight.outcome is not None
        assert flight.outcome.error == "the router died while executor executor-1 ran the task"


def test_a_task_of_an_asynchronous_executor_is_waited_for_first_whatever_recovery_says() -> None:
    running = task()
    running.deadline = 99.5
    flight = left(recorded(running, State.EXECUTING, "executor-1"), Recovery.FAIL)
    assert (flight.outcome, flight.deadline) == (None, 99.5)


def test_a_task_of_an_asynchronous_executor_outlives_any_number_of_routers() -> None:
    running = task()
    running.deadline = 99.5
    for _ in range(2 * MAX_DEATHS):
        running = left(recorded(running, State.EXECUTING, "executor-1"))
        assert (running.outcome, running.deaths) == (None, 0)


def test_a_task_whose_routers_keep_dying_is_failed_and_not_run_for_ever() -> None:
    entry = recorded(task(), State.EXECUTING, "executor-1")
    for death in range(1, MAX_DEATHS):
        flight = left(entry)
        assert (flight.outcome, flight.deaths) == (None, death)
        waiting = left(recorded(flight, State.PULLED))
        assert waiting.deaths == death, "a death while it only waited is not the task's"
        entry = recorded(waiting, State.EXECUTING, "executor-1")
    outcome = left(entry).outcome
    assert outcome is not None
    assert outcome.error == f"its router died {MAX_DEATHS} times while it ran"


def test_an_executed_task_keeps_its_result_to_the_byte_and_is_never_run_again() -> None:
    result = b'{"status": "completed", "n": 1.10, "n": 123456789012345678901234567890}'
    flight = left(recorded(task(), Outcome(completed=True, result=result)), Recovery.FAIL)
    assert flight.outcome == Outcome(completed=True, result=result)


def test_a_failed_task_keeps_what_its_record_needs() -> None:
    failed = task()
    failed.attempt, failed.executor, failed.ambiguous = 3, "executor-2", True
    flight = left(recorded(failed, Outcome(completed=False, error="oops")))
    record = failed_task(flight, "oops", 12.3456, Limits())
    assert (record.attempts, record.executor, record.ambiguous, record.task) == (3, "executor-2", True, RAW)
    assert (record.failed_at, record.queue_url, record.task_bytes) == (12.346, QUEUE, len(RAW))


def test_reports_go_to_the_queue_that_the_task_came_from() -> None:
    assert left(entries.encode_task(State.PULLED, "http://other", RAW)).queue.url == "http://other"


def test_a_task_whose_body_was_not_kept_is_failed() -> None:
    flight = left(entries.encode_task(State.EXECUTING, QUEUE, NO_TASK, 1, "executor-1"))
    assert flight.outcome is not None
    assert not flight.outcome.completed


@pytest.mark.parametrize(
    "entry",
    [
        b"nonsense",
        entries.encode_task(State.PULLED, QUEUE, b"[]"),
        entries.encode_task(State.PULLED, QUEUE, b'{"eval_id":"b","code":"x"}'),
        entries.encode_task(State.PULLED, QUEUE, b'{"eval_id":"a"}'),
    ],
)
def test_an_entry_that_holds_no_such_task_is_unreadable(entry: bytes) -> None:
    with pytest.raises(UnreadableEntry):
        left(entry)


# --- records of failed tasks


def test_an_error_is_cut_and_a_task_that_is_too_large_is_left_out_of_its_record() -> None:
    flight = InFlightTask(Task("a", "x", 1, "", "", b"x" * 11), queue(QUEUE), 0.0)
    record = failed_task(flight, "e" * 100, 1.0, Limits(max_error_chars=20, max_failed_task_body_bytes=10))
    assert (record.error, record.task, record.task_bytes) == ("e" * 20 + "…", NO_TASK, 11)


def test_a_task_whose_result_the_queue_refused_has_run_too() -> None:
    flight = task()
    assert not failed_task(flight, "oops", 1.0, Limits()).ambiguous
    flight.outcome = Outcome(completed=True, result=b"{}")
    assert failed_task(flight, "refused", 1.0, Limits()).ambiguous
