"""The outcome of a task as an asynchronous executor publishes it (docs/wire.md). Pure.

The platform's executors publish flat events: the event itself is the result. Others put a result object into it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from queueworker.routing.wire.outcome import (
    CHANNEL_COMPLETED,
    EXECUTION_FAILED,
    STATUSES,
    Outcome,
    outcome_of,
    parse_result,
)
from queueworker.routing.wire.reading import InvalidAnswer, excerpt, read_leniently, read_strictly, write_for_all


class Published(NamedTuple):
    """An outcome, and the task that it is of."""

    eval_id: str
    outcome: Outcome


class _Fields(msgspec.Struct):
    eval_id: Any = None
    status: Any = None
    error: Any = None
    exit_code: Any = None
    output: msgspec.Raw = msgspec.Raw(b"null")
    """Decoded only when its last line is needed: it may be large."""
    result: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Fields)


def parse_published(channel: str, payload: bytes) -> Published | None:
    """The outcome in a message of one of the outcome channels; None when it is not an event with an `eval_id`."""
    try:
        fields = read_strictly(payload, _decoder)
    except (ValueError, RecursionError):
        try:
            payload = write_for_all(read_leniently(payload))
            fields = _decoder.decode(payload)
        except (InvalidAnswer, ValueError, RecursionError):
            return None
    if not isinstance(fields.eval_id, str):
        return None
    return Published(fields.eval_id, _outcome(channel == CHANNEL_COMPLETED, fields, payload))


def failure_text(status: Any, error: Any, exit_code: Any, output: Any) -> str:
    """The error of a failed task: its own, else what is known: `exit code 1: <last line of the output>`."""
    if error:
        return str(error)
    words = [status] if status in ("timeout", "killed") else []
    if isinstance(exit_code, int):
        words.append(f"exit code {exit_code}")
    text = ", ".join(words) or EXECUTION_FAILED
    last = output.rstrip().rpartition("\n")[2].strip() if isinstance(output, str) else ""
    return f"{text}: {excerpt(last.encode('utf-8', 'replace'))}" if last else text


def _outcome(completed: bool, fields: _Fields, payload: bytes) -> Outcome:
    """`completed`: what the channel says; it decides where the status does not."""
    try:
        result = parse_result(bytes(fields.result))
    except InvalidAnswer:
        if completed and fields.status not in STATUSES[1:4]:
            return Outcome(completed=True, result=payload, published=True)
        error = failure_text(fields.status, fields.error, fields.exit_code, msgspec.json.decode(fields.output))
        return Outcome(completed=False, error=error, result=payload, published=True)
    told = outcome_of(result)
    if completed and (told.completed or result.status not in STATUSES):
        return Outcome(completed=True, result=told.result, published=True)
    return Outcome(
        completed=False, error=str(fields.error or told.error or EXECUTION_FAILED), result=told.result, published=True
    )
