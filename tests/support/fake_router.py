"""A router that does as its test says, and a factory that keeps all routers that it made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.routing.counters import Counters
from queueworker.routing.recovery import Unfinished
from queueworker.routing.snapshot import Phase
from tests.support.web_source import executor, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queueworker.routing.config import Endpoint, RouterConfig
    from queueworker.routing.snapshot import Snapshot


class FakeRouter:
    """Ends when the test calls `end`, or at once when it is stopped. A drain waits for the tasks, that is for `end`."""

    def __init__(
        self,
        config: RouterConfig,
        endpoints: Sequence[Endpoint],
        worker_id: str,
        on_transition: Callable[[], None],
        inherited: Unfinished | None,
    ) -> None:
        self.config = config
        self.endpoints = endpoints
        self.worker_id = worker_id
        self.inherited = inherited
        self.counters = Counters()
        self.leaves = Unfinished()
        """Handed to the successor."""
        self.refuses: Exception | None = None
        self.refusals = 0
        """Raised by `apply` while it is set."""
        self.cannot_stop: Exception | None = None
        """Raised by `stop`."""
        self.drained_for: list[RouterConfig] = []
        self.stopped_with: list[bool] = []
        self.phase = Phase.STARTING
        self.in_flight = self.rivals = 0
        self.waits_to_end = False
        """A stop waits for the tasks, too."""
        self._on_transition = on_transition
        self._started = False
        self._ended = asyncio.Event()
        self._stopped = asyncio.Event()
        self._error: BaseException | None = None

    async def run(self) -> None:
        self._started = True
        if self.phase is Phase.STARTING:
            self._become(Phase.ROUTING)
        await self._ended.wait()
        self._become(Phase.STOPPED)
        self._stopped.set()
        if self._error is not None:
            raise self._error

    def end(self, error: BaseException | None = None) -> None:
        """Let `run` return, or fail."""
        self._error = error
        self._ended.set()

    def serves(self, config: RouterConfig) -> bool:
        return config.has_peers_of(self.config)

    def apply(self, config: RouterConfig) -> None:
        if self.refuses is not None:
            self.refusals += 1
            raise self.refuses
        self.config = config.at(self.config)

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints

    async def stop(self, *, final: bool = False) -> None:
        self.stopped_with.append(final)
        self._become(Phase.DRAINING)
        if self.cannot_stop is not None:
            raise self.cannot_stop
        if not self.waits_to_end:
            self._ended.set()
        if self._started:
            await self._stopped.wait()

    async def drain(self, successor: RouterConfig) -> Unfinished:
        self.drained_for.append(successor)
        self._become(Phase.DRAINING)
        await self._stopped.wait()
        return self.leaves

    def snapshot(self) -> Snapshot:
        return snapshot(
            self.config.group,
            phase=self.phase,
            counters=self.counters,
            queue_url=self.config.spec.queue.url,
            in_flight=self.in_flight,
            rivals=self.rivals,
            executors=tuple(executor(i + 1) for i, _ in enumerate(self.endpoints)),
        )

    def _become(self, phase: Phase) -> None:
        self.phase = phase
        self._on_transition()


class FakeRouters:
    """A `RouterFactory`; `made` are its routers, the oldest first."""

    def __init__(self) -> None:
        self.made: list[FakeRouter] = []

    def __call__(
        self,
        config: RouterConfig,
        endpoints: Sequence[Endpoint],
        *,
        worker_id: str,
        on_transition: Callable[[], None],
        inherited: Unfinished | None,
    ) -> FakeRouter:
        router = FakeRouter(config, endpoints, worker_id, on_transition, inherited)
        self.made.append(router)
        return router
