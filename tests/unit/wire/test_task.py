"""Tasks and outcomes as bytes: any input that arrives, and exactly what goes out."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueworker.routing.wire.outcome import (
    Outcome,
    event,
    outcome_of,
    parse_own_result,
    parse_result,
    report_body,
    running_event,
)
from queueworker.routing.wire.reading import InvalidAnswer, TooDeep, describe, excerpt
from queueworker.routing.wire.task import InvalidTask, execute_body, parse_task, path_id


@pytest.mark.parametrize("body", [b"", b"\n", b"\xef\xbb\xbf \r\n", b"null", b" null ", b"{}", b"{ }\n", b"[]", b'""'])
def test_an_empty_queue_may_say_so_in_many_ways(body: bytes) -> None:
    assert parse_task(body) is None


@pytest.mark.parametrize(
    "body", [b"<html>", b"{", b"nul", b"\xff", b"[1]", b'"task"', b"1", b"0", b"true", b"false", b"NaN"]
)
def test_what_is_no_task_at_all_is_an_invalid_answer(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parse_task(body)


def test_a_large_body_is_read_strictly_only_and_its_id_at_the_start_is_enough() -> None:
    body = b'{"eval_id":"a","code":"x","n":NaN}'
    assert parse_task(body, len(body)) is not None
    with pytest.raises(InvalidTask) as caught:
        parse_task(body, len(body) - 1)
    assert caught.value.eval_id == "a"
    with pytest.raises(InvalidAnswer):
        parse_task(b" " + body.replace(b'"eval_id":"a",', b"")[:-1] + b',"eval_id":"a"}', 10)


@pytest.mark.parametrize("eval_id", [None, "", ".", "..", 1.5, 2**64, ["a"], {"a": 1}, True])
def test_a_task_that_cannot_be_reported_has_no_id_in_the_error(eval_id: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        parse_task(json.dumps({"eval_id": eval_id, "code": "x"}).encode())
    assert caught.value.eval_id is None


@pytest.mark.parametrize("number", [0, -1, 7, 2**64 - 1])
def test_a_number_as_id_is_its_text(number: int) -> None:
    task = parse_task(b'{"eval_id": %d, "code": "x"}' % number)
    assert task is not None
    assert task.eval_id == str(number)
    again = parse_task(task.raw)  # of the journal
    assert again is not None
    assert again.eval_id == str(number)
    with pytest.raises(InvalidTask) as caught:
        parse_task(b'{"eval_id": %d}' % number)
    assert caught.value.eval_id == str(number)


@pytest.mark.parametrize("eval_id", ["x" * 40_000, "half \ud83d"])
def test_an_id_that_no_url_can_hold_is_named_by_its_length(eval_id: str) -> None:
    with pytest.raises(InvalidTask, match=rf"no URL can hold \({len(eval_id):,} characters\)") as caught:
        parse_task(json.dumps({"eval_id": eval_id, "code": "x"}).encode())
    assert caught.value.eval_id is None


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"eval_id":"a","code":"x","more":%b}' % DEEP,
        b'{"eval_id":"a","code":"x',
        b'{"eval_id":"a","code":"x",}',
        b'{"eval_id":"a","code":"x"}{}',
        b'{"eval_id":"a","code":"x"}\0',
        b'\xef\xbb\xbf { "eval_id" : "a" , code}',
    ],
)
def test_a_task_that_nobody_can_read_is_reported_by_the_id_that_it_begins_with(body: bytes) -> None:
    with pytest.raises(InvalidTask, match="not JSON that can be read") as caught:
        parse_task(body)
    assert caught.value.eval_id == "a"
    assert "code" not in str(caught.value), "the text of an answer is not for the status"


@pytest.mark.parametrize("sign", [b"", b"-"])
def test_an_integer_that_python_does_not_read_is_an_infinity(sign: bytes) -> None:
    body = b'{"eval_id":"a","code":"x","timeout":%b%b}' % (sign, b"9" * 5000)
    task = parse_task(body)
    assert task is not None
    assert task.timeout == (None if sign else 86_400)


@pytest.mark.parametrize("fields", [{}, {"code": None}, {"code": 1}, {"code": ["x"]}])
def test_a_task_without_code_can_still_be_reported(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask) as caught:
        parse_task(orjson.dumps({"eval_id": "a"} | fields))
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
        (86_400, 86_400),
        (86_401, 86_400),
        (10**20, 86_400),
        (1e300, 86_400),
    ],
)
def test_a_timeout_that_makes_no_sense_is_none(timeout: Any, seconds: int | None) -> None:
    task = parse_task(json.dumps({"eval_id": "a", "code": "x", "timeout": timeout}).encode())
    assert task is not None
    assert task.timeout == seconds


def test_a_task_keeps_what_the_queue_said_to_the_byte() -> None:
    body = b'{ "eval_id":"a","code":"print(1)", "more": [1.0] }'
    task = parse_task(body)
    assert task is not None
    assert (task.raw, task.language, task.engine) == (body, "", "")
    assert orjson.loads(execute_body(task, 9)) == {"eval_id": "a", "code": "print(1)", "timeout": 9}


@pytest.mark.parametrize(
    ("result", "completed", "error"),
    [
        ({"status": "completed"}, True, ""),
        ({"status": "completed", "error": "warned", "exit_code": 1}, True, ""),
        ({"status": "failed", "error": "boom"}, False, "boom"),
        ({"status": "failed", "error": ""}, False, "Execution failed"),
        ({"status": "failed", "error": None}, False, "Execution failed"),
        ({"status": "timeout"}, False, "Execution failed"),
        ({"status": "killed", "error": {"code": 9}}, False, '{"code": 9}'),
        ({"status": "Completed"}, False, "Execution failed"),
        ({}, False, "Execution failed"),
    ],
)
def test_only_completed_completes(result: dict[str, Any], completed: bool, error: str) -> None:
    raw = orjson.dumps(result)
    outcome = outcome_of(parse_result(raw))
    assert (outcome.completed, outcome.error, outcome.result) == (completed, error, raw)


@pytest.mark.parametrize("body", [b"", b"oops", b"[]", b"null", b"1", b'{"status": "comple'])
def test_an_executors_answer_must_be_a_json_object(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parse_result(body)


RESULT = b'{"status":"completed",  "output": "\\u00e9", "n": 1.0}'


def test_a_report_carries_the_result_to_the_byte() -> None:
    assert report_body(Outcome(completed=True, result=RESULT)) == b'{"output":' + RESULT + b"}"
    assert report_body(Outcome(completed=True)) == b'{"output":null}'
    assert report_body(Outcome(completed=False, error='"no"', result=RESULT)) == b'{"error":"\\"no\\""}'


def test_an_event_has_the_results_fields_beside_the_result_for_both_kinds_of_subscribers() -> None:
    fields = RESULT.replace(b"  ", b"").replace(b": ", b":")[1:-1]
    assert event("a", Outcome(completed=True, result=RESULT)) == (
        "evaluation:completed",
        b'{"eval_id":"a",' + fields.replace(b", ", b",") + b',"result":' + RESULT + b"}",
    )
    assert event("a", Outcome(completed=True)) == ("evaluation:completed", b'{"eval_id":"a","result":null}')
    assert event("a", Outcome(completed=False, error="no")) == ("evaluation:failed", b'{"eval_id":"a","error":"no"}')
    result = b'{"status":"failed","error":"","exit_code":1,"output":"x"}'
    channel, payload = event("a", Outcome(completed=False, error="no", result=result))
    assert (channel, payload) == (
        "evaluation:failed",
        b'{"eval_id":"a","status":"failed","error":"no","exit_code":1,"output":"x","result":' + result + b"}",
    )


def test_a_running_event_names_executor_and_container() -> None:
    result = parse_result(orjson.dumps({"status": "running", "executor_id": "e", "container_id": "c", "output": "…"}))
    channel, payload = running_event("a", result, 9)
    assert channel == "evaluation:running"
    assert orjson.loads(payload) == {"eval_id": "a", "executor_id": "e", "container_id": "c", "timeout": 9}


@pytest.mark.parametrize(
    "more",
    [
        b'"eval_id":"a"',
        b'"eval_id" : "a", "f": 1.10, "i": 123456789012345678901234567890',
        b'"eval_id":"a","output":"x","error":null,"exit_code":0,"executor_id":"e"',
        b'"eval_id":"a","result":7',
        b'"eval_id":null',
        b'"eval_id":"a","eval_id":"a"',
        b'"output":"\\ud83d\\ude00 \xc3\xa9"',
    ],
)
def test_an_events_fields_are_the_results_byte_for_byte_however_it_is_made(more: bytes) -> None:
    raw = b' {"status":"completed",' + more + b"}\n"
    known = outcome_of(parse_result(raw))
    recovered = Outcome(completed=True, result=raw)
    for outcome in (known, recovered):
        payload = event("a", outcome).payload
        fields = raw_fields(payload)
        assert fields.pop("eval_id") == b'"a"'
        assert fields.pop("result").strip() == raw.strip()
        assert fields == {k: v for k, v in raw_fields(raw).items() if k not in {"eval_id", "result"}}
        names = [name for name, _ in json.loads(payload, object_pairs_hook=list)]
        assert len(names) == len(set(names)) or b'"eval_id":"a","eval_id"' in raw


def raw_fields(body: bytes) -> dict[str, bytes]:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {name: bytes(value) for name, value in fields.items()}


def test_the_event_of_a_result_that_the_queue_refused_says_that_the_task_failed() -> None:
    channel, payload = event("a", Outcome(completed=False, error="refused", result=b'{"status":"completed"}'))
    assert channel == "evaluation:failed"
    assert orjson.loads(payload) == {
        "eval_id": "a",
        "status": "failed",
        "error": "refused",
        "result": {"status": "completed"},
    }


@pytest.mark.parametrize("result", [b"null", b"7", b'"x"', b"[]"])
def test_the_event_of_something_else_than_an_object_has_it_as_it_is(result: bytes) -> None:
    assert event("a", Outcome(completed=True, result=result)).payload == b'{"eval_id":"a","result":' + result + b"}"


@pytest.mark.parametrize("eval_id", [b'"b"', b"7", b'"A"', b'["a"]', b'"a "'])
def test_the_result_of_another_task_is_no_result(eval_id: bytes) -> None:
    with pytest.raises(InvalidAnswer, match="the result of another task"):
        parse_own_result(b'{"status": "completed", "eval_id": ' + eval_id + b"}", "a")


@pytest.mark.parametrize("eval_id", [b"", b', "eval_id": null', b', "eval_id": "a"', b', "eval_id": "\\u0061"'])
def test_a_result_names_its_task_or_none(eval_id: bytes) -> None:
    assert parse_own_result(b'{"status": "killed"' + eval_id + b"}", "a").status == "killed"


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


# --- JSON that other libraries write


@pytest.mark.parametrize("more", [float("nan"), float("inf"), "\ud83d", "\x00", 10**30, {"\udc00": [float("-inf")]}])
def test_what_json_dumps_writes_is_a_task_and_a_result(more: Any) -> None:
    task = parse_task(json.dumps({"eval_id": "a", "code": "x", "timeout": 5, "more": more}).encode())
    assert task is not None
    assert (task.eval_id, task.code, task.timeout) == ("a", "x", 5)
    orjson.loads(task.raw)
    outcome = outcome_of(parse_result(json.dumps({"status": "completed", "output": more}).encode()))
    assert outcome.completed
    for sent in (report_body(outcome), event("a", outcome).payload):
        orjson.loads(sent)


@pytest.mark.parametrize(
    "body", [b'{"status": 1e999}', b'\xef\xbb\xbf{"status": "completed"}', b'{"a": "\xff", "status": 1}']
)
def test_what_a_strict_reader_refuses_is_read_leniently_and_written_for_all(body: bytes) -> None:
    outcome = outcome_of(parse_result(body))
    assert outcome.result is not None
    orjson.loads(outcome.result)


def test_code_with_half_a_surrogate_pair_reaches_the_executor_as_it_came() -> None:
    task = parse_task(json.dumps({"eval_id": "a", "code": "print('\ud83d')"}).encode())
    assert task is not None
    assert json.loads(execute_body(task, 9))["code"] == "print('\ud83d')"


def test_an_id_that_no_url_can_hold_cannot_be_reported() -> None:
    with pytest.raises(InvalidTask) as caught:
        parse_task(json.dumps({"eval_id": "\ud83d", "code": "x"}).encode())
    assert caught.value.eval_id is None


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "100000000000000000000", "1e20"]
)
def test_a_timeout_is_always_in_bounds(number: str) -> None:
    task = parse_task(b'{"eval_id": "a", "code": "x", "timeout": %b}' % number.encode())
    assert task is not None
    assert task.timeout is None or 1 <= task.timeout <= 86_400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"status":NaN,"a":' + b"[" * 990 + b"]" * 990 + b"}",
        b'{"status":' + b"[" * 100_000,
    ],
)
def test_json_that_exhausts_a_reader_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parse_result(body)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        *(
            (b"", "an empty body"),
            (b" <html>", "HTML, 7 bytes"),
            (b'{"a": 1}', "JSON, 8 bytes"),
            (b"no", "text, 2 bytes"),
        ),
        (b"\x1f\x8b\x08", "compressed by gzip, 3 bytes"),
    ],
)
def test_status_shows_the_kind_and_length_of_a_body_and_not_its_text(body: bytes, shown: str) -> None:
    assert describe(body) == shown


def test_an_error_with_half_a_surrogate_pair_is_text_that_can_be_written() -> None:
    outcome = outcome_of(parse_own_result(rb'{"eval_id":"a","status":"failed","error":"half \ud83d"}', "a"))
    assert outcome.error == "half \ufffd"


def test_a_result_that_is_nested_too_deeply_says_so() -> None:
    with pytest.raises(TooDeep, match="nested too deeply"):
        parse_own_result(b'{"eval_id":"a","status":"completed","output":%b}' % DEEP, "a")
