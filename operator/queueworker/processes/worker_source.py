"""The state of a worker for its HTTP API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from queueworker.controller.conditions import Problems, condition_states, conditions
from queueworker.controller.events import event_for
from queueworker.controller.status import migration
from queueworker.controller.view import EventLog, object_view
from queueworker.resource.status import QueueWorkerStatus
from queueworker.routing.snapshot import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.config import RouterConfig
    from queueworker.routing.snapshot import Snapshot
    from queueworker.web.source import ObjectView

NO_PROBLEMS = Problems()


class WorkerSource:
    """Call `observe` after each transition of the router; it makes what would be the object's Events."""

    def __init__(self, config: RouterConfig, snapshot: Callable[[], Snapshot]) -> None:
        self.stopping = False
        self._config = config
        self._snapshot = snapshot
        self._status = QueueWorkerStatus()
        self._events = EventLog()

    def observe(self) -> None:
        now = datetime.now(UTC)
        found = conditions(condition_states(self._snapshot(), NO_PROBLEMS), self._status.conditions, 0, 0, now)
        status = QueueWorkerStatus(
            conditions=found, migration=migration(self._config.spec.migration, self._status.migration, now)
        )
        event = event_for(self._status, status)
        if event is not None:
            self._events(event)
        self._status = status

    def snapshots(self) -> tuple[Snapshot, ...]:
        return (self._snapshot(),)

    def objects(self) -> tuple[ObjectView, ...]:
        self.observe()
        return (
            object_view(
                self._config.group,
                self._config.spec,
                self._snapshot(),
                NO_PROBLEMS,
                status=self._status,
                events=self._events.newest,
                now=datetime.now(UTC),
            ),
        )

    def object(self, group: str) -> ObjectView | None:
        return self.objects()[0] if group == self._config.group else None

    def config(self, group: str) -> RouterConfig | None:
        return self._config if group == self._config.group else None

    def live(self) -> tuple[bool, str]:
        """Not alive when the router is stalled: a restart loses nothing, and is the last way out."""
        stalled = self._snapshot().stalled
        return not stalled, f"stalled: {stalled}" if stalled else "the worker runs"

    def ready(self) -> tuple[bool, str]:
        """Independent of queue, Redis and executors: the worker waits for them as long as it takes."""
        phase = self._snapshot().phase
        if self.stopping:
            return False, "the worker was told to stop and is draining"
        if phase in {Phase.STARTING, Phase.STOPPED}:
            return False, f"the router is {phase.lower()}"
        return True, f"the router is {phase.lower()}"

    def operator(self) -> None:
        """There is no operator."""
