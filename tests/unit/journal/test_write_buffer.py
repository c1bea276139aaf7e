"""What is to be written next, and what Redis holds of it."""

from __future__ import annotations

import pytest

from queueworker.routing.journal.event_buffer import EVENT_BYTES, EventBuffer
from queueworker.routing.journal.failed_tasks import FailedTask
from queueworker.routing.journal.write_buffer import MAX_REMOVALS, Batch, WriteBuffer
from queueworker.routing.limits import Limits
from tests.support.journals import completed


def failed(eval_id: str) -> FailedTask:
    return FailedTask(eval_id, "oops", 1, "", 1.0, "http://q", ambiguous=False, task_bytes=2, task=b"{}")


def made(limits: Limits | None = None) -> WriteBuffer:
    return WriteBuffer(limits or Limits())


def stored(*eval_ids: str, limits: Limits | None = None) -> WriteBuffer:
    """A buffer whose entries Redis holds."""
    buffer = made(limits)
    for eval_id in eval_ids:
        buffer.put(eval_id, b"pulled")
    buffer.written(buffer.take())
    return buffer


def payloads(batch: Batch) -> list[bytes]:
    return [event.payload for event, _ in batch.events]


# --- entries and their removal


def test_a_later_entry_takes_the_place_of_an_earlier_one_and_each_is_taken_once() -> None:
    buffer = made()
    buffer.put("a", b"pulled")
    buffer.put("a", b"executing")
    batch = buffer.take()
    assert batch.entries == {"a": b"executing"}
    assert not buffer.pending
    buffer.written(batch)
    assert buffer.entries == {"a": b"executing"}


def test_an_entry_that_was_never_sent_leaves_nothing_to_remove() -> None:
    buffer = made()
    buffer.put("a", b"pulled")
    buffer.finish("a", None, None)
    assert not buffer.pending


def test_an_entry_goes_with_its_event_or_by_itself_when_there_is_none() -> None:
    buffer = stored("a", "b")
    buffer.finish("a", completed(b"{}"), None)
    buffer.finish("b", None, None)
    batch = buffer.take()
    assert (payloads(batch), sorted(batch.removals)) == ([b"{}"], ["a", "b"])
    buffer.written(batch)
    assert not buffer.pending
    assert not buffer.may_be_stored("a")


def test_an_entry_that_is_on_its_way_when_its_task_ends_is_removed_by_the_next_batch() -> None:
    buffer = made()
    buffer.put("a", b"pulled")
    batch = buffer.take()
    buffer.finish("a", completed(b"{}"), None)
    buffer.written(batch)
    assert buffer.take().removals == ["a"]


@pytest.mark.parametrize("event", [completed(b"old"), None])
def test_a_newer_task_of_an_id_keeps_its_entry_though_the_older_ones_removal_waits(event: object) -> None:
    buffer = stored("a")
    buffer.finish("a", event, None)  # type: ignore[arg-type]
    buffer.put("a", b"newer")
    batch = buffer.take()
    assert (batch.removals, batch.entries) == ([], {"a": b"newer"})
    buffer.written(batch)
    buffer.finish("a", completed(b"new"), None)
    assert buffer.take().removals == ["a"]


def test_a_newer_task_of_an_id_whose_removal_is_on_its_way_is_written_after_it() -> None:
    buffer = stored("a")
    buffer.finish("a", completed(b"old"), None)
    batch = buffer.take()
    buffer.put("a", b"newer")
    buffer.written(batch)
    assert not buffer.may_be_stored("a")
    assert buffer.take().entries == {"a": b"newer"}


def test_a_newer_task_that_ends_before_its_events_turn_is_removed_with_its_own_event() -> None:
    buffer = stored("a", limits=Limits(max_batch_bytes=EVENT_BYTES))
    buffer.finish("a", completed(b"old"), None)
    buffer.put("a", b"newer")
    buffer.written(buffer.take())
    assert buffer.may_be_stored("a")
    buffer.finish("a", completed(b"new"), None)
    assert buffer.take().removals == ["a"]


# --- batches


def test_a_batch_is_bounded_in_entries_and_takes_one_that_is_larger_alone() -> None:
    buffer = made(Limits(max_batch_bytes=100))
    for eval_id, size in (("a", 60), ("b", 40), ("c", 1), ("large", 1000), ("d", 1)):
        buffer.put(eval_id, b"x" * size)
    taken = []
    while buffer.pending:
        taken.append([*(batch := buffer.take()).entries])
        buffer.written(batch)
    assert taken == [["a", "b"], ["c"], ["large"], ["d"]]


