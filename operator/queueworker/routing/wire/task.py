"""A task and its outcome, and how the wire spells them (docs/wire.md). Pure: bytes in, values out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import orjson

from queueworker.routing.http import large
from queueworker.routing.http.large import LARGE_BYTES, Pieces

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.queue.client import QueueClient

_PLAIN_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*\Z")
_EXCERPT_CHARS = 300

CHANNEL_COMPLETED = "evaluation:completed"
CHANNEL_FAILED = "evaluation:failed"
CHANNEL_RUNNING = "evaluation:running"


class InvalidTask(Exception):
    """What the queue handed out cannot be routed. `eval_id` is None when not even a report is possible."""

    def __init__(self, message: str, eval_id: str | None = None) -> None:
        super().__init__(message)
        self.eval_id = eval_id


class InvalidAnswer(Exception):
    """An executor's or a queue's answer is not what docs/wire.md says. The message shows its beginning."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `result` is the executor's answer, byte for byte; None when no executor answered."""

    completed: bool
    error: str = ""
    result: bytes | bytearray | None = None
    published: bool = False
    """The executor has published this outcome itself (the later kind does): report it, publish nothing."""


@dataclass(slots=True, eq=False)
class Task:
    """A task that the queue handed to us, from its pull to its report. `queue` is who wants to hear of it."""

    eval_id: str
    code: str | memoryview
    """As JSON spells it when the task is large."""
    timeout: int | None
    """Seconds, as the task brought it; None when it brought none that makes sense."""
    language: str
    engine: str
    raw: bytes | bytearray
    queue: QueueClient
    pulled_at: float
    """On the router's monotonic clock, seconds."""
    attempt: int = 1
    executor: str = ""
    """The one that was asked last; empty while none was."""
    doubtful: bool = False
    """An executor was asked, and how that ended is not known: it may have run the task to its end."""
    until: float | None = None
    """Unix time up to which an executor of the later kind is waited for; it has the task while this is set."""
    recovered: bool = False
    outcome: Outcome | None = None
    """Set when the journal of a dead router already knew how it ended."""
    journal: Journal | None = None
    """Where its entry is. It stays there to the end, also when the object moves to another Redis."""
    also_in: tuple[Journal, ...] = ()
    """Journals of ours that took an entry of that id over while the task was in flight: it goes with the task."""
    lane: asyncio.Task[None] | None = None
    handed_again: bool = False
    """The queue has handed the id out once more, since its report was sent."""
    executor_seconds: float = 0.0
    """Time that executors and retries' backoffs used: what is not the router's overhead."""


class _TaskFields(msgspec.Struct):
    eval_id: Any = None
    code: Any = None
    timeout: Any = None
    language: Any = ""
    engine: Any = ""


class _ResultFields(msgspec.Struct):
    status: Any = None
    error: Any = None
    executor_id: Any = None
    container_id: Any = None


_task_fields = msgspec.json.Decoder(_TaskFields)
_result_fields = msgspec.json.Decoder(_ResultFields)


def excerpt(body: bytes | bytearray) -> str:
    """The beginning of a body, fit for an error message."""
    text = body[: 4 * _EXCERPT_CHARS].decode("utf-8", "replace")
    return text if len(text) <= _EXCERPT_CHARS else text[:_EXCERPT_CHARS] + "…"


def parse_task(body: bytes | bytearray, queue: QueueClient, now: float) -> Task | None:
    """The answer of `GET /tasks/next`; None when the queue is empty (`null`, `{}` or no body at all).

    Raises `InvalidAnswer` when it is no task at all (HTML from a proxy, say) and `InvalidTask` when
    it is one that cannot be routed.
    """
    if len(body) >= LARGE_BYTES:
        return large.at_once(parse_large_task(body, queue, now))
    if not body or body == b"null":
        return None
    try:
        return _task(orjson.loads(body), body, queue, now)
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"no JSON: {excerpt(body)}") from error


def parse_large_task(body: bytes | bytearray, queue: QueueClient, now: float) -> Generator[None, None, Task | None]:
    """As `parse_task`, in steps."""
    try:
        data = yield from large.read(body, _task_fields, spelled="code")
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"no JSON: {excerpt(body)}") from error
    return _task(data, body, queue, now)


