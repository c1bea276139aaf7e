"""The worker process: one router without Kubernetes, in place of the legacy worker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from queueworker.processes.memory import memory_budget
from queueworker.processes.signals import StopSignals
from queueworker.processes.tracing_settings import tracing
from queueworker.processes.worker_source import WorkerSource
from queueworker.resource.warnings import warnings
from queueworker.routing.config import static_endpoints
from queueworker.routing.router import Router
from queueworker.web.app import Mode, create_app
from queueworker.web.loop_lag import LoopLag
from queueworker.web.server import serve

if TYPE_CHECKING:
    from queueworker.processes.environment import WorkerSettings
    from queueworker.routing.tracer import Tracer

log = logging.getLogger(__name__)


async def run_worker(settings: WorkerSettings) -> None:
    """Route until SIGTERM, SIGINT or SIGHUP, then drain. Raises CannotListen, and any error that breaks the router."""
    async with tracing(settings.tracing, "queueworker", settings.process.worker_id) as tracer:
        await _run(settings, tracer)


async def _run(settings: WorkerSettings, tracer: Tracer | None) -> None:
    process, config = settings.process, settings.config
    endpoints = static_endpoints(config.spec)
    assert endpoints is not None
    budget = memory_budget(process.memory_budget_mebibytes)

    def on_transition() -> None:
        source.observe()

    router = Router(
        config, endpoints, worker_id=process.worker_id, on_transition=on_transition, budget=budget, tracer=tracer
    )
    source = WorkerSource(config, router.snapshot)

    def on_stop(name: str) -> None:
        log.info("received %s: draining for at most %d s", name, config.spec.routing.drain_seconds)
        source.stopping = True

    with StopSignals(on_stop) as signals, LoopLag() as lag:
        app = create_app(source, Mode.WORKER, settings.web, lag, tracer.counts if tracer else None)
        async with serve(app, process.host, process.port):
            for note in (*settings.notes, *warnings(config.spec)):
                log.warning(note)
            log.info(
                "worker %s of group %s routes from %s to %d executors; strategy: %s",
                process.worker_id,
                config.group,
                config.spec.queue.url,
                len(endpoints),
                config.spec.routing.strategy,
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