def test_a_batch_is_bounded_in_events_and_takes_one_that_is_larger_alone() -> None:
    buffer = made(Limits(max_batch_bytes=3 * EVENT_BYTES))
    for payload in (b"1", b"2", b"x" * 10_000, b"3", b"4", b"5"):
        buffer.events.add(completed(payload))
    taken = []
    while buffer.pending:
        taken.append(payloads(batch := buffer.take()))
        assert batch.size == sum(len(p) + EVENT_BYTES for p in taken[-1])
        buffer.written(batch)
    assert taken == [[b"1", b"2"], [b"x" * 10_000], [b"3", b"4"], [b"5"]]


def test_a_batch_is_bounded_in_records() -> None:
    buffer = made(Limits(max_batch_bytes=1))
    for eval_id in ("a", "b"):
        buffer.finish(eval_id, None, failed(eval_id))
    assert len(buffer.take().failed_tasks) == 1
    assert len(buffer.failed_tasks) == 1


def test_a_batch_is_bounded_in_removals_and_what_is_left_is_in_the_next() -> None:
    ids = [f"t{i}" for i in range(MAX_REMOVALS + 5)]
    buffer = stored(*ids, limits=Limits(max_batch_bytes=10**9))
    for eval_id in ids:
        buffer.finish(eval_id, None, None)
    first = buffer.take()
    assert len(first.removals) == MAX_REMOVALS
    buffer.written(first)
    assert sorted(first.removals + buffer.take().removals) == sorted(ids)


def test_the_arguments_are_four_lists_each_after_its_length() -> None:
    buffer = stored("a")
    buffer.finish("a", completed(b"{}"), failed("a"))
    buffer.put("b", b"pulled")
    number, *rest = buffer.take().arguments(7)
    assert number == 7
    assert rest[:9] == [1, "evaluation:completed", b"{}", 1, "a", 1, "b", b"pulled", 1]


# --- what could not be written


def test_what_could_not_be_written_comes_first_and_with_its_newest_entries() -> None:
    buffer = stored("done")
    buffer.put("a", b"pulled")
    buffer.put("b", b"pulled")
    buffer.finish("done", completed(b"1"), failed("done"))
    batch = buffer.take()
    buffer.put("b", b"executing")
    buffer.put("c", b"pulled")
    buffer.finish("a", completed(b"2"), failed("a"))
    buffer.put_back(batch)
    again = buffer.take()
    assert list(again.entries.items()) == [("b", b"executing"), ("c", b"pulled")]
    assert payloads(again) == [b"1", b"2"]
    assert again.removals == ["done", "a"], "the entry of `a` may have reached Redis"
    assert len(again.failed_tasks) == 2


def test_an_entry_whose_answer_was_lost_is_removed_when_its_task_ends() -> None:
    buffer = made()
    buffer.put("a", b"pulled")
    buffer.put_back(buffer.take())
    buffer.finish("a", None, None)
    assert buffer.take().removals == ["a"]


def test_without_memory_in_redis_events_and_removals_are_done_and_entries_and_records_wait() -> None:
    buffer = stored("done", "gone")
    buffer.put("a", b"pulled")
    buffer.finish("done", completed(b"1"), failed("done"))
    buffer.finish("gone", None, None)
    buffer.written_but_entries(buffer.take())
    again = buffer.take()
    assert (payloads(again), again.removals, again.entries) == ([], [], {"a": b"pulled"})
    assert len(again.failed_tasks) == 1
    assert not buffer.may_be_stored("done")
    assert buffer.may_be_stored("a")


def test_dropped_events_let_their_entries_go_but_not_those_of_newer_tasks() -> None:
    buffer = stored("a", "b", "c", limits=Limits(max_buffered_event_bytes=2 * EVENT_BYTES))
    for eval_id in ("a", "b", "c"):
        buffer.finish(eval_id, completed(b"x"), None)
    buffer.put("b", b"newer")
    assert buffer.drop_oldest(0) == 2
    batch = buffer.take()
    assert (payloads(batch), sorted(batch.removals)) == ([b"x"], ["a", "c"])


