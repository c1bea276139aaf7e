"""Writes an object's status: at once after a transition, otherwise with the heartbeat, and only if it differs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queueworker.controller.events import event_for
from queueworker.controller.status import merge_patch, transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.events import ObjectEvent
    from queueworker.resource.status import QueueWorkerStatus

HEARTBEAT_SECONDS = 15.0
# A heartbeat that comes a little early must not wait for the next one.
EARLY_SECONDS = 0.5


class StatusWriter:
    """`written` is the status that the object has. `announce` posts a Kubernetes Event."""

    def __init__(
        self,
        namespace: str,
        name: str,
        written: QueueWorkerStatus,
        cluster: Cluster,
        announce: Callable[[ObjectEvent], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.written = written
        self._namespace = namespace
        self._name = name
        self._cluster = cluster
        self._announce = announce
        self._clock = clock
        self._written_at = float("-inf")

    async def write(self, status: QueueWorkerStatus, *, last: bool = False) -> None:
        """`last`: there is no later heartbeat. Raises `ObjectGone` or one of `cluster.FAILED`."""
        if status == self.written or not (last or self._is_due(status)):
            return
        await self._cluster.patch_status(self._namespace, self._name, merge_patch(status))
        event = event_for(self.written, status)
        if event is not None:
            self._announce(event)
        self.written = status
        self._written_at = self._clock()

    def _is_due(self, status: QueueWorkerStatus) -> bool:
        heartbeat = self._clock() - self._written_at >= HEARTBEAT_SECONDS - EARLY_SECONDS
        return heartbeat or transition(status) != transition(self.written)
