"""The account at the end: what became of each task, and which losses the README announces."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import orjson

from demo.show.facts import Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOSS_WINDOW_SECONDS = 1.0
"""A task that the queue handed out so shortly before or after the router was killed may not have reached the journal.
It takes milliseconds; a machine under load may take longer."""
FOLLOW_SECONDS = 0.5
_ON_PURPOSE = "%fails on purpose%"


@dataclass(frozen=True, slots=True)
class Account:
    """`lost` tasks have no outcome. `announced` of them were handed out while the router was being killed."""

    submitted: int
    routed: int
    stored: Stored
    lost: int
    announced: int

    @classmethod
    def of(
        cls,
        submitted: int,
        routed: int,
        stored: Stored,
        outcomes: set[str],
        actions: Iterable[bytes],
        kills: Sequence[float],
    ) -> Self:
        """`outcomes` are ids, `actions` what the queue recorded, `kills` seconds on the clock of the queue."""
        announced = len(announced_losses(actions, kills, outcomes))
        return cls(submitted, routed, stored, submitted - len(outcomes), announced)

    @property
    def in_order(self) -> bool:
        """No task was lost, except where the README says that one can be."""
        return 0 <= self.lost <= self.announced

    def __str__(self) -> str:
        """The summary line."""
        stored = self.stored
        return (
            f"submitted={self.submitted} routed={self.routed} completed={stored.completed} failed={stored.failed} "
            f"lost={self.lost}"
        )

    def explanations(self) -> list[str]:
        """Sentences that explain the summary line."""
        lines = []
        if self.stored.on_purpose:
            lines.append(f"failed on purpose: {self.stored.on_purpose} (one in ten tasks of the load raises an error)")
        others = self.stored.failed - self.stored.on_purpose
        if others:
            lines.append(
                f"failed because their executor was killed: {others} (a task may have run, so only `routing.retry` "
                "would run it again)"
            )
        if self.announced:
            lines.append(
                f"handed out while the router was killed, and not in its journal yet: {self.announced} (see "
                "docs/guarantees.md, “What cannot be prevented”)"
            )
        if not self.in_order:
            lines.append("Tasks are lost for which there is no such reason. This is a defect: please report it.")
        return lines


def stored(database: Path, prefix: str) -> Stored:
    """The outcomes of the tasks whose ids begin with `prefix`."""
    query = "SELECT channel, count(*), sum(body LIKE ?) FROM events WHERE eval_id GLOB ? GROUP BY channel"
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        rows = connection.execute(query, (_ON_PURPOSE, f"{prefix}-*")).fetchall()
    counts = {channel: (count, on_purpose or 0) for channel, count, on_purpose in rows}
    completed, _ = counts.get("evaluation:completed", (0, 0))
    failed, on_purpose = counts.get("evaluation:failed", (0, 0))
    return Stored(completed, failed, on_purpose)


def stored_ids(database: Path | str, prefix: str) -> set[str]:
    """The ids that have an outcome and begin with `prefix`."""
    query = "SELECT DISTINCT eval_id FROM events WHERE channel != 'evaluation:running' AND eval_id GLOB ?"
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return {eval_id for (eval_id,) in connection.execute(query, (f"{prefix}-*",))}


def follow(database: str, prefix: str) -> None:
    """Print the counts again and again, as JSON: completed, failed, failed on purpose."""
    while True:
        print(orjson.dumps(astuple(stored(Path(database), prefix))).decode(), flush=True)
        time.sleep(FOLLOW_SECONDS)


def announced_losses(actions: Iterable[bytes], kills: Sequence[float], outcomes: set[str]) -> set[str]:
    """The ids that were handed out while a router was being killed, never reported, and have no outcome.

    `actions` are lines of the queue's `ActionLog`, `kills` seconds on the same clock.
    """
    handed: dict[str, float] = {}
    reported: set[str] = set()
    for line in actions:
        action = orjson.loads(line)
        if action["what"] == "handed-out":
            handed[action["eval_id"]] = action["at"]
        else:
            reported.add(action["eval_id"])
    return {
        eval_id
        for eval_id, at in handed.items()
        if eval_id not in reported | outcomes and any(abs(at - kill) <= LOSS_WINDOW_SECONDS for kill in kills)
    }
