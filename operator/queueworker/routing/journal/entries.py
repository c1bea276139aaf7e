"""How the journal spells a task: `pulled` and `executing` with the task, `executed` with its outcome. Pure.

A large task, or result, is kept in parts beside its entry, which says how many they are: a script that writes
megabytes holds up Redis for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from queueworker.routing.http.large import LARGE_BYTES
from queueworker.routing.journal.failed_tasks import MAX_TASK_BYTES, NO_TASK
from queueworker.routing.wire.task import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

# A larger task is not in its entry: nobody can run it again without it, and a successor reports it as failed. With a
# larger result an outcome gets no entry (the router sees to that): the one of its task stays `executing`.
MAX_KEPT_BYTES = 8 * 1024 * 1024
PART_BYTES = 256 * 1024
TASK, RESULT = "task", "result"


class State(StrEnum):
    PULLED = "pulled"
    EXECUTING = "executing"
    EXECUTED = "executed"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a successor finds. `task` is the queue's answer as it came; `outcome` is there when executed.

    Of what was executed the task is there only when it failed, for the record of failed tasks; `doubtful`
    and `until` are the task's.
    """

    state: State
    queue_url: str
    attempt: int = 1
    executor: str = ""
    task: bytes = NO_TASK
    outcome: Outcome | None = None
    doubtful: bool = False
    until: float | None = None


class UnreadableEntry(Exception):
    """Not an entry of ours, or damaged."""


def parts(kind: str, body: bytes | bytearray) -> dict[str, memoryview]:
    """What is kept of a large body, under names. None of one that is small, or too large to be kept."""
    if not LARGE_BYTES <= len(body) <= MAX_KEPT_BYTES:
        return {}
    view = memoryview(body)
    return {f"{kind}{i}": view[at : at + PART_BYTES] for i, at in enumerate(range(0, len(body), PART_BYTES))}


def encode_task(
    state: State,
    queue_url: str,
    task: bytes | bytearray,
    attempt: int = 1,
    executor: str = "",
    *,
    doubtful: bool = False,
    until: float | None = None,
) -> bytes:
    entry = {
        "state": state,
        "queue": queue_url,
        "attempt": attempt,
        "executor": executor,
        "task": _kept(task, LARGE_BYTES - 1),
    }
    if count := len(parts(TASK, task)):
        entry["parts"] = count
    if doubtful:
        entry["doubtful"] = True
    if until is not None:
        entry["until"] = until
    return orjson.dumps(entry)


def encode_outcome(
    queue_url: str,
    outcome: Outcome,
    task: bytes | bytearray = NO_TASK,
    attempt: int = 1,
    executor: str = "",
    *,
    doubtful: bool = False,
) -> bytes:
    """What a failed task's record needs goes with a failure only: a completed one needs none."""
    entry = {
        "state": State.EXECUTED,
        "queue": queue_url,
        "completed": outcome.completed,
        "error": outcome.error,
        "published": outcome.published,
        "result": None,
    }
    if outcome.result is not None:
        if count := len(parts(RESULT, outcome.result)):
            entry["parts"] = count
        else:
            entry["result"] = orjson.Fragment(bytes(outcome.result))
    if not outcome.completed:
        entry |= {
            "doubtful": doubtful,
            "attempt": attempt,
            "executor": executor,
            "task": _kept(task, MAX_TASK_BYTES),
        }
    return orjson.dumps(entry)


def _kept(task: bytes | bytearray, most: int) -> orjson.Fragment:
    return orjson.Fragment(bytes(task) if len(task) <= most else NO_TASK)


def decode(raw: bytes, kept: Mapping[str, bytes | memoryview] | None = None) -> Entry:
    """`kept` are its parts. Raises `UnreadableEntry`."""
    try:
        data = orjson.loads(raw)
        state, queue_url = State(data["state"]), data["queue"]
        if not isinstance(queue_url, str):
            raise UnreadableEntry("its queue is no URL")
        if state is not State.EXECUTED:
            until = data.get("until")
            return Entry(
                state,
                queue_url,
                int(data["attempt"]),
                str(data["executor"]),
                _joined(TASK, data, kept) or orjson.dumps(data["task"]),
                doubtful=state is State.EXECUTING or bool(data.get("doubtful")),
                until=None if until is None else float(until),
            )
        result = _joined(RESULT, data, kept) or (None if data["result"] is None else orjson.dumps(data["result"]))
        if result is None and data.get("parts"):
            raise UnreadableEntry("a part of its result is missing")
        outcome = Outcome(
            completed=bool(data["completed"]),
            error=str(data["error"]),
            result=result,
            published=bool(data["published"]),
        )
        attempt, executor = int(data.get("attempt", 1)), str(data.get("executor", ""))
        task = orjson.dumps(data.get("task"))
        return Entry(state, queue_url, attempt, executor, task, outcome, bool(data.get("doubtful")))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableEntry(str(error)) from error


def _joined(kind: str, data: dict[str, Any], kept: Mapping[str, bytes | memoryview] | None) -> bytes | None:
    """The body that the parts are of; None if there is none, or not all of them are there."""
    found = [(kept or {}).get(f"{kind}{i}") for i in range(data.get("parts", 0))]
    return b"".join(part for part in found if part is not None) if found and None not in found else None
