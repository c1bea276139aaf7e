"""Asks executors for their health, and for their capacity: once a period, and whenever somebody wants to know now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import orjson

from queueworker.routing.executors.health import period
from queueworker.routing.http.transport import TransportError
from queueworker.routing.wire.task import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from queueworker.resource.spec import ExecutorsSpec
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.http.transport import Transport


class Probes:
    """`on_flip` is called when an executor became healthy or unhealthy, `on_capacity` when it told its capacity."""

    def __init__(
        self,
        spec: ExecutorsSpec,
        transport: Transport,
        *,
        rng: Random,
        clock: Callable[[], float],
        on_flip: Callable[[Executor], None],
        on_capacity: Callable[[Executor], None],
    ) -> None:
        self.spec = spec
        self._transport = transport
        self._rng = rng
        self._clock = clock
        self._on_flip = on_flip
        self._on_capacity = on_capacity

    def check(self, executor: Executor) -> asyncio.Task[bool]:
        """Ask it for its health now; many callers share one request. The result: whether the answer was good."""
        if executor.probe is None or executor.probe.done():
            executor.probe = asyncio.create_task(self._probe(executor), name=f"probe {executor.name}")
        return executor.probe

    async def checked(self, executor: Executor) -> bool:
        """Ask it and wait. Whoever gives up waiting takes the answer from nobody else."""
        return await asyncio.shield(self.check(executor))

    def watch(self, executor: Executor) -> None:
        """Ask it now, and then once a period."""
        if executor.watch is not None:
            executor.watch.cancel()
        executor.watch = asyncio.create_task(self._check_for_ever(executor), name=f"health of {executor.name}")

    async def _check_for_ever(self, executor: Executor) -> None:
        while True:
            await self.checked(executor)
            pause = period(executor.health.healthy, self.spec.health_check.period_seconds)
            # spread, so that many executors are not all asked in the same moment
            await asyncio.sleep(pause * (0.9 + 0.2 * self._rng.random()))

    async def _probe(self, executor: Executor) -> bool:
        check = self.spec.health_check
        url = executor.endpoint.url + check.path
        try:
            status, body = await self._transport.get(url, check.timeout_seconds)
        except TransportError as error:
            reason = f"no answer from {error}"
        else:
            reason = "" if status == 200 else f"{url} answered {status}: {excerpt(body)}"
        executor.last_check = time.time()
        if reason:
            if executor.health.bad(reason, check.failure_threshold):
                self._on_flip(executor)
            return False
        executor.last_good = self._clock()
        if not executor.health.healthy and self.spec.concurrency > 1:
            await self._ask_capacity(executor)
        if executor.health.good(check.success_threshold):
            self._on_flip(executor)
        return True

    async def _ask_capacity(self, executor: Executor) -> None:
        """`/capacity` is there on some executors: it lowers what `concurrency` allows, and weighs `Weighted`."""
        told: int | None = None
        url = f"{executor.endpoint.url}/capacity"
        try:
            status, body = await self._transport.get(url, self.spec.health_check.timeout_seconds)
            value = orjson.loads(body).get("max_concurrent") if status == 200 else None
            if isinstance(value, int) and value >= 1:
                told = value
        except (TransportError, orjson.JSONDecodeError, AttributeError):
            pass
        executor.told_capacity = told
        self._on_capacity(executor)
