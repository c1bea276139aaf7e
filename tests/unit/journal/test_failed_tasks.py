"""The record of failed tasks: what is kept, what is bounded, and what is not sent again."""

from __future__ import annotations

from typing import cast

import orjson
import pytest

from queueworker.routing.journal import entries
from queueworker.routing.journal import failed_tasks as failures
from queueworker.routing.journal.entries import State
from queueworker.routing.journal.failed_tasks import Backlog, FailedTask, decode, failed_task
from queueworker.routing.queue.client import QueueClient
from queueworker.routing.resend import refusal
from queueworker.routing.wire.task import Outcome, Task

QUEUE = "http://queue:8081"


class _Queue:
    url = QUEUE


def task(raw: bytes = b'{"eval_id":"a","code":"1"}') -> Task:
    return Task("a", "1", None, "python", "docker", raw, cast("QueueClient", _Queue()), 0.0, executor="executor-1")


def record(eval_id: str, size: int = 0, when: float = 1.0) -> FailedTask:
    return FailedTask(eval_id, "e" * size, 1, "executor-1", when, QUEUE, ambiguous=False, task_bytes=4, task=b'{"a":1}')


def ids(backlog: Backlog) -> list[object]:
    return list(backlog.arguments())[1::3]


def test_a_record_says_all_that_is_known_and_is_read_back_as_it_was() -> None:
    kept = failed_task(task(), "oops", 12.3456)
    assert decode("a", kept.encode()) == kept
    assert (kept.error, kept.attempts, kept.executor, kept.failed_at) == ("oops", 1, "executor-1", 12.346)
    assert (kept.queue_url, kept.task, kept.ambiguous) == (QUEUE, b'{"eval_id":"a","code":"1"}', False)


def test_an_error_is_cut_and_a_task_that_is_too_large_is_left_out() -> None:
    large = b'{"code":"' + b"x" * failures.MAX_TASK_BYTES + b'"}'
    kept = failed_task(task(large), "e" * 100_000, 1.0)
    assert len(kept.encode()) < failures.MAX_ERROR_CHARS + 1000
    assert (kept.kept, kept.task_bytes) == (False, len(large))
    assert "are more than the record keeps" in refusal(kept, ambiguous=True)
    entry = entries.decode(entries.encode_outcome(QUEUE, Outcome(completed=False), large))
    assert entry.task == failures.NO_TASK


def test_what_may_have_run_is_ambiguous() -> None:
    doubtful, refused = task(), task()
    doubtful.doubtful = True
    refused.outcome = Outcome(completed=True, result=b"{}")
    for one in (doubtful, refused):
        kept = failed_task(one, "oops", 1.0)
        assert kept.ambiguous
        assert "would run twice" in refusal(kept, ambiguous=False)
        assert refusal(kept, ambiguous=True) == ""


def test_a_task_that_nobody_knows_is_recorded_and_not_sent_again() -> None:
    kept = failed_task(task(b"null"), "oops", 1.0)
    assert (kept.kept, kept.task_bytes) == (False, 0)
    assert "did not know more" in refusal(kept, ambiguous=True)


@pytest.mark.parametrize("raw", [b"{not json", b"[]", b'{"error": "e"}', b"null"])
def test_a_damaged_record_is_shown_as_such(raw: bytes) -> None:
    found = decode("a", raw)
    assert found.error.startswith("the record cannot be read")
    assert not found.kept


def test_what_waits_to_be_written_is_bounded_by_count_and_by_bytes_and_the_oldest_go() -> None:
    backlog = Backlog()
    for i in range(failures.MAX_RECORDS + 5):
        backlog.add(record(f"t{i}"))
    assert len(backlog) == failures.MAX_RECORDS
    assert ids(backlog)[0] == "t5"
    backlog = Backlog()
    for i in range(20):
        backlog.add(record(f"t{i}", 1024 * 1024))
    assert ids(backlog) == [f"t{i}" for i in range(5, 20)]


def test_of_more_than_a_batch_takes_the_oldest_go_first() -> None:
    backlog = Backlog()
    for i in range(10):
        backlog.add(record(f"t{i}", 1000))
    first = backlog.take(3000)
    assert ids(first) == ["t0", "t1", "t2"]
    assert ids(backlog) == [f"t{i}" for i in range(3, 10)]
    backlog.put_back(first)
    assert ids(backlog.take(1)) == ["t0"]
    assert ids(backlog.take(100_000)) == [f"t{i}" for i in range(1, 10)]
    assert not backlog
    assert not backlog.take(1)


def test_what_could_not_be_written_goes_before_what_came_since_and_a_newer_failure_wins() -> None:
    backlog = Backlog()
    backlog.add(record("a", when=1))
    backlog.add(record("b", when=1))
    taken = backlog.take()
    assert not backlog
    backlog.add(record("a", when=2))
    backlog.add(record("c", when=2))
    backlog.put_back(taken)
    assert list(backlog.arguments())[:1] == [3]
    assert dict(zip(ids(backlog), list(backlog.arguments())[2::3], strict=True)) == {"b": 1000, "a": 2000, "c": 2000}
    backlog.drop("a")
    assert ids(backlog) == ["b", "c"]


def test_a_completed_tasks_entry_is_no_larger_for_it_and_a_failed_ones_holds_the_task() -> None:
    done = orjson.loads(entries.encode_outcome(QUEUE, Outcome(completed=True), b'{"a":1}', 3, "executor-1"))
    assert done.keys() == {"state", "queue", "completed", "error", "published", "result"}
    failed = entries.decode(
        entries.encode_outcome(QUEUE, Outcome(completed=False, error="e"), b'{"a":1}', 3, "executor-1", doubtful=True)
    )
    assert (failed.state, failed.task, failed.attempt, failed.executor) == (State.EXECUTED, b'{"a":1}', 3, "executor-1")
    assert failed.doubtful


def test_an_entry_says_until_when_a_later_executor_has_the_task_and_what_ran_before() -> None:
    pulled = entries.decode(entries.encode_task(State.PULLED, QUEUE, b'{"a":1}', 2, doubtful=True))
    assert (pulled.doubtful, pulled.until) == (True, None)
    executing = entries.decode(entries.encode_task(State.EXECUTING, QUEUE, b'{"a":1}', until=12.5))
    assert (executing.doubtful, executing.until) == (True, 12.5)
