"""Probes executors for their health and capacity: once a period, and whenever the pool needs to know now.

`HealthState` says what follows: thresholds over the checks, as a value without a clock or a socket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queueworker.resource.executors_spec import MAX_CONCURRENCY, ExecutorsSpec
from queueworker.routing.aio import cancelled
from queueworker.routing.http.transport import TimedOut, TooLarge, Transport, TransportError
from queueworker.routing.wire.reading import describe, excerpt, read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.limits import Limits

log = logging.getLogger(__name__)

CAPACITY_RETRY_SECONDS = 30.0
"""Time to the next question for a capacity that was not answered: each may take as long as a check's timeout."""
# Answers of a server that is not up yet, or of a gateway in front of it. Others say that there is no such call.
_NO_WORD_ON_CAPACITY = frozenset({408, 425, 429, *range(500, 600)}) - {501}

# An unhealthy executor is checked at least this often, so that it is back in the pool within two seconds.
UNHEALTHY_PERIOD_SECONDS = 1.0


@dataclass(slots=True)
class HealthState:
    """Consecutive results of one executor's checks."""

    passing: bool = False
    """They say that it is well; False before the first one. (`Executor.healthy`: and it is not ejected.)"""
    successes: int = 0
    failures: int = 0
    reason: str = "not checked yet"
    """Why it is not passing; empty when it is."""
    was_passing: bool = False
    """Until it was passing once, a single success is enough, whatever the success threshold."""

    def succeeded(self, success_threshold: int) -> bool:
        """Record a check that succeeded. Returns whether `passing` changed."""
        self.successes += 1
        self.failures = 0
        if self.passing or (self.was_passing and self.successes < success_threshold):
            return False
        self.passing = self.was_passing = True
        self.reason = ""
        return True

    def failed(self, reason: str, failure_threshold: int) -> bool:
        """Record a check that failed. Returns whether `passing` changed."""
        self.failures += 1
        self.successes = 0
        if not self.passing:
            self.reason = reason
            return False
        if self.failures < failure_threshold:
            return False
        self.passing = False
        self.reason = reason
        return True


def period(healthy: bool, period_seconds: float) -> float:
    """Seconds until the next check."""
    return period_seconds if healthy else min(period_seconds, UNHEALTHY_PERIOD_SECONDS)


class HealthChecks:
    """Calls `on_flip` when an executor became healthy or unhealthy, and `on_capacity` after asking for its capacity.

    A check that times out while the executor runs a task is no failed one: `on_silence` is called, and `on_answer` with
    the next answer.

    The owner sets `spec` when it changes.
    """

    def __init__(
        self,
        spec: ExecutorsSpec,
        transport: Transport,
        *,
        rng: Random,
        clock: Callable[[], float],
        limits: Limits,
        on_flip: Callable[[Executor], None],
        on_silence: Callable[[Executor], None],
        on_answer: Callable[[Executor], None],
        on_capacity: Callable[[Executor], None],
    ) -> None:
        self.spec = spec
        self._transport = transport
        self._rng = rng
        self._clock = clock
        self._max_body_bytes = limits.max_small_body_bytes
        self._on_flip = on_flip
        self._on_silence = on_silence
        self._on_answer = on_answer
        self._on_capacity = on_capacity

    def check(self, executor: Executor) -> asyncio.Task[bool]:
        """Probe the executor now; concurrent callers share one probe. The result: whether the check succeeded."""
        if executor.probe is None or executor.probe.done():
            executor.probe = asyncio.create_task(self._probe(executor), name=f"probe {executor.name}")
        return executor.probe

    async def wait_for_check(self, executor: Executor) -> bool:
        """Probe the executor now and wait. Cancelling one caller leaves the probe to the others."""
        return await asyncio.shield(self.check(executor))

    def start(self, executor: Executor) -> None:
        """Probe the executor now, and then once a period until `stop`."""
        self.stop(executor)
        executor.health_loop = asyncio.create_task(self._check_forever(executor), name=f"health of {executor.name}")

    def stop(self, executor: Executor) -> None:
        if executor.health_loop is not None:
            executor.health_loop.cancel()

    async def close(self, executors: Iterable[Executor]) -> None:
        """Stop all checks of these executors."""
        tasks = [task for e in executors for task in (e.health_loop, e.probe) if task is not None]
        await cancelled(*tasks)

    async def _check_forever(self, executor: Executor) -> None:
        while True:
            try:
                await self.wait_for_check(executor)
            except Exception:
                log.exception("a health check of %s met a defect of the router", executor.name)
            in_use = executor.health.passing and (executor.running > 0 or not executor.silent)
            pause = period(in_use, self.spec.health_check.period_seconds)
            # Jitter, so that many executors are not probed at the same moment.
            await asyncio.sleep(pause * (0.9 + 0.2 * self._rng.random()))

    async def _probe(self, executor: Executor) -> bool:
        check = self.spec.health_check
        was_running = executor.running
        try:
            reason = await self._ask_health(executor.endpoint.url + check.path, check.timeout_seconds)
        except TimedOut as error:
            if was_running or executor.running:
                self._on_silence(executor)
                return False  # no failed check: it may answer one request at a time, and is at work
            reason = f"no answer from {error}"
        executor.last_check = time.time()
        if executor.silent:
            self._on_answer(executor)
        if reason:
            if executor.health.passing:
                executor.record_failure(reason)
            if executor.health.failed(reason, check.failure_threshold):
                self._on_flip(executor)
            return False
        executor.last_success = self._clock()
        # With one slot, or before the executor can get a task, the capacity is of no use.
        unknown = executor.advertised_capacity is None and self._clock() >= executor.capacity_due
        if (unknown or not executor.health.passing) and self.spec.concurrency != 1:
            await self._ask_capacity(executor)
        if executor.health.succeeded(check.success_threshold):
            self._on_flip(executor)
        return True

    async def _ask_health(self, url: str, timeout: float) -> str:
        """Why the check failed; empty when it succeeded. Raises `TimedOut`."""
        try:
            status, body = await self._transport.get(url, timeout, limit=self._max_body_bytes)
        except TooLarge as error:
            status, body = error.status, b""  # only the status counts
        except TimedOut:
            raise
        except TransportError as error:
            return f"no answer from {error}"
        if status == 200:
            return ""
        log.debug("%s answered %d: %s", url, status, excerpt(body))
        return f"{url} answered {status} ({describe(body)})"

    async def _ask_capacity(self, executor: Executor) -> None:
        """Only some executors have `/capacity`. It is their number of slots, or lowers what `concurrency` allows."""
        url = f"{executor.endpoint.url}/capacity"
        timeout = self.spec.health_check.timeout_seconds
        capacity: int | None = None
        try:
            status, body = await self._transport.get(url, timeout, limit=self._max_body_bytes)
            if status not in _NO_WORD_ON_CAPACITY:
                capacity = _capacity(body) if status == 200 else 0
        except TooLarge:
            capacity = 0
        except TransportError:
            pass
        if capacity is None:
            executor.capacity_due = self._clock() + CAPACITY_RETRY_SECONDS
        executor.advertised_capacity = capacity
        self._on_capacity(executor)


def _capacity(body: bytes) -> int:
    """`max_concurrent` of an answer to `/capacity`; 0 when it does not say."""
    value = (read_object(body) or {}).get("max_concurrent")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return 0
    return int(min(max(value, 0), MAX_CONCURRENCY))
