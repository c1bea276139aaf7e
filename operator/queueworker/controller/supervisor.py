"""Keeps one router running for an object.

A router that ends by itself is restarted. A router that cannot take a change of the configuration (another queue or
another Redis) is drained, and its successor starts with what it could not finish.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from queueworker.routing.aio import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queueworker.controller.status import Totals
    from queueworker.routing.config import Endpoint, RouterConfig
    from queueworker.routing.recovery import Unfinished
    from queueworker.routing.snapshot import Snapshot

log = logging.getLogger(__name__)

RESTART_SECONDS = 5.0
MIN_RECOVERY_SECONDS = 10.0
"""Longer than the lease of a journal, so that what a killed router left is found."""
QUIET_SECONDS = 2.5
"""Longer than a heartbeat: when nothing is in flight for so long, there is nothing left to take over."""
POLL_SECONDS = 0.1


class ObjectRouter(Protocol):
    """The part of `routing.router.Router` that the supervisor uses."""

    async def run(self) -> None: ...
    def serves(self, config: RouterConfig) -> bool: ...
    def apply(self, config: RouterConfig) -> None: ...
    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None: ...
    async def stop(self, *, final: bool = False) -> None: ...
    async def drain(self, successor: RouterConfig) -> Unfinished: ...
    def snapshot(self) -> Snapshot: ...


class RouterFactory(Protocol):
    """The constructor of `Router`, as the supervisor calls it."""

    def __call__(
        self,
        config: RouterConfig,
        endpoints: Sequence[Endpoint],
        *,
        worker_id: str,
        on_transition: Callable[[], None],
        inherited: Unfinished | None,
    ) -> ObjectRouter: ...


class RouterSupervisor:
    """`on_transition` is called whenever the status may have changed. `totals` are the counts of earlier routers."""

    def __init__(
        self,
        worker_id: str,
        on_transition: Callable[[], None],
        totals: Totals,
        *,
        factory: RouterFactory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.totals = totals
        self._worker_id = worker_id
        self._on_transition = on_transition
        self._factory = factory
        self._clock = clock
        self._router: ObjectRouter | None = None
        self._running: asyncio.Task[None] | None = None
        self._wanted: tuple[RouterConfig, Sequence[Endpoint]] | None = None
        self._drain: asyncio.Task[Unfinished] | None = None
        """Not None while the router drains for a successor."""
        self._drain_redis_url = ""
        self._restart_at = float("-inf")
        self._stopping = False

    @property
    def _group(self) -> str:
        return self._wanted[0].group if self._wanted is not None else ""

    def snapshot(self) -> Snapshot | None:
        """The running router's, which may be draining; None while there is no router."""
        return self._router.snapshot() if self._router is not None else None

    @property
    def config(self) -> RouterConfig | None:
        """What the router runs, or is about to run."""
        return self._wanted[0] if self._wanted is not None and self._router is not None else None

    @property
    def is_current(self) -> bool:
        """Whether a router runs what `drive` was last told. It does not while its predecessor drains."""
        return self._router is not None and self._drain is None

    def final_totals(self) -> Totals:
        """With the counts of the router that runs, or ran last."""
        return self.totals if self._router is None else self.totals.plus(self._router.snapshot().counters)

    def drive(self, config: RouterConfig, endpoints: Sequence[Endpoint]) -> None:
        """Make the router follow the configuration: start it, change it, or replace it."""
        if self._stopping:
            return
        self._wanted = (config, endpoints)
        router = self._router
        if router is None:
            if self._clock() >= self._restart_at:
                self._start(config, endpoints, None)
        else:
            if self._drain is not None or not router.serves(config):
                self._drain_for(router, config)
            router.apply(config)
            router.set_endpoints(endpoints)

    async def stop(self, *, final: bool) -> None:
        """Drain the router for at most `drainSeconds`. `final`: the object is deleted, so no router follows."""
        self._stopping = True
        if self._router is None or self._running is None:
            return
        await self._router.stop(final=final)
        await asyncio.wait([self._running])
        unfinished = await self._unfinished()
        if unfinished is not None and not final:
            await self._hand_on(unfinished)

    async def recover(self, config: RouterConfig, endpoints: Sequence[Endpoint]) -> None:
        """Report the tasks that an earlier router left in its journal. `stop` follows. The object is deleted, so
        nothing new is pulled. Ends after `drainSeconds`, but not before a lease of that router has run out.
        """
        self.drive(_suspended(config), endpoints)
        limit = max(config.spec.routing.drain_seconds, MIN_RECOVERY_SECONDS)
        since = done = self._clock()
        while (now := self._clock()) - since < limit and now - done < QUIET_SECONDS:
            if not self._has_recovered():
                done = now
            await asyncio.sleep(POLL_SECONDS)
        self.drive(_without_drain(_suspended(config)), endpoints)

    def _has_recovered(self) -> bool:
        """There is no other router whose journal might be taken over, and nothing is in flight."""
        snapshot = self.snapshot()
        return snapshot is not None and snapshot.journal.ok and not snapshot.rivals and not snapshot.in_flight

    def _start(self, config: RouterConfig, endpoints: Sequence[Endpoint], inherited: Unfinished | None) -> None:
        self._router = self._make(config, endpoints, inherited)
        self._drain = None
        self._running = asyncio.create_task(self._supervise(self._router), name=f"router {config.group}")

    async def _supervise(self, router: ObjectRouter) -> None:
        """The life of one router, from its start to the start of its successor."""
        try:
            await router.run()
        except (Exception, asyncio.CancelledError):
            if is_cancelled():
                raise
            log.exception("%s: the router failed", self._group)
        unfinished = await self._unfinished()
        if self._stopping:
            return
        self.totals = self.totals.plus(router.snapshot().counters)
        self._router = self._running = None
        if self._drain is not None:
            assert self._wanted is not None
            self._start(*self._wanted, unfinished)
        else:
            log.error("%s: the router ended by itself; it is restarted in %.0f s", self._group, RESTART_SECONDS)
            self._restart_at = self._clock() + RESTART_SECONDS
        self._on_transition()

    def _drain_for(self, router: ObjectRouter, successor: RouterConfig) -> None:
        """Drain the router, and tell it if the Redis of its successor changes meanwhile."""
        if self._drain is None:
            log.info("%s: the queue or Redis has changed: draining the router to replace it", self._group)
        elif self._drain_redis_url == successor.redis_url:
            return
        self._drain = asyncio.create_task(router.drain(successor), name=f"drain {successor.group}")
        self._drain_redis_url = successor.redis_url

    async def _unfinished(self) -> Unfinished | None:
        """What the drained router left; None if it was not drained for a successor."""
        if self._drain is None:
            return None
        try:
            return await self._drain
        except Exception:
            log.exception("%s: draining the router failed; its successor finds its tasks in the journal", self._group)
            return None

    async def _hand_on(self, unfinished: Unfinished) -> None:
        """Have a successor write the unfinished tasks to its journal, where the next process finds them."""
        if not unfinished.entries and unfinished.unwritten is None:
            return
        assert self._wanted is not None
        config, _ = self._wanted
        successor = self._make(_without_drain(config), (), unfinished)
        running = asyncio.create_task(successor.run())
        await successor.stop()
        await asyncio.wait([running])
        self.totals = self.totals.plus(successor.snapshot().counters)

    def _make(self, config: RouterConfig, endpoints: Sequence[Endpoint], inherited: Unfinished | None) -> ObjectRouter:
        return self._factory(
            config, endpoints, worker_id=self._worker_id, on_transition=self._on_transition, inherited=inherited
        )


def _suspended(config: RouterConfig) -> RouterConfig:
    return replace(config, spec=config.spec.model_copy(update={"suspend": True}))


def _without_drain(config: RouterConfig) -> RouterConfig:
    routing = config.spec.routing.model_copy(update={"drain_seconds": 0})
    return replace(config, spec=config.spec.model_copy(update={"routing": routing}))
