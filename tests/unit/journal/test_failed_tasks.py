"""The record of failed tasks: its spelling, and what waits to be written to it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from queueworker.resend import refusal
from queueworker.routing.journal.failed_tasks import NO_TASK, Backlog, FailedTask, decode
from queueworker.routing.limits import Limits

QUEUE = "http://queue:8081"


def record(eval_id: str, size: int = 0, when: float = 1.0, task: bytes = b'{"a":1}') -> FailedTask:
    size_of_task = 0 if task == NO_TASK else len(task)
    return FailedTask(eval_id, "e" * size, 1, "executor-1", when, QUEUE, False, size_of_task, task)


def ids(backlog: Backlog) -> list[object]:
    count, *rest = backlog.arguments()
    found = rest[2::3]
    assert count == len(found)
    return found


def test_a_record_is_read_back_as_it_was_and_its_task_to_the_byte() -> None:
    task = b'{ "n":123456789012345678901234567890,"f":1.10,"k":1,"k":2,"t":1e400,"u":"\xc3\xa9" }'
    kept = FailedTask("a", "oops", 2, "executor-1", 12.346, QUEUE, True, len(task), task)
    assert decode("a", kept.encode()) == kept


def test_an_error_with_half_a_surrogate_pair_is_recorded_all_the_same() -> None:
    kept = FailedTask("a", "half \ud83d", 1, "", 1.0, QUEUE, False, 9, b'{"a":[1]}')
    assert decode("a", kept.encode()).error == "half \ufffd"


@pytest.mark.parametrize("raw", [b"{not json", b"[]", b'{"error": "e"}', b"null"])
def test_a_damaged_record_is_shown_as_such(raw: bytes) -> None:
    found = decode("a", raw)
    assert found.error.startswith("the record cannot be read")
    assert not found.kept


def test_a_task_that_was_not_kept_is_not_sent_again() -> None:
    assert "did not know more" in refusal(record("a", task=NO_TASK), ambiguous=True)
    large = FailedTask("a", "e", 1, "", 1.0, QUEUE, False, 1_000_000, NO_TASK)
    assert "are more than the record keeps" in refusal(large, ambiguous=True)


def test_what_waits_is_bounded_by_count_and_by_bytes_and_the_oldest_go() -> None:
    backlog = Backlog(Limits(max_failed_tasks=3))
    for i in range(5):
        backlog.add(record(f"t{i}"))
    assert ids(backlog) == ["t2", "t3", "t4"]
    backlog = Backlog(Limits(max_failed_tasks_bytes=4000))
    for i in range(5):
        backlog.add(record(f"t{i}", 1000))
    assert ids(backlog) == ["t2", "t3", "t4"]
    assert backlog.bytes <= 4000


def test_a_batch_takes_the_oldest_or_one_that_is_larger_than_it() -> None:
    backlog = Backlog(Limits())
    for i in range(10):
        backlog.add(record(f"t{i}", 1000))
    first = backlog.take(3600)
    assert ids(first) == ["t0", "t1", "t2"]
    assert ids(backlog) == [f"t{i}" for i in range(3, 10)]
    backlog.put_back(first)
    assert ids(backlog.take(1)) == ["t0"]
    assert ids(backlog.take(100_000)) == [f"t{i}" for i in range(1, 10)]
    assert not backlog
    assert not backlog.take(1)
    assert backlog.bytes == 0


def test_what_could_not_be_written_goes_before_what_came_since_and_a_newer_failure_wins() -> None:
    backlog = Backlog(Limits())
    backlog.add(record("a", when=1))
    backlog.add(record("b", when=1))
    taken = backlog.take()
    assert not backlog
    backlog.add(record("a", when=2))
    backlog.add(record("c", when=2))
    backlog.put_back(taken)
    arguments = list(backlog.arguments())
    assert {eval_id: when for eval_id, when in pairwise(arguments) if isinstance(eval_id, str)} == {
        "b": 1000,
        "a": 2000,
        "c": 2000,
    }
    backlog.drop("a")
    assert ids(backlog) == ["b", "c"]


def test_the_script_is_told_the_bounds_only_when_there_are_records() -> None:
    backlog = Backlog(Limits(max_failed_tasks=7, max_failed_tasks_bytes=9000))
    assert list(backlog.arguments()) == [0]
    backlog.add(record("a"))
    assert list(backlog.arguments())[:4] == [1, 7, 9000, "a"]
