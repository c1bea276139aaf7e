"""QueueWorkers made by hand, with a history: for pictures of the page, and for how it behaves when there are many."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueworker.controller.conditions import Problems
from queueworker.controller.view import object_view
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.resource.status import QueueWorkerStatus
from queueworker.routing.config import Intent
from queueworker.routing.counters import Counters
from queueworker.routing.history import POINT_SECONDS, POINTS, History
from queueworker.routing.snapshot import (
    ExecutorFailure,
    ExecutorState,
    Phase,
    Pipeline,
    TaskFailure,
    Transition,
)
from queueworker.web.source import EventView
from tests.support.web_source import DOWN, FakeSource, executor, snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.routing.snapshot import ExecutorSnapshot, Snapshot
    from queueworker.web.source import ObjectView

TRACEBACK = """Traceback (most recent call last):
  File "/app/run.py", line 41, in <module>
    main()
  File "/app/run.py", line 22, in main
    raise ValueError(f"no column {name!r} in row {row}")
ValueError: no column 'price' in row 1893"""


def grown(
    counters: Counters,
    rate: float,
    seconds: float,
    rng: random.Random,
    failing: float = 0.0,
    slots: tuple[int, int] = (6, 12),
) -> History:
    """A history of ten minutes with that many tasks a minute, each of about so many seconds.

    `slots` are those in use at the end, and those of the healthy executors.
    """
    history = History(counters)
    history.sample(0)
    for point in range(1, POINTS + 1):
        wave = 1 + 0.35 * math.sin((point - POINTS + 5.5) / 9) + 0.2 * (rng.random() - 0.5)  # 1 in the last minute
        done = round(rate / 12 * wave)
        counters.failed += (failed := sum(rng.random() < failing for _ in range(done)))
        counters.completed += done - failed
        for _ in range(done):
            counters.execution.observe(seconds * (0.4 + rng.random() ** 3 * 4))
        now = point * POINT_SECONDS
        if history.sample(now):
            in_use = slots[0] if point == POINTS else min(slots[1], round(slots[0] * wave))
            history.add(now, in_use, slots[1])
    return history


def pool(size: int, rng: random.Random, *, busy: bool = True, **states: ExecutorState) -> tuple[ExecutorSnapshot, ...]:
    """`executor_3=ExecutorState.EJECTED` is the state of executor-3; the others are healthy."""
    now = time.time()
    found = []
    for n in range(1, size + 1):
        state = states.get(f"executor_{n}", ExecutorState.HEALTHY)
        broken = state in {ExecutorState.EJECTED, ExecutorState.UNHEALTHY}
        fields: dict[str, Any] = {"state": state, "healthy": not broken, "capacity": 4, "last_check": now - n % 5}
        fields["in_flight"] = 0 if broken or not busy else rng.randint(1, 4)
        fields["leaving"] = state is ExecutorState.LEAVING
        if broken:
            fields["reason"] = "ejected for 30 s after 5 failures in a row: 502 (Bad Gateway)"
            fields["failures"] = (ExecutorFailure(now - 12, "502 (Bad Gateway)"), ExecutorFailure(now - 14, "502"))
        if state is ExecutorState.EJECTED:
            fields["ejected_until"] = now + 18
        if state is ExecutorState.UNHEALTHY:
            fields["reason"] = f"no answer from http://executor-{n}:8083/health: connection refused"
        found.append(executor(n, **fields))
    return tuple(found)


def example() -> list[Snapshot]:
    """Objects in all states that a person may see."""
    rng = random.Random(7)
    now = time.time()

    def made(name: str, rate: float, seconds: float, failing: float = 0.0, **fields: Any) -> Snapshot:
        counters = Counters(pulled=4000)
        executors = fields.setdefault("executors", pool(3, rng, busy=rate > 0))
        busy = sum(found.in_flight for found in executors)
        slots = (busy, sum(found.capacity for found in executors if found.healthy))
        pipeline = fields.setdefault("pipeline", Pipeline(0, busy, 1, 0) if rate else Pipeline())
        history = grown(counters, rate, seconds, rng, failing, slots)
        counters.events_published = counters.routed
        defaults: dict[str, Any] = {
            "counters": counters,
            "history": history,
            "per_minute": round(rate),
            "in_flight": pipeline.pulled + pipeline.executing + pipeline.to_report,
        }
        return snapshot(name, **defaults | fields)

    failures = tuple(
        TaskFailure(f"eval-{rng.randrange(16**8):08x}", now - 40 * n, TRACEBACK, f"executor-{n % 3 + 1}", 1, n == 1)
        for n in range(7)
    )
    changes = (
        Transition(now - 12, "executor executor-3", well=False, message="ejected for 30 s after 5 failures in a row"),
        Transition(now - 640, "events", well=True, message=""),
        Transition(now - 655, "events", well=False, message="Redis redis:6379 refused the connection"),
    )
    degraded = pool(3, rng, executor_3=ExecutorState.EJECTED, executor_2=ExecutorState.WARMING_UP)
    down = pool(2, rng, executor_1=ExecutorState.UNHEALTHY, executor_2=ExecutorState.UNHEALTHY)
    return [
        made(
            "default/legacy",
            412,
            0.9,
            0.01,
            executors=degraded,
            failures=failures,
            transitions=changes,
            queue_depth=118,
        ),
        made("evaluation/gpu", 790, 1.4, executors=pool(18, rng, executor_7=ExecutorState.SILENT), queue_depth=0),
        made("evaluation/nightly", 36, 14, queue_depth=3),
        made("reports/monthly", 0, 1, intent=Intent.SUSPEND, phase=Phase.IDLE, queue_depth=None),
        made("team-a/legacy", 0, 1, queue=DOWN, queue_depth=None, pipeline=Pipeline(0, 0, 3, 0)),
        made("team-b/legacy", 0, 1, executors=down, queue_depth=41, pipeline=Pipeline(2, 0, 0, 0)),
        made("team-c/migrated", 0, 1, intent=Intent.STANDBY, phase=Phase.IDLE, queue_depth=0),
    ]


def many(objects: int, executors: int) -> list[Snapshot]:
    """So many objects with so many executors, all of which change each second (see `PageWorld`)."""
    rng = random.Random(3)
    counters = Counters()
    history = grown(counters, 120, 0.5, rng)
    shown = pool(executors, rng)
    return [
        snapshot(f"team-{n:03}/legacy", counters=counters, history=history, executors=shown) for n in range(objects)
    ]


@dataclass
class PageWorld(FakeSource):
    """A source whose objects have Events."""

    def objects(self) -> Sequence[ObjectView]:
        return [self._view(shown) for shown in self.snapshots()]

    def _view(self, shown: Snapshot) -> ObjectView:
        percent = 100 if shown.intent is Intent.STANDBY else 40
        spec = QueueWorkerSpec.model_validate({"migration": {"celeryPercent": percent}})
        event = EventView(time.time() - 3600, "Normal", "Routing", "routing to 3 of 3 executors")
        view = object_view(
            *(shown.group, spec, shown, Problems()),
            status=QueueWorkerStatus(),
            events=[event],
            now=datetime.now(UTC),
        )
        return replace(view, conditions=[replace(found, since=event.time) for found in view.conditions])
