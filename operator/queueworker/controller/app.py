"""The operator's life: wait for the Lease, route while leading, drain at the end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from queueworker.controller.cluster import Cluster
from queueworker.controller.leadership import Elector
from queueworker.controller.term import Term
from queueworker.web.source import LeaseChange

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from queueworker.controller.options import OperatorOptions
    from queueworker.controller.registry import Registry
    from queueworker.controller.supervisor import RouterFactory

log = logging.getLogger(__name__)


async def run_operator(
    options: OperatorOptions,
    registry: Registry,
    stop: asyncio.Event,
    claim_signals: Callable[[], None],
    routers: RouterFactory,
) -> None:
    """Return once `stop` is set and every router has drained.

    kopf installs its own signal handlers whenever it starts. `claim_signals` is called afterwards to replace them,
    because a SIGTERM has to drain the routers.
    """
    async with Cluster(registry.mark_alive, registry.count_api_error, in_pod=options.in_pod) as cluster:
        elector = Elector(
            cluster,
            options.lease_namespace,
            options.lease_name,
            options.identity,
            rivals=registry.has_rivals,
            on_holder=registry.see_leader,
            on_refusal=registry.see_lease_refusal,
            address=options.address,
        )
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            log.info("standing by for the Lease %s/%s", options.lease_namespace, options.lease_name)
            if not await _first(elector.acquire(), stopping):
                await elector.release()  # it may have been acquired in this very moment
                break
            log.info("leading as %s", options.identity)
            registry.leading = True
            registry.count_lease_change(LeaseChange.ACQUIRED)
            lost = asyncio.create_task(elector.lost.wait())
            term = Term(options, registry, cluster, claim_signals, routers)
            try:
                await term.route(lost, stopping)
            finally:
                lost.cancel()
                registry.leading = False
                registry.count_lease_change(LeaseChange.LOST if elector.lost.is_set() else LeaseChange.RELEASED)
                # The next leader starts while we drain: it counts the slots that we still hold as taken.
                await asyncio.gather(term.drain(), elector.release())
        stopping.cancel()


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
