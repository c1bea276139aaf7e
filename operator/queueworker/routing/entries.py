"""How the journal spells a task: `pulled` and `executing` with the task, `executed` with its outcome. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import orjson

from queueworker.routing.task import Outcome


class State(StrEnum):
    PULLED = "pulled"
    EXECUTING = "executing"
    EXECUTED = "executed"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a successor finds. `task` is the queue's answer as it came; `outcome` is there when executed."""

    state: State
    queue_url: str
    attempt: int = 1
    executor: str = ""
    task: bytes = b""
    outcome: Outcome | None = None


class UnreadableEntry(Exception):
    """Not an entry of ours, or damaged."""


def encode_task(state: State, queue_url: str, task: bytes, attempt: int = 1, executor: str = "") -> bytes:
    return orjson.dumps(
        {
            "state": state,
            "queue": queue_url,
            "attempt": attempt,
            "executor": executor,
            "task": orjson.Fragment(task),
        }
    )


def encode_outcome(queue_url: str, outcome: Outcome) -> bytes:
    return orjson.dumps(
        {
            "state": State.EXECUTED,
            "queue": queue_url,
            "completed": outcome.completed,
            "error": outcome.error,
            "published": outcome.published,
            "result": None if outcome.result is None else orjson.Fragment(outcome.result),
        }
    )


def decode(raw: bytes) -> Entry:
    """Raises `UnreadableEntry`."""
    try:
        data = orjson.loads(raw)
        state, queue_url = State(data["state"]), data["queue"]
        if not isinstance(queue_url, str):
            raise UnreadableEntry("its queue is no URL")
        if state is not State.EXECUTED:
            return Entry(state, queue_url, int(data["attempt"]), str(data["executor"]), orjson.dumps(data["task"]))
        result = data["result"]
        outcome = Outcome(
            completed=bool(data["completed"]),
            error=str(data["error"]),
            result=None if result is None else orjson.dumps(result),
            published=bool(data["published"]),
        )
        return Entry(state, queue_url, outcome=outcome)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableEntry(str(error)) from error
