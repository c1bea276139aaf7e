"""The operator's life: wait for the Lease, watch objects and route for them while leading, drain at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import kopf

from queueworker.controller.cluster import FAILED, Cluster
from queueworker.controller.handlers import register, settings
from queueworker.controller.leadership import Elector

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from queueworker.controller.options import OperatorOptions, Registry

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
LIST_PERIOD_SECONDS = 10.0


async def run_operator(
    options: OperatorOptions, registry: Registry, stop: asyncio.Event, claim_signals: Callable[[], None]
) -> None:
    """Return once `stop` is set and every router has drained.

    kopf installs its own signal handlers when it starts. `claim_signals` is called afterwards to replace them, because
    a SIGTERM has to drain the routers before kopf stops.
    """
    async with Cluster(registry.mark_alive, in_pod=options.in_pod) as cluster:
        elector = Elector(
            *(cluster, options.lease_namespace, options.lease_name, options.identity), rivals=registry.has_rivals
        )
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            log.info("standing by for the Lease %s/%s", options.lease_namespace, options.lease_name)
            if not await _first(elector.acquire(), stopping):
                break
            log.info("leading as %s", options.identity)
            registry.leading = True
            try:
                await _lead(options, registry, cluster, elector, stopping, claim_signals)
            finally:
                registry.leading = registry.watching = False
                await elector.release()
        stopping.cancel()


async def _lead(
    options: OperatorOptions,
    registry: Registry,
    cluster: Cluster,
    elector: Elector,
    stopping: asyncio.Task[Any],
    claim_signals: Callable[[], None],
) -> None:
    """One term: from the acquisition of the Lease until the routers have drained, after a stop or a lost Lease."""
    lost = asyncio.create_task(elector.lost.wait())
    watching = asyncio.create_task(_wait_for_resource(cluster, options.namespaces))
    await asyncio.wait([watching, lost, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not watching.done() or lost.done() or stopping.done():
        watching.cancel()
        lost.cancel()
        return
    kopf_registry = kopf.OperatorRegistry()
    register(kopf_registry, registry, cluster, options.identity)
    stop_kopf = asyncio.Event()
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=kopf_registry,
        settings=settings(),
        namespaces=options.namespaces,
        clusterwide=not options.namespaces,
        standalone=True,
        stop_flag=stop_kopf,
    )
    claim_signals()
    registry.watching = True
    running = asyncio.create_task(kopf.run_tasks(tasks, ignored=others))
    listing = asyncio.create_task(_list_regularly(cluster, options.namespaces))
    try:
        await asyncio.wait([running, lost, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        registry.stopping = stopping.done()
        log.info("draining %d routers", len(registry.runners))
        drains = [asyncio.create_task(r.stop(final=False)) for r in list(registry.runners.values())]
        if drains:
            await asyncio.wait(drains)
        listing.cancel()
        lost.cancel()
        stop_kopf.set()
        await asyncio.gather(running, return_exceptions=True)


async def _first(work: Coroutine[Any, Any, None], stopping: asyncio.Task[Any]) -> bool:
    """Do the work unless `stopping` ends first. Returns True if the work was done and `stopping` has not ended."""
    task = asyncio.create_task(work)
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
    await task
    return not stopping.done()


async def _wait_for_resource(cluster: Cluster, namespaces: tuple[str, ...]) -> None:
    """Wait until QueueWorkers can be listed, and log the reason while they cannot: kopf looks for the CRD only once."""
    logged = ""
    while True:
        try:
            await cluster.can_watch(namespaces)
        except FAILED as error:
            text = f"{getattr(error, 'status', '')} {getattr(error, 'reason', error)}".strip()
            if text != logged:
                logged = text
                log.warning(
                    "QueueWorkers cannot be listed (%s): check that the CRD is installed and the role is bound", text
                )
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


async def _list_regularly(cluster: Cluster, namespaces: tuple[str, ...]) -> None:
    """Repeat the watch's list request, so that `/readyz` knows whether the API server still answers it."""
    while True:
        await asyncio.sleep(LIST_PERIOD_SECONDS)
        with contextlib.suppress(*FAILED):
            await cluster.can_watch(namespaces)
