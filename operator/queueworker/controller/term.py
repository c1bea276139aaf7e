"""One term of leadership: watches bring the objects, runners route for them.

It ends with a stop or with the Lease, and not with a watch: what the API server does has no end of its own here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import FAILED
from queueworker.controller.discovery import Slices
from queueworker.controller.kinds import ENDPOINT_SLICES, PODS, QUEUE_WORKERS, STATEFUL_SETS
from queueworker.controller.managed_pool.observed import PoolObjects
from queueworker.controller.objects import Objects
from queueworker.controller.posting import EventPoster, ObjectName
from queueworker.controller.runner import ObjectRunner
from queueworker.controller.watches import Watch
from queueworker.routing.aio import cancelled, happens

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.events import ObjectEvent
    from queueworker.controller.kinds import Kind
    from queueworker.controller.options import OperatorOptions
    from queueworker.controller.registry import Registry
    from queueworker.controller.supervisor import RouterFactory
    from queueworker.controller.watches import Body, Follower, Key

log = logging.getLogger(__name__)

FIRST_SLICES_SECONDS = 10.0
"""Time for the first list of EndpointSlices, before that of the objects."""
CRD_SECONDS = 10.0
"""Interval of the look at the CRD."""


class Term:
    """Use `route` and then `drain`, once."""

    def __init__(
        self,
        options: OperatorOptions,
        registry: Registry,
        cluster: Cluster,
        claim_signals: Callable[[], None],
        routers: RouterFactory,
    ) -> None:
        self._registry = registry
        self._cluster = cluster
        self._identity = options.identity
        self._routers = routers
        self._poster = EventPoster(cluster, options.identity)
        self._slices = Slices(self._slices_changed)
        self._objects = Objects(registry, self._make)
        self._tasks: list[asyncio.Task[None]] = []
        where = options.namespaces or ("",)
        self._slice_watches = [Watch(ENDPOINT_SLICES, n, cluster, self._slices, claim_signals) for n in where]
        self._pool_objects = PoolObjects(self._pool_changed) if options.managed_pools else None
        self._pool_watches = [
            Watch(kind, n, cluster, follower, claim_signals)
            for kind, follower in self._pool_followers().items()
            for n in where
        ]
        self._object_watches = [Watch(QUEUE_WORKERS, n, cluster, self._objects, claim_signals) for n in where]

    async def route(self, *ends: asyncio.Task[Any]) -> None:
        """Return when one of `ends` is done. `drain` follows."""
        self._registry.watches = [*self._object_watches, *self._slice_watches, *self._pool_watches]
        self._tasks = [
            asyncio.create_task(self._poster.run(), name="Kubernetes Events"),
            asyncio.create_task(self._follow_crd(), name="CRD"),
            *(asyncio.create_task(watch.run()) for watch in (*self._slice_watches, *self._pool_watches)),
            *map(asyncio.create_task, map(self._watch_after, self._object_watches, self._slice_watches)),
        ]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    async def drain(self) -> None:
        """Return when all routers have drained, and nothing of the term is left."""
        log.info("draining %d routers", len(self._registry.runners))
        poster, *watches = self._tasks
        await asyncio.gather(self._objects.close(), cancelled(*watches))
        await cancelled(poster)
        self._registry.watches = ()
        self._registry.present.clear()

    async def _watch_after(self, objects: Watch, slices: Watch) -> None:
        """Watch objects once the slices of their namespace are known, or it is known that they cannot be watched."""
        await happens(slices.tried, FIRST_SLICES_SECONDS)
        await objects.run()

    async def _follow_crd(self) -> None:
        """Have the objects watched anew when the CRD was replaced. Without the right to see it, their lists must do."""
        known = ""
        while True:
            try:
                uid = await self._cluster.crd_uid()
            except FAILED as error:
                if isinstance(error, ApiException) and error.status == 403:
                    log.warning("whether the CRD is replaced cannot be seen: allow get on its customresourcedefinition")
                    return
            else:
                if known not in {"", uid}:
                    log.warning("the CRD was replaced: watching its objects anew")
                    for watch in self._object_watches:
                        watch.restart()
                known = uid
            await asyncio.sleep(CRD_SECONDS)

    def _make(self, body: Body) -> ObjectRunner:
        metadata = body["metadata"]
        about = ObjectName(metadata["namespace"], metadata["name"], metadata.get("uid") or "")

        def announce(event: ObjectEvent) -> None:
            self._poster.post(about, event)

        return ObjectRunner(
            body,
            self._cluster,
            self._slices,
            self._identity,
            announce,
            factory=self._routers,
            pool_objects=self._pool_objects,
        )

    def _pool_followers(self) -> dict[Kind, Follower]:
        pools = self._pool_objects
        return {} if pools is None else {STATEFUL_SETS: pools.stateful_sets, PODS: pools.pods}

    def _slices_changed(self, namespace: str) -> None:
        for (where, _), runner in self._registry.runners.items():
            if namespace in {"", where}:
                runner.surroundings_changed()

    def _pool_changed(self, owner: Key) -> None:
        """The name is empty if all objects of the namespace may be meant, the namespace if all of the cluster."""
        for (namespace, name), runner in self._registry.runners.items():
            if owner[0] in {"", namespace} and owner[1] in {"", name}:
                runner.surroundings_changed()
