"""Tasks, outcomes and journal entries as bytes: whatever arrives, and exactly what goes out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import Entry, State, UnreadableEntry
from queueworker.routing.wire.task import (
    InvalidAnswer,
    InvalidTask,
    Outcome,
    Task,
    event,
    excerpt,
    execute_body,
    outcome_of,
    parse_result,
    parse_task,
    path_id,
    report_body,
    running_event,
)

if TYPE_CHECKING:
    pass


def parsed(body: bytes) -> Task | None:
    return parse_task(body, None, 7.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'""', b" null "])
def test_an_empty_queue_may_say_so_in_many_ways(body: bytes) -> None:
    assert parsed(body) is None


@pytest.mark.parametrize(
    "body", [b"<html>", b"{", b"nul", b"\xff", b"[1]", b'"task"', b"1", b"0", b"true", b"false", b"NaN"]
)
def test_what_is_no_task_at_all_is_an_invalid_answer(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parsed(body)


@pytest.mark.parametrize("eval_id", [None, "", ".", "..", 1, ["a"], {"a": 1}, True])
def test_a_task_that_cannot_be_reported_has_no_id_in_the_error(eval_id: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        parsed(orjson.dumps({"eval_id": eval_id, "code": "x"}))
    assert caught.value.eval_id is None


@pytest.mark.parametrize("fields", [{}, {"code": None}, {"code": 1}, {"code": ["x"]}])
def test_a_task_without_code_can_still_be_reported(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask) as caught:
        parsed(orjson.dumps({"eval_id": "a"} | fields))
    assert caught.value.eval_id == "a"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (30, 30),
        (1, 1),
        (1.9, 1),
        (0, None),
        (0.5, None),
        (-1, None),
        (None, None),
        ("30", None),
        (True, None),
        ([], None),
    ],
)
def test_a_timeout_that_makes_no_sense_is_none(timeout: Any, seconds: int | None) -> None:
    task = parsed(orjson.dumps({"eval_id": "a", "code": "x", "timeout": timeout}))
    assert task is not None
    assert task.timeout == seconds


def test_a_task_keeps_what_the_queue_said_to_the_byte() -> None:
    body = b'{ "eval_id":"a","code":"print(1)", "more": [1.0] }'
    task = parsed(body)
    assert task is not None
    assert (task.raw, task.language, task.engine, task.pulled_at) == (body, "", "", 7.0)
    body_to_execute = execute_body(task, 9)
    assert isinstance(body_to_execute, bytes)
    assert orjson.loads(body_to_execute) == {"eval_id": "a", "code": "print(1)", "timeout": 9}


@pytest.mark.parametrize(
    ("result", "completed", "error"),
    [
        ({"status": "completed"}, True, ""),
        ({"status": "completed", "error": "warned", "exit_code": 1}, True, ""),
        ({"status": "failed", "error": "boom"}, False, "boom"),
        ({"status": "failed", "error": ""}, False, "Execution failed"),
        ({"status": "failed", "error": None}, False, "Execution failed"),
        ({"status": "timeout"}, False, "Execution failed"),
        ({"status": "killed", "error": {"code": 9}}, False, "{'code': 9}"),
        ({"status": "Completed"}, False, "Execution failed"),
        ({}, False, "Execution failed"),
    ],
)
def test_only_completed_completes(result: dict[str, Any], completed: bool, error: str) -> None:
    outcome = outcome_of(result, b"raw")
    assert (outcome.completed, outcome.error, outcome.result) == (completed, error, b"raw")


@pytest.mark.parametrize("body", [b"", b"oops", b"[]", b"null", b"1", b'{"a": NaN}', b'{"status": "comple'])
def test_an_executors_answer_must_be_a_json_object(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parse_result(body)


RESULT = b'{"status":"completed",  "output": "\\u00e9", "n": 1.0}'


def test_a_report_carries_the_result_to_the_byte() -> None:
    assert report_body(Outcome(completed=True, result=RESULT)) == b'{"output":' + RESULT + b"}"
    assert report_body(Outcome(completed=True)) == b'{"output":null}'
    assert report_body(Outcome(completed=False, error='"no"', result=RESULT)) == b'{"error":"\\"no\\""}'


def test_an_event_has_the_id_then_the_error_then_the_result() -> None:
    assert event("a", Outcome(completed=True, result=RESULT)) == (
        "evaluation:completed",
        b'{"eval_id":"a","result":' + RESULT + b"}",
    )
    assert event("a", Outcome(completed=True)) == ("evaluation:completed", b'{"eval_id":"a","result":null}')
    assert event("a", Outcome(completed=False, error="no")) == ("evaluation:failed", b'{"eval_id":"a","error":"no"}')
    assert event("a", Outcome(completed=False, error="no", result=RESULT)) == (
        "evaluation:failed",
        b'{"eval_id":"a","error":"no","result":' + RESULT + b"}",
    )
    channel, payload = running_event("a", {"executor_id": "e", "container_id": "c", "output": "…"}, 9)
    assert channel == "evaluation:running"
    assert orjson.loads(payload) == {"eval_id": "a", "executor_id": "e", "container_id": "c", "timeout": 9}


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text not in {".", ".."})


@given(ids)
def test_an_id_is_one_segment_of_a_path_and_comes_back_whole(eval_id: str) -> None:
    url = urlsplit(f"http://queue:8081/tasks/{path_id(eval_id)}/complete")
    assert (url.query, url.fragment) == ("", "")
    _, tasks, segment, verb = url.path.split("/")
    assert (tasks, unquote(segment), verb) == ("tasks", eval_id, "complete")
    assert url.path.isascii()


@given(st.binary(max_size=4000))
def test_an_excerpt_is_short_whatever_the_body(body: bytes) -> None:
    assert len(excerpt(body)) <= 301


# --- journal entries

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.sampled_from([State.PULLED, State.EXECUTING]), texts, json_values, st.integers(1, 100), texts)
def test_a_task_comes_back_from_its_entry(state: State, url: str, task: Any, attempt: int, executor: str) -> None:
    entry = entries.decode(entries.encode_task(state, url, orjson.dumps(task), attempt, executor))
    assert (entry.state, entry.queue_url, entry.attempt, entry.executor) == (state, url, attempt, executor)
    assert orjson.loads(entry.task) == task
    assert entry.outcome is None


@given(texts, st.booleans(), texts, st.booleans(), st.none() | st.dictionaries(st.text("ab"), json_values))
def test_an_outcome_comes_back_from_its_entry(
    url: str, completed: bool, error: str, published: bool, result: Any
) -> None:
    raw = None if result is None else orjson.dumps(result)
    outcome = Outcome(completed, error, raw, published)
    assert entries.decode(entries.encode_outcome(url, outcome)) == Entry(State.EXECUTED, url, outcome=outcome)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{not json",
        b'"pulled"',
        b"\xff\xfe",
        b'{"state":"dreaming","queue":"q"}',
        b'{"state":"pulled","attempt":1,"executor":"","task":{}}',
        b'{"state":"pulled","queue":1,"attempt":1,"executor":"","task":{}}',
        b'{"state":"pulled","queue":"q","attempt":"x","executor":"","task":{}}',
        b'{"state":"pulled","queue":"q","attempt":null,"executor":"","task":{}}',
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
