"""An object as the HTTP API shows it: worked out at the moment of asking, and not what the status said last."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from queueworker.controller.conditions import condition_states
from queueworker.controller.status import migration
from queueworker.redaction import without_credentials
from queueworker.web.source import ConditionView, EventView, MigrationView, ObjectView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from queueworker.controller.conditions import ConditionState, Problems
    from queueworker.controller.events import ObjectEvent
    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.resource.status import QueueWorkerStatus
    from queueworker.routing.snapshot import Snapshot

MAX_EVENTS = 50
"""Events that are kept of each object, beside those that Kubernetes keeps."""


class EventLog:
    """Keeps the newest Events of an object, and passes each on. Call it with an Event."""

    def __init__(self, post: Callable[[ObjectEvent], None] = lambda _: None) -> None:
        self.newest: deque[EventView] = deque(maxlen=MAX_EVENTS)
        """The newest first."""
        self._post = post

    def __call__(self, event: ObjectEvent) -> None:
        self.newest.appendleft(EventView(time.time(), event.type, event.reason, without_credentials(event.message)))
        self._post(event)


def object_view(
    group: str,
    spec: QueueWorkerSpec | None,
    snapshot: Snapshot | None,
    problems: Problems,
    *,
    status: QueueWorkerStatus,
    events: Iterable[EventView],
    now: datetime,
    pool: ConditionState | None = None,
) -> ObjectView:
    """`status` is the last one that was written; it tells since when a condition has been as it is. `pool` is the
    condition PoolReady.
    """
    states = [*condition_states(snapshot, problems), *([pool] if pool is not None else [])]
    since = {(c.type, c.status): c.last_transition_time.timestamp() for c in status.conditions}
    return ObjectView(
        group=group,
        snapshot=snapshot,
        conditions=[
            ConditionView(s.type, s.status, s.reason, without_credentials(s.message), since.get((s.type, s.status)))
            for s in states
        ],
        migration=_migration(spec, status, now),
        events=tuple(events),
    )


def _migration(spec: QueueWorkerSpec | None, status: QueueWorkerStatus, now: datetime) -> MigrationView | None:
    if spec is None:
        return None
    found = migration(spec.migration, status.migration, now)
    since = found.standby_since.timestamp() if found.standby_since is not None else None
    return MigrationView(found.phase, spec.migration.celery_percent, since)
