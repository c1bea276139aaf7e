"""What an asynchronous executor's logs say of a task."""

from __future__ import annotations

import pytest

from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.published import RUNS, Lost, outcome_in_logs
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