def _task(data: Any, body: bytes | bytearray, queue: QueueClient, now: float) -> Task | None:
    if not data and data != 0:
        return None
    if not isinstance(data, dict):
        raise InvalidAnswer(f"no task object: {excerpt(body)}")
    eval_id = data.get("eval_id")
    if not isinstance(eval_id, str) or eval_id in {"", ".", ".."}:
        # "." and ".." cannot stand in a URL's path: no report could ever reach the queue
        raise InvalidTask(f"a task whose eval_id is {eval_id!r} can be neither run nor reported")
    code: Any = data.get("code")
    if not isinstance(code, str | memoryview):
        raise InvalidTask("the task has no code, or its code is no string", eval_id)
    timeout = data.get("timeout")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 1:
        timeout = None
    return Task(
        eval_id,
        code,
        None if timeout is None else int(timeout),
        str(data.get("language", "")),
        str(data.get("engine", "")),
        body,
        queue,
        now,
    )


def execute_body(task: Task, timeout: int) -> bytes | Pieces:
    """The body of `POST /execute`; `timeout` in seconds."""
    if isinstance(task.code, str):
        return orjson.dumps({"eval_id": task.eval_id, "code": task.code, "timeout": timeout})
    head = b'{"eval_id":%b,"timeout":%d,"code":' % (orjson.dumps(task.eval_id), timeout)
    return Pieces((head, task.code, b"}"))


def parse_result(body: bytes | bytearray) -> dict[str, Any]:
    """The executor's result object, or what matters here of a large one. Raises `InvalidAnswer`."""
    if len(body) >= LARGE_BYTES:
        return large.at_once(parse_large_result(body))
    try:
        return _result(orjson.loads(body), body)
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"answered no JSON: {excerpt(body)}") from error


def parse_large_result(body: bytes | bytearray) -> Generator[None, None, dict[str, Any]]:
    """As `parse_result`, in steps."""
    try:
        data = yield from large.read(body, _result_fields)
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"answered no JSON: {excerpt(body)}") from error
    return _result(data, body)


def _result(data: Any, body: bytes | bytearray) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidAnswer(f"answered no result object: {excerpt(body)}")
    return data


def is_object(body: bytes | bytearray) -> bool:
    """Whether the body is a JSON object."""
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def outcome_of(result: dict[str, Any], raw: bytes | bytearray) -> Outcome:
    """`completed` completes the task; everything else fails it with the result's own error, as ever."""
    if result.get("status") == "completed":
        return Outcome(completed=True, result=raw)
    error = result.get("error")
    return Outcome(completed=False, error=str(error) if error else "Execution failed", result=raw)


def path_id(eval_id: str) -> str:
    """An eval_id as a segment of a URL's path."""
    return eval_id if _PLAIN_ID.match(eval_id) else quote(eval_id, safe="")


def report_body(outcome: Outcome) -> bytes | Pieces:
    """The body of the report. The result is spliced in as it came: it was JSON already."""
    if outcome.completed:
        return _spliced(b'{"output":', outcome.result or b"null")
    return orjson.dumps({"error": outcome.error})


def event(eval_id: str, outcome: Outcome) -> tuple[str, bytes | Pieces]:
    """Channel and payload of the outcome's event."""
    head = b'{"eval_id":' + orjson.dumps(eval_id)
    if outcome.completed:
        return CHANNEL_COMPLETED, _spliced(head + b',"result":', outcome.result or b"null")
    head += b',"error":' + orjson.dumps(outcome.error)
    if outcome.result is not None:
        return CHANNEL_FAILED, _spliced(head + b',"result":', outcome.result)
    return CHANNEL_FAILED, head + b"}"


def _spliced(head: bytes, last: bytes | bytearray) -> bytes | Pieces:
    """The object that begins like this, with its last value."""
    return Pieces((head, last, b"}")) if len(last) >= LARGE_BYTES else head + last + b"}"


def running_event(eval_id: str, result: dict[str, Any], timeout: int) -> tuple[str, bytes]:
    """What is published when an executor of the later kind has taken the task. `timeout` in seconds."""
    return CHANNEL_RUNNING, orjson.dumps(
        {
            "eval_id": eval_id,
            "executor_id": result.get("executor_id"),
            "container_id": result.get("container_id"),
            "timeout": timeout,
        }
    )
