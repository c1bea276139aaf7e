"""What an asynchronous executor's logs say of a task."""

from __future__ import annotations

import pytest

from queueworker.routing.executors.verdict import Failure, classify
from queueworker.routing.http.transport import Answer
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.published import RUNS, Lost, outcome_in_logs, parse_published
from queueworker.routing.wire.reading import InvalidAnswer

LOGS = b'{"eval_id":"a","output":"x\\nlast 1.10\\n","error":"","is_running":%b,"exit_code":%b}'
NOT_FOUND = b'{"eval_id":"a","output":"","error":"Container not found","is_running":false,"exit_code":null}'


@pytest.mark.parametrize("body", [LOGS % (b"true", b"null"), LOGS % (b"true", b"0"), b'{"is_running": true}'])
def test_a_task_that_runs_has_no_outcome(body: bytes) -> None:
    assert outcome_in_logs(body, "a") == RUNS


def test_an_exit_code_tells_how_the_task_ended_with_the_logs_as_its_result() -> None:
    ended = LOGS % (b"false", b"0")
    assert outcome_in_logs(ended, "a") == Outcome(True, "", ended[:-1] + b',"status":"completed"}')
    ended = LOGS % (b"false", b"3")
    result = ended[:-1] + b',"status":"failed"}'
    assert outcome_in_logs(ended + b" \n", "a") == Outcome(False, "exit code 3: last 1.10", result)


def test_a_failure_has_the_executors_error_if_there_is_one() -> None:
    outcome = outcome_in_logs(b'{"is_running":false,"exit_code":1,"error":"OOM"}', "a")
    assert isinstance(outcome, Outcome)
    assert outcome.error == "OOM"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (b'{"message":"b\xc3\xb6\\"om","code":null}', '{"message": "b\u00f6\\"om", "code": null}'),
        (b'["a",true]', '["a", true]'),
        (b"[" * 5_000 + b"]" * 5_000, "JSON that is nested too deeply"),
        (b"9" * 4_000, "9" * 4_000),
        (b"5.0", "5.0"),
    ],
)
def test_an_error_that_is_no_text_is_shown_as_the_json_that_it_was(error: bytes, text: str) -> None:
    failed = b'{"eval_id":"a","status":"failed","error":%b}' % error
    verdict = classify(Answer(200, failed), "executor-1", "a")
    assert isinstance(verdict, Outcome | Failure)
    assert text in verdict.error
    event = parse_published("evaluation:failed", failed)
    assert event is None or event.outcome.error == text


def test_a_task_that_the_executor_does_not_know_was_killed_or_lost() -> None:
    lost = outcome_in_logs(NOT_FOUND, "a")
    assert lost == Lost("the task was killed, or the executor lost it: Container not found")


@pytest.mark.parametrize("code", [b"null", b'"0"', b"true", b"1.5"])
def test_a_task_without_an_exit_code_whose_container_is_there_may_still_end(code: bytes) -> None:
    assert outcome_in_logs(LOGS % (b"false", code), "a") is None


def test_logs_that_only_lenient_libraries_read_count() -> None:
    outcome = outcome_in_logs(b'{"is_running":false,"exit_code":0,"output":"\xff","n":NaN}', "a")
    assert isinstance(outcome, Outcome)
    assert outcome.result == b'{"is_running":false,"exit_code":0,"output":"\\ufffd","n":null,"status":"completed"}'


@pytest.mark.parametrize("output", [b"null", b"5", b"9" * 5000, b'["x"]'])
def test_an_output_that_is_no_text_is_not_quoted(output: bytes) -> None:
    outcome = outcome_in_logs(b'{"is_running":false,"exit_code":1,"output":%b}' % output, "a")
    assert isinstance(outcome, Outcome)
    assert outcome.error == "exit code 1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'{"detail": "Not Found"}',
        b'{"is_running": "no"}',
        b'{"is_running": null, "exit_code": 0}',
        b'{"eval_id": "b", "is_running": false, "exit_code": 0}',
        b'{"is_running": NaN}',
        b"[" * 100_000,
    ],
)
def test_what_are_no_logs_of_the_task_says_nothing(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        outcome_in_logs(body, "a")
