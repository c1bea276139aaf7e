"""How a task ended: as the executor answers it, as the queue is told, and as it is published (docs/wire.md). Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import orjson

from queueworker.routing.wire.reading import (
    InvalidAnswer,
    as_text,
    cleaned,
    excerpt,
    read_leniently,
    read_strictly,
    write_for_all,
)

CHANNEL_COMPLETED = "evaluation:completed"
CHANNEL_FAILED = "evaluation:failed"
CHANNEL_RUNNING = "evaluation:running"
EXECUTION_FAILED = "Execution failed"  # the legacy worker's words for a failure without an error
MAX_SHOWN_CHARS = 100


class Event(NamedTuple):
    """A message for the subscribers of a Redis channel."""

    channel: str
    payload: bytes


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a task ended. `result` is the executor's answer, byte for byte; None when no executor answered."""

    completed: bool
    error: str = ""
    result: bytes | None = None
    published: bool = False
    """The executor has published this outcome itself, as asynchronous ones do: report it, publish nothing."""
    extensible: bool = False
    """The result is known to be an object with `eval_id` and without `result`: its event is made without reading it."""


class Result(msgspec.Struct):
    """The fields of an executor's answer that the router reads."""

    eval_id: Any = None
    status: Any = None
    error: Any = None
    executor_id: Any = None
    container_id: Any = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    # The name is none that an executor uses; whatever is read for it is overwritten.
    raw: bytes = msgspec.field(default=b"", name="(raw)")
    """The whole answer: byte for byte, or written again where strict JSON libraries would refuse it."""


_decoder = msgspec.json.Decoder(Result)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
# What a result may say of a task; `running`: an asynchronous executor has it, and will publish the outcome.
STATUSES = ("completed", "failed", "timeout", "killed", "running")


def parse_result(body: bytes) -> Result:
    """The executor's result object. Raises `InvalidAnswer`, or `TooDeep`."""
    try:
        result = read_strictly(body, _decoder)
        result.raw = body
    except (ValueError, RecursionError):
        try:
            value = cleaned(read_leniently(body))
        except InvalidAnswer as error:
            raise type(error)(f"answered {error}") from error
        if not isinstance(value, dict):
            raise InvalidAnswer(f"answered no result object: {excerpt(body)}") from None
        result = Result(raw=write_for_all(value))
        for name in ("eval_id", "status", "error", "executor_id", "container_id"):
            setattr(result, name, value.get(name))
        if "result" in value:
            result.result = msgspec.Raw()
    return result


def parse_own_result(body: bytes, eval_id: str) -> Result:
    """The result of that task. Raises `InvalidAnswer` when it is another task's, or has no known status."""
    result = parse_result(body)
    if result.eval_id is not None and result.eval_id != eval_id:
        raise InvalidAnswer(f"answered with the result of another task, {str(result.eval_id)[:MAX_SHOWN_CHARS]!r}")
    if result.status not in STATUSES:
        raise InvalidAnswer(f"answered without a known status: {excerpt(body)}")
    return result


def outcome_of(result: Result) -> Outcome:
    """`completed` completes the task; every other status fails it with the result's own error, as ever."""
    if result.status == "completed":
        extensible = result.result is msgspec.UNSET and result.eval_id is not None
        return Outcome(completed=True, result=result.raw, extensible=extensible)
    error = as_text(result.error) if result.error else EXECUTION_FAILED
    return Outcome(completed=False, error=error, result=result.raw)


def report_body(outcome: Outcome) -> bytes:
    """The body of the report. The result is spliced in as it is: it was JSON already."""
    if outcome.completed:
        return b'{"output":' + (outcome.result or b"null") + b"}"
    return _dumps({"error": outcome.error})


def event(eval_id: str, outcome: Outcome) -> Event:
    """The event that tells subscribers the outcome.

    It has the fields of the result twice, because some subscribers read them from `result`, and some from the event.
    """
    result = outcome.result
    if outcome.extensible and result is not None and outcome.completed:
        return Event(CHANNEL_COMPLETED, b'%b,"result":%b}' % (result.rstrip()[:-1], result))
    return Event(CHANNEL_COMPLETED if outcome.completed else CHANNEL_FAILED, _event_object(eval_id, outcome))


def _event_object(eval_id: str, outcome: Outcome) -> bytes:
    fields: dict[str, Any] = {"eval_id": ""} | _fields(outcome.result) | {"eval_id": eval_id}
    if not outcome.completed:
        fields["error"] = msgspec.Raw(_dumps(outcome.error))
        if bytes(fields.get("status", b"")) == b'"completed"':  # a result that the queue did not take
            fields["status"] = "failed"
    if outcome.completed or outcome.result is not None:
        fields["result"] = msgspec.Raw(outcome.result or b"null")
    return msgspec.json.encode(fields)


def _fields(result: bytes | None) -> dict[str, msgspec.Raw]:
    """The result's fields; none when it is not an object."""
    try:
        return {} if result is None else _fields_decoder.decode(result)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


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
