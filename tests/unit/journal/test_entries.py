"""How the journal spells tasks and outcomes, and what earlier versions wrote and can read."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import Entry, State, UnreadableEntry
from queueworker.routing.limits import Limits
from queueworker.routing.wire.outcome import Outcome

QUEUE = "http://queue:8081"
TASK = b'{ "eval_id":"a","code":"1", "n": [1.10, 123456789012345678901234567890] }'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.sampled_from([State.PULLED, State.EXECUTING]),
    *(texts, json_values.map(orjson.dumps), st.integers(1, 100), texts, st.booleans()),
    st.none() | st.floats(0, 2e9),
)
def test_a_task_comes_back_from_its_entry_to_the_byte(
    state: State, url: str, task: bytes, attempt: int, executor: str, ambiguous: bool, deadline: float | None
) -> None:
    raw = entries.encode_task(state, url, task, attempt, executor, ambiguous=ambiguous, deadline=deadline)
    may_have_run = ambiguous or state is State.EXECUTING
    assert entries.decode(raw) == Entry(state, url, attempt, executor, task, None, may_have_run, deadline)


@given(texts, st.booleans(), texts, st.booleans(), st.none() | st.dictionaries(st.text("ab"), json_values))
def test_an_outcome_comes_back_from_its_entry_to_the_byte(
    url: str, completed: bool, error: str, published: bool, result: Any
) -> None:
    raw = None if result is None else orjson.dumps(result)
    outcome = Outcome(completed, error, raw, published)
    assert entries.decode(entries.encode_outcome(url, outcome)) == Entry(State.EXECUTED, url, outcome=outcome)


def test_numbers_and_spaces_of_a_body_stay_as_they_came() -> None:
    assert entries.decode(entries.encode_task(State.PULLED, QUEUE, TASK)).task == TASK
    executed = entries.decode(entries.encode_outcome(QUEUE, Outcome(completed=True, result=TASK)))
    assert executed.outcome is not None
    assert executed.outcome.result == TASK


def test_a_completed_tasks_entry_is_no_larger_for_its_task_and_a_failed_ones_holds_it() -> None:
    details = (TASK, 3, "executor-1")
    done = entries.encode_outcome(QUEUE, Outcome(completed=True), *details)
    assert TASK not in done
    failed = entries.decode(
        entries.encode_outcome(QUEUE, Outcome(completed=False, error="e"), *details, ambiguous=True)
    )
    assert (failed.state, failed.task, failed.attempt, failed.executor) == (State.EXECUTED, *details)
    assert failed.ambiguous


def test_a_failed_task_too_large_for_its_record_is_left_out_of_its_entry() -> None:
    large = b'"%b"' % (b"x" * Limits().max_failed_task_body_bytes)
    assert entries.decode(entries.encode_outcome(QUEUE, Outcome(completed=False), large)).task == b"null"
    assert entries.decode(entries.encode_outcome(QUEUE, Outcome(completed=False), TASK)).task == TASK


def test_an_error_with_half_a_surrogate_pair_is_written_all_the_same() -> None:
    entry = entries.decode(entries.encode_outcome(QUEUE, Outcome(completed=False, error="half \ud83d"), TASK))
    assert entry.outcome is not None
    assert entry.outcome.error == "half \ufffd"
    assert entry.task == TASK


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{not json",
        b'"pulled"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"state":"dreaming","queue":"q"}',
        b'{"state":"pulled","attempt":1,"executor":"","task":{}}',
        b'{"state":"pulled","queue":1,"attempt":1,"executor":"","task":{}}',
        b'{"state":"pulled","queue":"q","attempt":"x","executor":"","task":{}}',
        b'{"state":"pulled","queue":"q","attempt":null,"executor":"","task":{}}',
        b'{"state":"pulled","queue":"q","attempt":%d,"executor":"","task":{}}' % 10**30,
        b'{"state":"executing","queue":"q","attempt":1,"executor":"","task":{},"deaths":-1}',
        b'{"state":"pulled","queue":"q","attempt":1,"executor":""}',
        b'{"state":"executed","queue":"q","completed":true}',
        b'{"state":["pulled"],"queue":"q"}',
    ],
)
def test_a_damaged_entry_is_named_as_such(raw: bytes) -> None:
    with pytest.raises(UnreadableEntry):
        entries.decode(raw)


@given(st.binary(max_size=200) | json_values.map(orjson.dumps))
def test_no_bytes_break_the_decoder(raw: bytes) -> None:
    with contextlib.suppress(UnreadableEntry):
        assert entries.decode(raw).state in State


def test_fields_that_an_entry_does_not_know_are_ignored() -> None:
    raw = orjson.loads(entries.encode_task(State.PULLED, "q", b"{}")) | {"since": 1}
    assert entries.decode(orjson.dumps(raw)).state is State.PULLED


# --- earlier versions, byte for byte

# What the version before wrote, and what it read there.
BEFORE: list[tuple[bytes, Entry]] = [
    (
        b'{"state":"pulled","queue":"http://queue:8081","attempt":1,"executor":"","task":{"eval_id":"a","code":"1"}}',
        Entry(State.PULLED, QUEUE, 1, "", b'{"eval_id":"a","code":"1"}'),
    ),
    (
        (
            b'{"state":"pulled","queue":"http://queue:8081","attempt":2,"executor":"","task":{"eval_id":"a","code":"1"},'
            b'"doubtful":true}'
        ),
        Entry(State.PULLED, QUEUE, 2, "", b'{"eval_id":"a","code":"1"}', ambiguous=True),
    ),
    (
        (
            b'{"state":"executing","queue":"http://queue:8081","attempt":1,"executor":"executor-1",'
            b'"task":{"eval_id":"a","code":"1"},"until":1764115200.5}'
        ),
        Entry(
            *(State.EXECUTING, QUEUE, 1, "executor-1", b'{"eval_id":"a","code":"1"}'),
            ambiguous=True,
            deadline=1764115200.5,
        ),
    ),
    (
        (
            b'{"state":"executed","queue":"http://queue:8081","completed":true,"error":"","published":false,'
            b'"result":{"status":"completed"}}'
        ),
        Entry(State.EXECUTED, QUEUE, outcome=Outcome(completed=True, result=b'{"status":"completed"}')),
    ),
    (
        (
            b'{"state":"executed","queue":"http://queue:8081","completed":false,"error":"boom","published":true,'
            b'"result":null,"doubtful":true,"attempt":3,"executor":"executor-2","task":{"eval_id":"a","code":"1"}}'
        ),
        Entry(
            *(State.EXECUTED, QUEUE, 3, "executor-2", b'{"eval_id":"a","code":"1"}'),
            Outcome(completed=False, error="boom", published=True),
            ambiguous=True,
        ),
    ),
]


@pytest.mark.parametrize(("raw", "entry"), BEFORE, ids=range(len(BEFORE)))
def test_what_the_version_before_wrote_is_read_as_it_was_meant(raw: bytes, entry: Entry) -> None:
    assert entries.decode(raw) == entry


@pytest.mark.parametrize(("raw", "entry"), BEFORE, ids=range(len(BEFORE)))
def test_what_is_written_now_is_what_the_version_before_wrote(raw: bytes, entry: Entry) -> None:
    """So it can be read after a rollback."""
    if entry.outcome is None:
        details = (entry.state, entry.queue_url, entry.task, entry.attempt, entry.executor)
        ambiguous = entry.ambiguous and entry.state is State.PULLED
        assert entries.encode_task(*details, ambiguous=ambiguous, deadline=entry.deadline) == raw
    else:
        known = (entry.task, entry.attempt, entry.executor)
        assert entries.encode_outcome(entry.queue_url, entry.outcome, *known, ambiguous=entry.ambiguous) == raw


def test_an_outcome_of_the_first_version_has_no_task_for_its_record() -> None:
    raw = b'{"state":"executed","queue":"q","completed":false,"error":"e","published":false,"result":null}'
    assert entries.decode(raw) == Entry(State.EXECUTED, "q", outcome=Outcome(completed=False, error="e"))


def test_of_an_entry_in_parts_without_them_a_task_is_not_known_and_a_result_is_missing() -> None:
    raw = b'{"state":"executing","queue":"q","attempt":1,"executor":"e","task":null,"parts":2}'
    assert entries.decode(raw).task == b"null"
    raw = b'{"state":"executed","queue":"q","completed":true,"error":"","published":false,"result":null,"parts":2}'
    with pytest.raises(UnreadableEntry, match="a part of its result is missing"):
        entries.decode(raw)


@pytest.mark.parametrize("completed", [True, False])
def test_the_id_of_an_outcomes_event_is_kept_and_without_one_nothing_is_written(completed: bool) -> None:
    outcome = Outcome(completed=completed, error="" if completed else "e")
    assert entries.decode(entries.encode_outcome(QUEUE, outcome, event_id="x")).event_id == "x"
    assert b"event" not in entries.encode_outcome(QUEUE, outcome)
