"""Who answered, and what the answer means. Pure.

Ingresses, gateways and login pages stand between the router and the queue, and answer by themselves. Only the queue's
own words (docs/wire.md) are final. Nothing else in this package looks at a status code.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

from queueworker.routing.counters import LossCause
from queueworker.routing.wire.reading import InvalidAnswer, describe, is_html, read_object
from queueworker.routing.wire.task import Task, parse_task

# These refuse this very report, for its size, its path or what it holds; a 400 does so only in JSON. With every other
# status, a gateway may answer all reports for a time.
_NEVER = frozenset({413, 414, 422, 431})
_SAYS_NOTHING = frozenset({401, 403, 407, 408, 425, 429})
_TAKEN = {True: "completed", False: "failed"}
MAX_DEPTH = 2**63 - 1
_UNKNOWN_ID = "not_found"
_UNKNOWN_ID_DETAIL = "Task not found"


class ForeignAnswer(Exception):
    """The answer to a poll is not the queue's. `cause` is None when the queue cannot have popped a task for it."""

    def __init__(self, message: str, cause: LossCause | None = LossCause.NOT_THE_QUEUES) -> None:
        super().__init__(message)
        self.cause = cause


class Reply(Enum):
    """What an answer to a report means."""

    TAKEN = "the queue has the report"
    UNKNOWN_ID = "the queue knows no such task"
    MAYBE_UNKNOWN_ID = "a 404 that may be somebody else's"
    KEY_REFUSED = "the API key is wrong or missing"
    NEVER = "this very report will never be taken"
    NOT_NOW = "worth sending again"


def read_poll(status: int, body: bytes, max_lenient_bytes: float = math.inf) -> Task | None:
    """The task that `GET /tasks/next` brought, or None when the queue is empty.

    Raises `ForeignAnswer`, or `InvalidTask` for a task of the queue's that cannot be routed.
    """
    if status == 204:
        return None
    if status != 200:
        raise ForeignAnswer(f"{status} ({describe(body)})", None if key_refused(status, body) else _CAUSE)
    try:
        task = parse_task(body, max_lenient_bytes)
    except InvalidAnswer as error:
        # What begins as an object and is none was a task, perhaps. A whole object that is no task is somebody else's.
        large = len(body) > max_lenient_bytes
        cause = LossCause.UNREADABLE if body[:1] == b"{" and (large or read_object(body) is None) else _CAUSE
        raise ForeignAnswer(f"200 with something that is not a task ({describe(body)})", cause) from error
    return task


def read_report(status: int, body: bytes, *, completed: bool) -> Reply:
    """What the answer to `POST /tasks/{id}/complete` (or `/fail`) means."""
    if status == 200:
        said = _word(body, "status")
        if said == _TAKEN[completed]:
            return Reply.TAKEN
        return Reply.UNKNOWN_ID if said == _UNKNOWN_ID else Reply.NOT_NOW
    if status == 404:
        known = _word(body, "detail") == _UNKNOWN_ID_DETAIL
        return Reply.UNKNOWN_ID if known else Reply.MAYBE_UNKNOWN_ID
    if key_refused(status, body):
        return Reply.KEY_REFUSED
    never = status in _NEVER or (status == 400 and read_object(body) is not None)
    return Reply.NEVER if never else Reply.NOT_NOW


def read_depth(status: int, body: bytes) -> int | None:
    """Tasks that wait, by the answer of `GET /status`; None when the answer is not the queue's.

    The status of an object holds 64 bits: the API server would refuse all of a status with a larger number.
    """
    queued = _field(body, "queued") if status == 200 else None
    known = isinstance(queued, int) and not isinstance(queued, bool) and 0 <= queued <= MAX_DEPTH
    return queued if known else None


def read_look_up(status: int, body: bytes) -> str | None:
    """`queued` or `running` when the queue has the task, by the answer of `GET /tasks/{id}`; empty when it has not.

    None when the answer is not the queue's.
    """
    if status == 404:
        return "" if _word(body, "detail") is not None else None
    said = _word(body, "status") if status == 200 else None
    return said if said is None or said in {"queued", "running"} else ""


def may_have_task(status: int, body: bytes) -> bool:
    """Whether the queue may have the task, by the answer of `GET /tasks/{id}`; a queue may have no such call.

    What a gateway answers while it cannot reach the queue, or to whom it does not know, says nothing.
    """
    state = read_look_up(status, body)
    return bool(state) if state is not None else status in _SAYS_NOTHING or not 400 <= status < 500


def read_submission(status: int, body: bytes) -> int | None:
    """The task's place in the queue, by the answer of `POST /tasks`; None when the queue did not take the task."""
    position = _field(body, "position") if status == 200 and _word(body, "status") == "queued" else None
    return position if isinstance(position, int) else None


def key_refused(status: int, body: bytes) -> bool:
    """A 403 of a firewall is a page; the queue answers in JSON."""
    return status in {401, 403} and not is_html(body)


def _word(body: bytes, name: str) -> str | None:
    value = _field(body, name)
    return value if isinstance(value, str) else None


def _field(body: bytes, name: str) -> Any:
    return (read_object(body) or {}).get(name)


_CAUSE = LossCause.NOT_THE_QUEUES
