"""One QueueWorker object: its router, kept equal to its spec, and its status, kept equal to its router."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from queueworker.controller import discovery
from queueworker.controller import status as statuses
from queueworker.controller.cluster import FAILED, UNREACHABLE, SecretNotFound
from queueworker.controller.conditions import Problems
from queueworker.controller.events import events_for
from queueworker.controller.status import Totals
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import RouterConfig, static_endpoints
from queueworker.routing.router import Router
from queueworker.routing.snapshot import LinkReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.discovery import Slices
    from queueworker.resource.spec import SecretKeyRef
    from queueworker.routing.config import Endpoint
    from queueworker.routing.snapshot import Snapshot

log = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
SECRET_RETRY_SECONDS = 2.0
RESTART_SECONDS = 5.0
# Status is written at once when something changed, but not more often than this.
QUIET_SECONDS = 0.5


class ObjectRunner:
    """Runs from the object's first appearance to its deletion, or to the operator's end."""

    def __init__(
        self, body: Mapping[str, Any], cluster: Cluster, slices: Slices, identity: str, announce: Callable[..., None]
    ) -> None:
        meta = body["metadata"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self._body = body
        self._cluster = cluster
        self._slices = slices
        self._identity = identity
        self._announce = announce
        self._wake = asyncio.Event()
        self._router: Router | None = None
        self._running: asyncio.Task[None] | None = None
        self._restart_at = 0.0
        self._spec: QueueWorkerSpec | None = None
        self._problems = Problems()
        self._secrets: dict[SecretKeyRef, str] = {}
        self._secrets_read_at = float("-inf")
        self._written = statuses.read(body.get("status") or {})
        self._written_at = float("-inf")
        self._totals = Totals.of(self._written.tasks)
        self._stopping = False
        self.stopped = asyncio.Event()

    # --- what happens to it

    def observe(self, body: Mapping[str, Any]) -> None:
        """The object as the API server has it now."""
        self._body = body
        self._wake.set()

    def endpoints_changed(self) -> None:
        self._wake.set()

    def snapshot(self) -> Snapshot | None:
        return self._router.snapshot() if self._router is not None else None

    async def run(self) -> None:
        """Until `stop`. Whatever fails here is logged and tried again: the router goes on meanwhile."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self._reconcile()
                await self._publish()
            except UNREACHABLE as error:
                log.warning("%s/%s: the API server cannot be reached: %s", self.namespace, self.name, error)
            except Exception:
                log.exception("%s/%s: reconciling failed; it is tried again", self.namespace, self.name)
            await asyncio.sleep(QUIET_SECONDS if self._router is not None else 0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._next())
        await self.stopped.wait()

    async def stop(self, *, final: bool) -> None:
        """Drain the router; `final` when the object is deleted and nobody comes after."""
        if not self._stopping:
            self._stopping = True
            self._wake.set()
            if self._router is not None:
                stopping = asyncio.create_task(self._router.stop(final=final))
                with contextlib.suppress(*FAILED):
                    await self._publish()
                await stopping
            if self._running is not None:
                await asyncio.wait([self._running])
            if not final:
                with contextlib.suppress(*FAILED):
                    await self._publish()
            self.stopped.set()
        await self.stopped.wait()

    # --- from spec to router

    async def _reconcile(self) -> None:
        try:
            spec = QueueWorkerSpec.model_validate(self._body.get("spec") or {})
        except ValidationError as error:
            text = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            self._problems = Problems(spec=text)
            return
        self._spec = spec
        queue_key, queue_problem = await self._secret(spec.queue.api_key_secret_ref)
        redis_url, redis_problem = await self._secret(spec.events.redis_url_secret_ref)
        endpoints, discovery_problem = self._endpoints(spec)
        self._problems = Problems(queue_secret=queue_problem, redis_secret=redis_problem, discovery=discovery_problem)
        if queue_problem or redis_problem:
            return
        config = RouterConfig(
            f"{self.namespace}/{self.name}", spec, redis_url or spec.events.effective_redis_url, queue_key
        )
        self._drive(config, endpoints)

    def _drive(self, config: RouterConfig, endpoints: Sequence[Endpoint]) -> None:
        if self._running is not None and self._running.done():
            error = None if self._running.cancelled() else self._running.exception()
            log.error("%s/%s: the router ended; it is started again", self.namespace, self.name, exc_info=error)
            if self._router is not None:
                self._totals = self._totals.plus(self._router.snapshot().counters)
            self._router = self._running = None
            self._restart_at = time.monotonic() + RESTART_SECONDS
        if self._router is None:
            if time.monotonic() < self._restart_at or self._stopping:
                return
            self._router = Router(config, endpoints, worker_id=self._identity, on_transition=self._wake.set)
            self._running = asyncio.create_task(self._router.run(), name=f"router {config.group}")
            self._running.add_done_callback(lambda _: self._wake.set())
        else:
            self._router.apply(config)
            self._router.set_endpoints(endpoints)

    def _endpoints(self, spec: QueueWorkerSpec) -> tuple[Sequence[Endpoint], str]:
        static = static_endpoints(spec)
        if static is not None:
            return static, ""
        service = spec.executors.service
        assert service is not None
        slices = self._slices.of(self.namespace, service.name)
        found = discovery.endpoints(service, slices)
        if found:
            return found, ""
        where = f"Service {self.namespace}/{service.name}"
        if not slices:
            return [], f"{where} has no EndpointSlices: does it exist, and does its selector match any pods?"
        return [], f"{where} has no ready endpoint with a port {service.port!r}"

    # --- Secrets: read when needed, and again when refused

    async def _secret(self, ref: SecretKeyRef | None) -> tuple[str | None, str]:
        """The value, or a sentence that says why there is none."""
        if ref is None:
            return None, ""
        if ref in self._secrets and not self._refused():
            return self._secrets[ref], ""
        try:
            value = await self._cluster.secret(self.namespace, ref)
        except SecretNotFound as error:
            return self._secrets.get(ref), "" if ref in self._secrets else str(error)
        self._secrets[ref] = value
        return value, ""

    def _refused(self) -> bool:
        """Whether a peer refuses what the Secrets said, as of some time ago: they may have changed."""
        snapshot = self.snapshot()
        if snapshot is None:
            return False
        refused = LinkReason.AUTHENTICATION_FAILED in {snapshot.queue.reason, snapshot.journal.reason}
        return refused and self._next() <= SECRET_RETRY_SECONDS

    def _next(self) -> float:
        """Seconds until the next round, when nothing wakes it before."""
        snapshot = self.snapshot()
        refused = snapshot is not None and LinkReason.AUTHENTICATION_FAILED in {
            snapshot.queue.reason,
            snapshot.journal.reason,
        }
        waiting = self._router is None or self._problems.queue_secret or self._problems.redis_secret
        return SECRET_RETRY_SECONDS if refused or waiting else BEAT_SECONDS

    # --- from router to status

    async def _publish(self) -> None:
        """Write status: at once on a transition, else on the beat, and only what differs."""
        now = datetime.now(UTC)
        status = statuses.build(
            self._spec,
            self.snapshot(),
            self._problems,
            previous=self._written,
            totals=self._totals,
            generation=self._body["metadata"].get("generation") or 0,
            name=self.name,
            now=now,
        )
        if status == self._written:
            return
        due = time.monotonic() - self._written_at >= BEAT_SECONDS - QUIET_SECONDS
        if not due and statuses.transition(status) == statuses.transition(self._written):
            return
        try:
            await self._cluster.patch_status(self.namespace, self.name, statuses.merge_patch(status))
        except FAILED as error:
            if getattr(error, "status", None) == 404:
                return  # deleted in the meantime
            raise
        for event in events_for(self._written, status):
            self._announce(*event)
        self._written = status
        self._written_at = time.monotonic()