def test_the_last_event_is_never_dropped_however_large_it_is() -> None:
    buffer = made(Limits(max_buffered_event_bytes=1))
    buffer.events.add(completed(b"small"))
    buffer.events.add(completed(b"x" * 1000))
    assert buffer.drop_oldest(0) == 1
    assert payloads(buffer.take()) == [b"x" * 1000]


def test_what_another_journal_could_not_write_comes_first() -> None:
    other, buffer = stored("a"), made()
    other.finish("a", completed(b"older"), failed("a"))
    buffer.finish("b", completed(b"newer"), failed("b"))
    unwritten = other.take_unwritten()
    assert unwritten
    assert not other.take_unwritten()
    buffer.inherit(unwritten)
    batch = buffer.take()
    assert (payloads(batch), batch.removals) == ([b"older", b"newer"], [])
    assert len(batch.failed_tasks) == 2


def test_bytes_of_events_are_counted_as_they_come_and_go() -> None:
    events = EventBuffer(2 * EVENT_BYTES)
    events.add(completed(b"x"))
    assert not events.full
    events.add(completed(b"y"))
    assert events.full
    taken = events.take(EVENT_BYTES + 1)
    assert (len(taken), events.bytes) == (1, EVENT_BYTES + 1)
    events.put_back(taken)
    assert (len(events), events.bytes) == (2, 2 * (EVENT_BYTES + 1))


# --- another journal in Redis


def test_entries_of_others_are_removed_when_their_tasks_end_and_do_not_replace_ours() -> None:
    buffer = made()
    buffer.put("ours", b"executing")
    assert buffer.adopt({"ours": b"pulled", "theirs": b"pulled"}) == {"theirs": b"pulled"}
    assert buffer.take().entries == {"ours": b"executing"}
    for eval_id in ("ours", "theirs"):
        buffer.finish(eval_id, None, None)
    assert sorted(buffer.take().removals) == ["ours", "theirs"]


def test_a_redis_that_forgot_us_gets_all_entries_again() -> None:
    buffer = stored("a", "b")
    buffer.put("c", b"pulled")
    buffer.write_all_again()
    assert buffer.take().entries.keys() == {"a", "b", "c"}


def test_after_a_successor_took_entries_over_the_others_are_written_and_nothing_is_removed() -> None:
    buffer = stored("taken", "finished", "gone")
    buffer.put("new", b"pulled")
    buffer.finish("finished", completed(b"{}"), failed("finished"))
    buffer.finish("gone", None, None)
    assert buffer.start_over({"", "taken", "finished", "gone"}) == {"taken"}
    batch = buffer.take()
    assert (batch.entries, payloads(batch)) == ({"new": b"pulled"}, [b"{}"])
    assert len(batch.failed_tasks) == 1
    assert batch.removals == []
    assert not buffer.may_be_stored("taken")


@pytest.mark.parametrize("sent", [False, True])
def test_what_was_taken_of_a_task_that_is_handed_out_again_is_its_earlier_copy(*, sent: bool) -> None:
    buffer = stored("a")
    buffer.finish("a", completed(b"{}"), None)
    buffer.put("a", b"again")
    if sent:
        buffer.put_back(buffer.take())  # refused: the instance is fenced
    assert buffer.start_over({"a"}) == set()
    assert buffer.take().entries == {"a": b"again"}


def test_a_copy_that_is_written_is_the_one_that_was_taken() -> None:
    buffer = stored("a")
    buffer.finish("a", completed(b"{}"), None)
    buffer.put("a", b"again")
    buffer.written(buffer.take())
    assert buffer.start_over({"a"}) == {"a"}


@pytest.mark.parametrize("answer", ["written", "written_but_entries", "put_back"])
def test_a_batch_of_the_journal_that_we_had_changes_nothing_in_the_new_one(answer: str) -> None:
    buffer = stored("taken")
    buffer.put("taken", b"executed")
    buffer.put("new", b"pulled")
    buffer.finish("done", completed(b"1"), None)
    late = buffer.take()
    buffer.start_over({"taken"})
    buffer.events.add(completed(b"2"))
    getattr(buffer, answer)(late)
    assert not buffer.may_be_stored("new")
    batch = buffer.take()
    assert batch.entries == {"new": b"pulled"}
    assert payloads(batch) == ([b"1", b"2"] if answer == "put_back" else [b"2"])
