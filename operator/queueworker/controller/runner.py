"""One QueueWorker object: its router follows its spec, and its status follows its router."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queueworker.controller import status as statuses
from queueworker.controller.cluster import UNREACHABLE
from queueworker.controller.conditions import Problems
from queueworker.controller.inputs import InputReader
from queueworker.controller.status_writer import HEARTBEAT_SECONDS, StatusWriter
from queueworker.controller.supervisor import RouterSupervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.discovery import Slices
    from queueworker.controller.supervisor import RouterFactory
    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.snapshot import Snapshot

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Interval of a reconciliation while there is no router, while a Secret is missing, or while a peer is away."""
QUIET_SECONDS = 0.5
"""Shortest time between two reconciliations of an object whose router runs."""


class ObjectRunner:
    """Runs from the object's first appearance until its deletion or the operator's end."""

    def __init__(
        self,
        body: Mapping[str, Any],
        cluster: Cluster,
        slices: Slices,
        identity: str,
        announce: Callable[[str, str, str], None],
        *,
        factory: RouterFactory,
    ) -> None:
        meta = body["metadata"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.stopped = asyncio.Event()
        self._group = f"{self.namespace}/{self.name}"
        self._body = body
        self._wake = asyncio.Event()
        self._spec: QueueWorkerSpec | None = None
        """The last valid spec."""
        self._problems = Problems()
        written = statuses.read(body.get("status") or {})
        self._inputs = InputReader(self.namespace, self.name, cluster, slices)
        self._supervisor = RouterSupervisor(
            identity, self._wake.set, statuses.Totals.of(written.tasks), factory=factory
        )
        self._applied = written.observed_generation
        """Generation of the spec that the router runs."""
        self._writer = StatusWriter(self.namespace, self.name, written, cluster, announce)
        self._stopping = False

    def observe(self, body: Mapping[str, Any]) -> None:
        """Take the object as the API server has it now."""
        self._body = body
        self._wake.set()

    def endpoints_changed(self) -> None:
        self._wake.set()

    def snapshot(self) -> Snapshot | None:
        return self._supervisor.snapshot()

    async def run(self) -> None:
        """Return once `stop` has ended. A failure is logged and tried again; meanwhile the router goes on."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self._reconcile()
                await self._publish()
            except UNREACHABLE as error:
                log.warning("%s: the API server cannot be reached: %s", self._group, error)
            except Exception as error:
                log.exception("%s: reconciling failed; it is tried again", self._group)
                text = f"reconciling failed ({type(error).__name__}); it is tried again; the operator's log has more"
                self._problems = replace(self._problems, failure=text)
                await self._publish_if_possible()
            await asyncio.sleep(QUIET_SECONDS if self.snapshot() is not None else 0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._interval())
        await self.stopped.wait()

    async def stop(self, *, final: bool) -> None:
        """Drain the router. `final`: the object is deleted, so nothing is left for a later router."""
        if not self._stopping:
            self._stopping = True
            self._wake.set()
            try:
                await self._end(final=final)
            finally:
                self.stopped.set()
        await self.stopped.wait()

    async def _end(self, *, final: bool) -> None:
        draining = asyncio.create_task(self._supervisor.stop(final=final))
        await self._publish_if_possible()
        await draining
        if not final:
            await self._publish_if_possible(last=True)

    async def _reconcile(self) -> None:
        """Read the object, and make its router follow it."""
        body = self._body
        inputs = await self._inputs.read(body, self.snapshot())
        self._problems = inputs.problems
        self._spec = inputs.spec
        if inputs.config is not None:
            self._supervisor.drive(inputs.config, inputs.endpoints)
        if inputs.whole and self._supervisor.is_current:
            self._applied = body["metadata"].get("generation") or 0

    async def _publish(self, *, last: bool = False) -> None:
        status = statuses.build(
            self._spec,
            self.snapshot(),
            self._problems,
            previous=self._writer.written,
            totals=self._supervisor.totals,
            generation=self._body["metadata"].get("generation") or 0,
            applied=self._applied,
            name=self.name,
            now=datetime.now(UTC),
        )
        await self._writer.write(status, last=last)

    async def _publish_if_possible(self, *, last: bool = False) -> None:
        """For the end, which does not wait for an API server that is away."""
        try:
            await self._publish(last=last)
        except Exception as error:
            log.warning("%s: the status could not be written: %s", self._group, error)

    def _interval(self) -> float:
        """Seconds until the next reconciliation if nothing wakes the runner earlier."""
        snapshot, problems = self.snapshot(), self._problems
        troubled = problems.secret or problems.failure
        waiting = snapshot is None or troubled or snapshot.queue.is_down or snapshot.journal.is_down
        return RETRY_SECONDS if waiting else HEARTBEAT_SECONDS
