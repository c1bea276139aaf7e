"""A task as the queue hands it out, and as an executor is given it (docs/wire.md). Pure: bytes in, values out."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from queueworker.routing.wire.reading import (
    InvalidAnswer,
    describe,
    excerpt,
    id_at_start,
    read_leniently,
    read_object,
    read_strictly,
    write_for_all,
)
from queueworker.routing.wire.trace_context import TraceContext, trace_context

_PLAIN_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*\Z")


# The queue checks nothing of a task but the types: a timeout may be 10^20.
MAX_TIMEOUT_SECONDS = 86_400
# A number as id is written into paths and bodies as text, as the legacy worker wrote it into the path of its reports.
_NUMBERS = range(-(2**63), 2**64)
# The path of a report holds the id, and servers bound the head of a request (64 KiB at most, many of them at 8).
MAX_ID_CHARS = 32 * 1024


class InvalidTask(Exception):
    """The queue handed out a task that cannot be routed. `eval_id` is None when the task cannot be reported either."""

    def __init__(self, message: str, eval_id: str | None = None) -> None:
        super().__init__(message)
        self.eval_id = eval_id


class Task(msgspec.Struct, frozen=True, gc=False):
    """A task, as the queue handed it out."""

    eval_id: str
    code: str
    timeout: int | None
    """Seconds, at most `MAX_TIMEOUT_SECONDS`; None when the task brought none that makes sense."""
    language: str
    engine: str
    raw: bytes
    """The queue's whole answer: byte for byte, or written again where strict JSON libraries would refuse it."""
    trace: TraceContext | None = None
    """The trace that it belongs to, if it names a valid one."""


class _TaskFields(msgspec.Struct):
    eval_id: Any = None
    code: Any = None
    timeout: Any = None
    language: Any = ""
    engine: Any = ""
    traceparent: Any = None
    tracestate: Any = None


_decoder = msgspec.json.Decoder(_TaskFields)
# Of a body without content: white space, and the bytes of a byte order mark.
_BLANK = b" \t\r\n\xef\xbb\xbf"


def parse_task(body: bytes, max_lenient_bytes: float = math.inf) -> Task | None:
    """The answer of `GET /tasks/next`; None when the queue is empty (`null`, `{}`, or no body at all).

    A larger body is read strictly only: a lenient reading takes fifty times its bytes, and seconds.

    Raises `InvalidAnswer` when the body is not a task (HTML from a proxy, say), and `InvalidTask` when it is one that
    cannot be routed.
    """
    if not body or body == b"null":
        return None
    try:
        fields = read_strictly(body, _decoder)
    except (ValueError, RecursionError):
        if not body.strip(_BLANK):
            return None
        value, body = _lenient(body, max_lenient_bytes)
        if not value and value != 0:
            return None
        if not isinstance(value, dict):
            raise InvalidAnswer(f"no task object: {excerpt(body)}") from None
        fields = _TaskFields(**{name: value[name] for name in _TaskFields.__struct_fields__ if name in value})
    if fields.eval_id is None and fields.code is None:
        if read_object(body) == {}:
            return None
        raise InvalidAnswer(f"an object with neither eval_id nor code: {excerpt(body)}")
    return _task(fields, body)


def _lenient(body: bytes, most: float) -> tuple[Any, bytes]:
    """The value, and the body written again. A body that nobody can read is a task if it begins with an id."""
    try:
        if len(body) > most:
            raise InvalidAnswer(f"no strict JSON, in {len(body):,} bytes")  # noqa: TRY301
        value = read_leniently(body)
        return value, write_for_all(value)
    except InvalidAnswer as error:
        eval_id = id_at_start(body)
        if not eval_id or not _fits_a_url(eval_id):
            raise
        raise InvalidTask(f"the task is not JSON that can be read ({describe(body)})", eval_id) from error


def _task(fields: _TaskFields, body: bytes) -> Task:
    eval_id, code, timeout = fields.eval_id, fields.code, fields.timeout
    if type(eval_id) is int and eval_id in _NUMBERS:
        eval_id = str(eval_id)
    if not isinstance(eval_id, str) or not _fits_a_url(eval_id):
        kind = f"of type {type(eval_id).__name__}"
        if isinstance(eval_id, str):
            kind = f"text that no URL can hold ({len(eval_id):,} characters)"
        raise InvalidTask(f"a task whose eval_id is {kind} can be neither run nor reported")
    if not isinstance(code, str):
        raise InvalidTask("the task has no code, or its code is not a string", eval_id)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 1:
        timeout = None
    seconds = None if timeout is None else int(min(timeout, MAX_TIMEOUT_SECONDS))
    trace = None if fields.traceparent is None else trace_context(fields.traceparent, fields.tracestate)
    return Task(eval_id, code, seconds, str(fields.language), str(fields.engine), body, trace)


def trace_of(raw: bytes) -> TraceContext | None:
    """The trace that a task belongs to, of which nothing else has to be known."""
    fields = read_object(raw) or {}
    return trace_context(fields.get("traceparent"), fields.get("tracestate"))


def _fits_a_url(eval_id: str) -> bool:
    """Whether a report can name the id: "." and ".." are not path segments, and half a surrogate pair is not UTF-8."""
    if eval_id in {"", ".", ".."} or len(eval_id) > MAX_ID_CHARS:
        return False
    return eval_id.isascii() or not any("\ud800" <= c <= "\udfff" for c in eval_id)


def execute_body(task: Task, timeout: int) -> bytes:
    """The body of `POST /execute`; `timeout` in seconds. Code with half a surrogate pair goes out as it came in."""
    fields = {"eval_id": task.eval_id, "code": task.code, "timeout": timeout}
    try:
        return orjson.dumps(fields)
    except TypeError:
        return json.dumps(fields).encode()


def path_id(eval_id: str) -> str:
    """An eval_id as a segment of a URL's path."""
    return eval_id if _PLAIN_ID.match(eval_id) else quote(eval_id, safe="")
