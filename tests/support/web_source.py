"""Snapshots made by hand, and a source that shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueworker.controller.conditions import Problems
from queueworker.controller.view import object_view
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.resource.status import QueueWorkerStatus
from queueworker.routing.config import Intent
from queueworker.routing.counters import Counters
from queueworker.routing.snapshot import ExecutorSnapshot, Link, LinkReason, Phase, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.routing.config import RouterConfig
    from queueworker.web.source import ObjectView, OperatorView

UP = Link(LinkReason.CONNECTED)
DOWN = Link(LinkReason.CONNECTION_FAILED, "queue http://queue:8081 refused the connection")


def executor(number: int = 1, **fields: Any) -> ExecutorSnapshot:
    name = f"executor-{number}"
    values: dict[str, Any] = {
        "name": name,
        "url": f"http://{name}:8083",
        "healthy": True,
        "in_flight": 0,
        "capacity": 1,
        "last_check": 1_700_000_000.0,
        "reason": "",
    }
    return ExecutorSnapshot(**values | fields)


def snapshot(group: str = "default/legacy", **fields: Any) -> Snapshot:
    values: dict[str, Any] = {
        "group": group,
        "worker_id": "queue-worker-1",
        "intent": Intent.ROUTE,
        "phase": Phase.ROUTING,
        "executors": (executor(1), executor(2)),
        "queue": UP,
        "events": UP,
        "journal": UP,
        "queue_url": "http://queue:8081",
        "queue_depth": 7,
        "consecutive_errors": 0,
        "last_task_time": 1_700_000_001.5,
        "in_flight": 2,
        "events_buffered": 0,
        "per_minute": 42,
        "counters": Counters(),
    }
    return Snapshot(**values | fields)


def object_of(shown: Snapshot) -> ObjectView:
    """As an operator without problems shows it."""
    return object_view(
        *(shown.group, QueueWorkerSpec(), shown, Problems()),
        status=QueueWorkerStatus(),
        events=(),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )


@dataclass
class FakeSource:
    """A `Source`; `taken` counts how often its snapshots were asked for."""

    shown: Sequence[Snapshot] = field(default_factory=lambda: [snapshot()])
    liveness: tuple[bool, str] = (True, "running")
    readiness: tuple[bool, str] = (True, "leading")
    view: OperatorView | None = None
    taken: int = 0
    configs: dict[str, RouterConfig] = field(default_factory=dict)

    def snapshots(self) -> Sequence[Snapshot]:
        self.taken += 1
        return self.shown

    def objects(self) -> Sequence[ObjectView]:
        return [object_of(shown) for shown in self.snapshots()]

    def object(self, group: str) -> ObjectView | None:
        return next((view for view in self.objects() if view.group == group), None)

    def config(self, group: str) -> RouterConfig | None:
        return self.configs.get(group)

    def live(self) -> tuple[bool, str]:
        return self.liveness

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    def operator(self) -> OperatorView | None:
        return self.view
