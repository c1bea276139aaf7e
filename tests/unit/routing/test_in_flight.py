"""A task in flight, as the journal and the record of failed tasks get it."""

from __future__ import annotations

from typing import cast

from queueworker.resend import refusal
from queueworker.routing.in_flight import InFlightTask, failed_task, record_outcome, record_state
from queueworker.routing.journal.entries import State
from queueworker.routing.journal.failed_tasks import decode
from queueworker.routing.journal.journal import Journal
from queueworker.routing.limits import Limits
from queueworker.routing.queue.client import QueueClient
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.task import Task

QUEUE = "http://queue:8081"
LIMITS = Limits()


class _Queue:
    url = QUEUE


def flight(raw: bytes = b'{"eval_id":"a","code":"1"}') -> InFlightTask:
    task = Task("a", "1", None, "python", "docker", raw)
    return InFlightTask(task, cast("QueueClient", _Queue()), 0.0, executor="executor-1")


def test_a_record_says_all_that_is_known_and_is_read_back_as_it_was() -> None:
    kept = failed_task(flight(), "oops", 12.3456, LIMITS)
    assert decode("a", kept.encode()) == kept
    assert (kept.error, kept.attempts, kept.executor, kept.failed_at) == ("oops", 1, "executor-1", 12.346)
    assert (kept.queue_url, kept.task, kept.ambiguous) == (QUEUE, b'{"eval_id":"a","code":"1"}', False)


def test_nothing_is_journalled_of_a_task_that_another_router_has() -> None:
    journal: dict[str, bytes] = {}
    lost = flight()
    lost.lost = True
    record_state(lost, cast("Journal", journal), State.EXECUTING, "executor-1")
    record_outcome(lost, cast("Journal", journal), Outcome(completed=True, result=b"{}"))
    assert journal == {}


def test_an_error_is_cut_and_a_task_that_is_too_large_is_left_out() -> None:
    large = b'{"code":"' + b"x" * LIMITS.max_failed_task_body_bytes + b'"}'
    kept = failed_task(flight(large), "e" * 100_000, 1.0, LIMITS)
    assert len(kept.encode()) < LIMITS.max_error_chars + 1000
    assert (kept.kept, kept.task_bytes) == (False, len(large))
    assert "are more than the record keeps" in refusal(kept, ambiguous=True)


def test_what_may_have_run_is_ambiguous() -> None:
    ambiguous, refused = flight(), flight()
    ambiguous.ambiguous = True
    refused.outcome = Outcome(completed=True, result=b"{}")
    for one in (ambiguous, refused):
        kept = failed_task(one, "oops", 1.0, LIMITS)
        assert kept.ambiguous
        assert "would run twice" in refusal(kept, ambiguous=False)
        assert refusal(kept, ambiguous=True) == ""


def test_a_task_that_nobody_knows_is_recorded_and_not_sent_again() -> None:
    kept = failed_task(flight(b"null"), "oops", 1.0, LIMITS)
    assert (kept.kept, kept.task_bytes) == (False, 0)
    assert "did not know more" in refusal(kept, ambiguous=True)
