"""How the journal spells a task: `pulled` and `executing` with the task, `executed` with its outcome. Pure.

The names in the JSON (`doubtful`, `until`) are those of earlier versions, which must be able to read our entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
import orjson

from queueworker.routing.journal.failed_tasks import NO_TASK
from queueworker.routing.limits import Limits
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.reading import write_for_all

_LIMITS = Limits()


class State(StrEnum):
    PULLED = "pulled"
    EXECUTING = "executing"
    EXECUTED = "executed"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a successor finds of a task."""

    state: State
    queue_url: str
    attempt: int = 1
    executor: str = ""
    task: bytes = NO_TASK
    """The queue's answer, byte for byte. Of an executed task it is there only when the task failed, for its record."""
    outcome: Outcome | None = None
    """Set when the task was executed."""
    ambiguous: bool = False
    """An executor may have run the task to its end."""
    deadline: float | None = None
    """Unix time in seconds. An asynchronous executor has the task, and may publish the outcome until then."""
    deaths: int = 0
    """Routers that died while an executor ran the task."""
    event_id: str = ""
    """The id that the event of the outcome will have; empty if the format of events has none."""


class UnreadableEntry(Exception):
    """Not an entry of ours, or damaged."""


def encode_task(
    state: State,
    queue_url: str,
    task: bytes,
    attempt: int = 1,
    executor: str = "",
    *,
    ambiguous: bool = False,
    deadline: float | None = None,
    deaths: int = 0,
) -> bytes:
    entry = {
        "state": state,
        "queue": queue_url,
        "attempt": attempt,
        "executor": executor,
        "task": orjson.Fragment(task),
    }
    if ambiguous:
        entry["doubtful"] = True
    if deadline is not None:
        entry["until"] = deadline
    if deaths:
        entry["deaths"] = deaths
    return orjson.dumps(entry)


def encode_outcome(
    queue_url: str,
    outcome: Outcome,
    task: bytes = NO_TASK,
    attempt: int = 1,
    executor: str = "",
    *,
    ambiguous: bool = False,
    event_id: str = "",
) -> bytes:
    """With the task only when it failed and its record will hold it."""
    entry = {
        "state": State.EXECUTED,
        "queue": queue_url,
        "completed": outcome.completed,
        "error": outcome.error,
        "published": outcome.published,
        "result": None if outcome.result is None else orjson.Fragment(outcome.result),
    }
    if event_id:
        entry["event"] = event_id
    if not outcome.completed:
        entry |= {
            "doubtful": ambiguous,
            "attempt": attempt,
            "executor": executor,
            "task": orjson.Fragment(task if len(task) <= _LIMITS.max_failed_task_body_bytes else NO_TASK),
        }
    try:
        return orjson.dumps(entry)
    except TypeError:  # half a surrogate pair in the error
        return orjson.dumps(entry | {"error": orjson.Fragment(write_for_all(outcome.error))})


# --- reading

_NULL = msgspec.Raw(b"null")
# Of a damaged entry it may be one that cannot be written again.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class _Pulled(msgspec.Struct, tag_field="state", tag="pulled"):
    queue: str
    attempt: _Count
    executor: str
    task: msgspec.Raw
    doubtful: bool = False
    until: float | None = None
    deaths: _Count = 0

    def entry(self) -> Entry:
        return self._entry(State.PULLED, ambiguous=self.doubtful)

    def _entry(self, state: State, *, ambiguous: bool) -> Entry:
        return Entry(
            state,
            self.queue,
            self.attempt,
            self.executor,
            bytes(self.task),
            ambiguous=ambiguous,
            deadline=self.until,
            deaths=self.deaths,
        )


class _Executing(_Pulled, tag_field="state", tag="executing"):
    def entry(self) -> Entry:
        return self._entry(State.EXECUTING, ambiguous=True)


class _Executed(msgspec.Struct, tag_field="state", tag="executed"):
    queue: str
    completed: bool
    error: str
    published: bool
    result: msgspec.Raw
    parts: int = 0
    """Only an earlier version wrote a result in parts; here the number of those that were not found."""
    doubtful: bool = False
    attempt: _Count = 1
    executor: str = ""
    task: msgspec.Raw = _NULL
    event: str = ""

    def entry(self) -> Entry:
        result = bytes(self.result)
        if result == b"null" and self.parts:
            raise UnreadableEntry("a part of its result is missing")
        outcome = Outcome(
            completed=self.completed,
            error=self.error,
            result=None if result == b"null" else result,
            published=self.published,
        )
        known = (self.attempt, self.executor, bytes(self.task))
        return Entry(State.EXECUTED, self.queue, *known, outcome, ambiguous=self.doubtful, event_id=self.event)


_decoder = msgspec.json.Decoder(_Pulled | _Executing | _Executed)


def decode(raw: bytes) -> Entry:
    """Raises `UnreadableEntry`."""
    try:
        fields: _Pulled | _Executing | _Executed = _decoder.decode(raw)
        return fields.entry()
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableEntry(str(error)) from error
