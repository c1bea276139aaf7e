"""Every answer to `/execute`, and every way of getting none, has exactly one verdict."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from queueworker.routing.executors.verdict import Failure, Kind, Running, classify
from queueworker.routing.http.transport import Answer, Broken, NotSent, TimedOut, TooLarge, TransportError
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.reading import describe

NAME = "executor-1"
MIB = 1024 * 1024


NOT_SERVED = {*range(300, 400), 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 414, 415, 416, 417}
NOT_SERVED |= {421, 425, 426, 428, 431, 451, 501}


def kind_of(status: int) -> Kind:
    match status:
        case 429 | 503:
            return Kind.REFUSED
        case 400 | 413 | 422:
            return Kind.REJECTED
        case _ if status in NOT_SERVED:
            return Kind.UNSERVED
    return Kind.FAULT


def test_each_status_but_200_is_a_failure_of_one_kind() -> None:
    for status in set(range(100, 600)) - {200}:
        verdict = classify(Answer(status, b"why"), NAME, "a")
        kind = kind_of(status)
        reason = f"answered {status} (text, 3 bytes)" if kind in {Kind.FAULT, Kind.UNSERVED} else ""
        assert verdict == Failure(kind, "Executor rejected task: why", reason), status
        assert verdict.ambiguous is (kind is Kind.FAULT), status
        assert not verdict.answer_lost, status


def test_a_status_says_that_the_task_did_not_run_only_where_its_meaning_excludes_that_it_ran() -> None:
    """The rows of the table that a reader may look for, in the words of the standard."""
    ambiguous = {
        *(201, 202, 204, 206),  # something was done
        *(408, 409, 424, 499),  # late, a conflict (with itself, perhaps), a dependency, a client that hung up
        *(418, 420, 444, 460),  # no standard says what
        *(500, 502, 504, 505, 507, 511, 520, 524, 599),
    }
    for status in ambiguous:
        verdict = classify(Answer(status, b""), NAME, "a")
        assert isinstance(verdict, Failure)
        assert verdict.ambiguous, status
        assert verdict.reason, "it is the executor's fault"


def test_an_empty_answer_is_named_by_its_status() -> None:
    assert classify(Answer(404, b""), NAME, "a") == Failure(
        Kind.UNSERVED, "Executor rejected task: status 404", "answered 404 (an empty body)"
    )


@pytest.mark.parametrize(
    ("error", "failure", "ambiguous", "lost"),
    [
        (
            NotSent("http://e: refused"),
            Failure(Kind.NOT_SENT, "executor executor-1: http://e: refused", "cannot be reached at http://e: refused"),
            False,
            False,
        ),
        (
            Broken("http://e: reset"),
            Failure(Kind.BROKEN, "executor executor-1: http://e: reset", "broke the connection at http://e: reset"),
            True,
            True,
        ),
        (
            TransportError("http://e: what"),
            Failure(Kind.BROKEN, "executor executor-1: http://e: what", "broke the connection at http://e: what"),
            True,
            True,
        ),
        (
            TimedOut("http://e: 40 s"),
            Failure(Kind.TIMED_OUT, "executor executor-1: http://e: 40 s", "no answer in time at http://e: 40 s"),
            True,
            True,
        ),
    ],
)
def test_each_transport_error_is_a_failure_of_one_kind(
    error: TransportError, failure: Failure, ambiguous: bool, lost: bool
) -> None:
    assert classify(error, NAME, "a") == failure
    assert (failure.ambiguous, failure.answer_lost) == (ambiguous, lost)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (12_345_678, "12,345,678 bytes, more than routing.maxBodyMebibytes allows (8 MiB)"),
        (None, "more bytes than routing.maxBodyMebibytes allows (8 MiB)"),
    ],
)
def test_a_result_above_the_limit_names_its_size_the_field_and_the_limit(size: int | None, text: str) -> None:
    verdict = classify(TooLarge("http://e: too large", 200, size, 8 * MIB), NAME, "a")
    assert verdict == Failure(Kind.TOO_LARGE, f"executor executor-1 answered with {text}")
    assert verdict.ambiguous, "the task has run"
    assert not verdict.answer_lost


@pytest.mark.parametrize(
    ("fields", "completed", "error"),
    [
        ({"status": "completed", "output": "1\n"}, True, ""),
        ({"status": "completed", "error": "a warning"}, True, ""),
        ({"status": "failed", "error": "Traceback"}, False, "Traceback"),
        ({"status": "timeout", "error": None}, False, "Execution failed"),
        ({"status": "killed", "error": ""}, False, "Execution failed"),
        ({"status": "failed", "error": {"code": 1}}, False, '{"code": 1}'),
    ],
)
def test_a_result_object_says_how_the_task_ended(fields: dict[str, Any], completed: bool, error: str) -> None:
    body = orjson.dumps(fields)
    assert classify(Answer(200, body), NAME, "a") == Outcome(completed, error, body)


def test_a_result_that_says_running_is_not_the_end_of_the_task() -> None:
    verdict = classify(Answer(200, b'{"status": "running", "container_id": "c7"}'), NAME, "a")
    assert isinstance(verdict, Running)
    assert verdict.result.container_id == "c7"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>", "answered no JSON: <html>"),
        (b"", "answered no JSON: "),
        (b'{"status": "comp', 'answered no JSON: {"status": "comp'),
        (b"null", "answered no result object: null"),
        (b"[]", "answered no result object: []"),
        (b'"completed"', 'answered no result object: "completed"'),
        (b"17", "answered no result object: 17"),
        (b"{}", "answered without a known status: {}"),
        (b'{"message": "back soon"}', 'answered without a known status: {"message": "back soon"}'),
        (b'{"status": "RUNNING"}', 'answered without a known status: {"status": "RUNNING"}'),
        (b'{"status": null}', 'answered without a known status: {"status": null}'),
        (b'{"status": ["completed"]}', 'answered without a known status: {"status": ["completed"]}'),
        (b'{"status": 200}', 'answered without a known status: {"status": 200}'),
        (b'{"status": "completed", "eval_id": "b"}', "answered with the result of another task, 'b'"),
        (b'{"status": "running", "eval_id": "b"}', "answered with the result of another task, 'b'"),
        (b"[" * 100_000, "answered JSON that is nested too deeply: " + "[" * 300 + "…"),
    ],
)
def test_200_without_a_result_of_the_task_is_the_executors_fault_and_the_task_may_have_run(
    body: bytes, text: str
) -> None:
    verdict = classify(Answer(200, body), NAME, "a")
    reason = f"answered 200 without a result of the task ({describe(body)})"
    assert verdict == Failure(Kind.FAULT, f"executor executor-1 {text}", reason)
    assert verdict.ambiguous


def test_only_the_beginning_of_a_long_error_body_is_shown() -> None:
    verdict = classify(Answer(500, b"x" * 60_000), NAME, "a")
    assert isinstance(verdict, Failure)
    assert len(verdict.error) < 400
    assert len(verdict.reason) < 400


@pytest.mark.parametrize("status", [200, 502])
def test_a_compressed_answer_is_named_as_one_and_not_quoted(status: int) -> None:
    verdict = classify(Answer(status, gzip.compress(b"{}")), NAME, "a")
    assert isinstance(verdict, Failure)
    assert verdict.error.endswith(": compressed by gzip, 22 bytes")


@pytest.mark.parametrize("status", range(200, 600))
def test_the_fault_that_status_and_events_show_holds_no_text_of_the_answer(status: int) -> None:
    verdict = classify(Answer(status, b"<title>intranet</title>"), NAME, "a")
    assert isinstance(verdict, Failure)
    assert "intranet" not in verdict.reason
    assert "intranet" in verdict.error


def test_a_result_that_is_nested_too_deeply_is_not_the_executors_fault() -> None:
    """As a result that is too large: the task made it, and five of them must not eject a sound executor."""
    body = b'{"eval_id":"a","status":"completed","output":%b%b}' % (b"[" * 100_000, b"]" * 100_000)
    verdict = classify(Answer(200, body), NAME, "a")
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.reason, verdict.ambiguous) == (Kind.TOO_LARGE, "", True)
    assert verdict.error.startswith("executor executor-1 answered JSON that is nested too deeply")
