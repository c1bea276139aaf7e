"""The worker process: one router without Kubernetes, in place of the legacy worker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from queueworker.processes.memory import memory_budget
from queueworker.processes.signals import StopSignals
from queueworker.routing.config import static_endpoints
from queueworker.routing.router import Router
from queueworker.routing.snapshot import Phase, Snapshot
from queueworker.web.app import Mode, create_app
from queueworker.web.server import serve

if TYPE_CHECKING:
    from queueworker.processes.environment import WorkerSettings

log = logging.getLogger(__name__)


class WorkerSource:
    """The state of the worker for its HTTP API."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.stopping = False

    def snapshots(self) -> tuple[Snapshot, ...]:
        return (self._router.snapshot(),)

    def live(self) -> tuple[bool, str]:
        """Not alive when the router is stalled: a restart loses nothing, and is the last way out."""
        stalled = self._router.snapshot().stalled
        return not stalled, f"stalled: {stalled}" if stalled else "the worker runs"

    def ready(self) -> tuple[bool, str]:
        """Independent of queue, Redis and executors: the worker waits for them as long as it takes."""
        phase = self._router.snapshot().phase
        if self.stopping:
            return False, "the worker was told to stop and is draining"
        if phase in {Phase.STARTING, Phase.STOPPED}:
            return False, f"the router is {phase.lower()}"
        return True, f"the router is {phase.lower()}"

    def operator(self) -> None:
        """There is no operator."""


async def run_worker(settings: WorkerSettings) -> None:
    """Route until SIGTERM or SIGINT, then drain. Raises CannotListen, and any error that breaks the router."""
    process, config = settings.process, settings.config
    endpoints = static_endpoints(config.spec)
    assert endpoints is not None
    budget = memory_budget(process.memory_budget_mebibytes)
    router = Router(config, endpoints, worker_id=process.worker_id, budget=budget)
    source = WorkerSource(router)

    def on_stop(name: str) -> None:
        log.info("received %s: draining for at most %d s", name, config.spec.routing.drain_seconds)
        source.stopping = True

    with StopSignals(on_stop) as signals:
        async with serve(create_app(source, Mode.WORKER), process.host, process.port):
            for note in settings.notes:
                log.warning(note)
            log.info(
                "worker %s of group %s routes from %s to %d executors; strategy: %s",
                *(process.worker_id, config.group, config.spec.queue.url, len(endpoints), config.spec.routing.strategy),
            )
            await _route(router, signals.stopped)
            log.info("stopped; %d tasks were routed", router.snapshot().counters.routed)


async def _route(router: Router, stop: asyncio.Event) -> None:
    """Run the router until `stop` is set and it has drained. Raises the error of a router that breaks."""
    routing = asyncio.create_task(router.run(), name="router")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({routing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not routing.done():
        await router.stop()
    await routing
