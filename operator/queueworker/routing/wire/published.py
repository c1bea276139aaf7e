"""The outcome of a task as an asynchronous executor tells it (docs/wire.md): in an event, or in the logs. Pure.

The platform's executors publish flat events: the event itself is the result. Others put a result object into it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import msgspec

from queueworker.routing.wire.outcome import (
    CHANNEL_COMPLETED,
    EXECUTION_FAILED,
    STATUSES,
    Outcome,
    outcome_of,
    parse_result,
)
from queueworker.routing.wire.reading import InvalidAnswer, as_text, excerpt, read_object_as


class Published(NamedTuple):
    """An outcome, and the task that it is of."""

    eval_id: str
    outcome: Outcome


class _Said(msgspec.Struct):
    """What an event and an answer about the logs have in common."""

    eval_id: Any = None
    error: Any = None
    exit_code: Any = None
    output: msgspec.Raw = msgspec.Raw(b"null")
    """Decoded only when its last line is needed: it may be large."""


class _Fields(_Said):
    status: Any = None
    result: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Fields)


def parse_published(channel: str, payload: bytes) -> Published | None:
    """The outcome in a message of one of the outcome channels; None when it is not an event with an `eval_id`."""
    try:
        fields, payload = read_object_as(payload, _decoder)
    except InvalidAnswer:
        return None
    if not isinstance(fields.eval_id, str):
        return None
    return Published(fields.eval_id, _outcome(channel == CHANNEL_COMPLETED, fields, payload))


def failure_text(status: Any, error: Any, exit_code: Any, output: str) -> str:
    """The error of a failed task: its own, else what is known: `exit code 1: <last line of the output>`."""
    if error:
        return as_text(error)
    words = [status] if status in ("timeout", "killed") else []
    if isinstance(exit_code, int):
        words.append(f"exit code {exit_code}")
    text = ", ".join(words) or EXECUTION_FAILED
    last = output.rstrip().rpartition("\n")[2].strip()
    return f"{text}: {excerpt(last.encode('utf-8', 'replace'))}" if last else text


def _text(value: msgspec.Raw) -> str:
    """The text; empty if the value is another one, which may be an integer that is too long to be read."""
    return msgspec.json.decode(value, type=str) if memoryview(value)[:1].tobytes() == b'"' else ""


def _outcome(completed: bool, fields: _Fields, payload: bytes) -> Outcome:
    """`completed`: what the channel says; it decides where the status does not."""
    try:
        result = parse_result(bytes(fields.result))
    except InvalidAnswer:
        if completed and fields.status not in STATUSES[1:4]:
            return Outcome(completed=True, result=payload, published=True)
        error = failure_text(fields.status, fields.error, fields.exit_code, _text(fields.output))
        return Outcome(completed=False, error=error, result=payload, published=True)
    told = outcome_of(result)
    if completed and (told.completed or result.status not in STATUSES):
        return Outcome(completed=True, result=told.result, published=True)
    error = as_text(fields.error or told.error or EXECUTION_FAILED)
    return Outcome(completed=False, error=error, result=told.result, published=True)


# --- the logs


class Lost(NamedTuple):
    """The executor does not know the task any more: somebody has killed it there, or the executor has lost it."""

    error: str


RUNS: Final = "runs"


class _Logs(_Said):
    is_running: Any = None


_logs_decoder = msgspec.json.Decoder(_Logs)


def outcome_in_logs(body: bytes, eval_id: str) -> Outcome | Lost | Literal["runs"] | None:
    """How the task ended, or that it runs; None when the answer does not tell.

    Raises `InvalidAnswer` when the answer is not that of this call.
    """
    fields, body = read_object_as(body, _logs_decoder)
    if not isinstance(fields.is_running, bool) or fields.eval_id not in (None, eval_id):
        raise InvalidAnswer(f"no logs of the task: {excerpt(body)}")
    if fields.is_running:
        return RUNS
    if not isinstance(fields.exit_code, int) or isinstance(fields.exit_code, bool):
        return _lost(fields)
    completed = fields.exit_code == 0
    status = b"completed" if completed else b"failed"
    result = b'%b,"status":"%b"}' % (body.rstrip()[:-1], status)
    if completed:
        return Outcome(completed=True, result=result)
    output = _text(fields.output)
    return Outcome(False, failure_text("failed", fields.error, fields.exit_code, output), result)


def _lost(fields: _Logs) -> Lost | None:
    said = as_text(fields.error)
    if "not found" not in said.lower():
        return None
    return Lost(f"the task was killed, or the executor lost it: {excerpt(said.encode('utf-8', 'replace'))}")
