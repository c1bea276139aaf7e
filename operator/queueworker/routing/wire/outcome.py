"""How a task ended: as the executor answers it, as the queue is told, and as it is published (docs/wire.md). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import orjson

from queueworker.routing.wire.reading import InvalidAnswer, excerpt, read_leniently, read_strictly, write_for_all

CHANNEL_COMPLETED = "evaluation:completed"
CHANNEL_FAILED = "evaluation:failed"
CHANNEL_RUNNING = "evaluation:running"


class Event(NamedTuple):
    """A message for the subscribers of a Redis channel."""

    channel: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `result` is the executor's answer, byte for byte; None when no executor answered."""

    completed: bool
    error: str = ""
    result: bytes | None = None
    published: bool = False
    """The executor has published this outcome itself, as asynchronous ones do: report it, publish nothing."""


class Result(msgspec.Struct):
    """The fields of an executor's answer that the router reads."""

    status: Any = None
    error: Any = None
    executor_id: Any = None
    container_id: Any = None
    raw: bytes = b""
    """The whole answer: byte for byte, or written again where strict JSON libraries would refuse it."""


class _ResultFields(msgspec.Struct):
    status: Any = None
    error: Any = None
    executor_id: Any = None
    container_id: Any = None


_decoder = msgspec.json.Decoder(_ResultFields)


def parse_result(body: bytes) -> Result:
    """The executor's result object. Raises `InvalidAnswer`."""
    try:
        fields, raw = read_strictly(body, _decoder), body
    except (ValueError, RecursionError):
        try:
            value = read_leniently(body)
        except InvalidAnswer as error:
            raise InvalidAnswer(f"answered {error}") from error
        if not isinstance(value, dict):
            raise InvalidAnswer(f"answered no result object: {excerpt(body)}") from None
        fields = _ResultFields(**{name: value.get(name) for name in _ResultFields.__struct_fields__})
        raw = write_for_all(value)
    return Result(fields.status, fields.error, fields.executor_id, fields.container_id, raw)


def outcome_of(result: Result) -> Outcome:
    """`completed` completes the task; every other status fails it with the result's own error, as ever."""
    if result.status == "completed":
        return Outcome(completed=True, result=result.raw)
    error = str(result.error) if result.error else "Execution failed"
    return Outcome(completed=False, error=error, result=result.raw)


def report_body(outcome: Outcome) -> bytes:
    """The body of the report. The result is spliced in as it is: it was JSON already."""
    if outcome.completed:
        return b'{"output":' + (outcome.result or b"null") + b"}"
    return _dumps({"error": outcome.error})


def event(eval_id: str, outcome: Outcome) -> Event:
    """The event that tells subscribers the outcome."""
    head = b'{"eval_id":' + _dumps(eval_id)
    if outcome.completed:
        return Event(CHANNEL_COMPLETED, head + b',"result":' + (outcome.result or b"null") + b"}")
    head += b',"error":' + _dumps(outcome.error)
    if outcome.result is not None:
        head += b',"result":' + outcome.result
    return Event(CHANNEL_FAILED, head + b"}")


def running_event(eval_id: str, result: Result, timeout: int) -> Event:
    """The event that an asynchronous executor has taken the task. `timeout` in seconds."""
    fields = {
        "eval_id": eval_id,
        "executor_id": result.executor_id,
        "container_id": result.container_id,
        "timeout": timeout,
    }
    return Event(CHANNEL_RUNNING, _dumps(fields))


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, or an integer above 64 bits
        return write_for_all(value)
