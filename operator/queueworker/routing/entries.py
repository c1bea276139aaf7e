"""How the journal spells a task: `pulled` and `executing` with the task, `executed` with its outcome. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import orjson

from queueworker.routing.failures import MAX_TASK_BYTES, NO_TASK
from queueworker.routing.task import Outcome

# A larger task is not in its entry: nobody can run it again without it, and a successor reports it as failed. With a
# larger result an outcome gets no entry (the router sees to that): the one of its task stays `executing`.
MAX_KEPT_BYTES = 8 * 1024 * 1024


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
        "task": _kept(task, MAX_KEPT_BYTES),
    }
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
        "result": None if outcome.result is None else orjson.Fragment(bytes(outcome.result)),
    }
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


def decode(raw: bytes) -> Entry:
    """Raises `UnreadableEntry`."""
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
                orjson.dumps(data["task"]),
                doubtful=state is State.EXECUTING or bool(data.get("doubtful")),
                until=None if until is None else float(until),
            )
        result = data["result"]
        outcome = Outcome(
            completed=bool(data["completed"]),
            error=str(data["error"]),
            result=None if result is None else orjson.dumps(result),
            published=bool(data["published"]),
        )
        attempt, executor = int(data.get("attempt", 1)), str(data.get("executor", ""))
        task = orjson.dumps(data.get("task"))
        return Entry(state, queue_url, attempt, executor, task, outcome, bool(data.get("doubtful")))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableEntry(str(error)) from error
