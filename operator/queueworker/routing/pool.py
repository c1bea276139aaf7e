"""The executor pool: who is in it, who is healthy, who has a free slot, and who gets the next task.

Invariants: in flight on an executor never exceeds its capacity; reserved slots are free slots that a
pull in flight will fill; tasks that wait for a slot come before new pulls.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

import orjson

from queueworker.resource.spec import WhenUnavailable
from queueworker.routing.health import UNHEALTHY_PERIOD_SECONDS, HealthState, period
from queueworker.routing.snapshot import ExecutorSnapshot
from queueworker.routing.strategies import Chooser, chooser
from queueworker.routing.task import excerpt
from queueworker.routing.transport import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.config import Endpoint
    from queueworker.routing.task import Task
    from queueworker.routing.transport import Transport

# How long an executor that answered 429 or 503 is left alone.
REFUSAL_REST_SECONDS = 1.0


class NoExecutors(Exception):
    """No executor was healthy for the whole grace, and the object says `whenUnavailable: Fail`."""

    def __init__(self) -> None:
        super().__init__("No healthy executors available")  # the legacy worker's words


class Executor:
    """One executor as the pool sees it. Times are seconds on the monotonic clock, but for `last_check`."""

    __slots__ = (
        "available", "capacity", "endpoint", "execute_url", "free", "health", "in_flight", "last_check", "last_good",
        "later", "leaving", "listed_at", "name", "probe", "rest", "told_capacity", "watch",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, capacity: int) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.execute_url = f"{endpoint.url}/execute"
        self.capacity = capacity
        self.told_capacity: int | None = None
        self.in_flight = 0
        self.free = 0
        """Its part of the pool's count of free slots."""
        self.health = HealthState()
        self.last_good = float("-inf")
        self.last_check: float | None = None
        self.rest: asyncio.TimerHandle | None = None
        """Ends the moment that it is left alone for, after it refused a task."""
        self.leaving = False
        self.later: bool | None = None
        """Whether it answers `running` and publishes the outcome itself; None until its first answer."""
        self.available = False
        """Healthy, in the pool, not resting, with a free slot: exactly when it is in the pool's list."""
        self.listed_at = -1
        self.probe: asyncio.Task[bool] | None = None
        self.watch: asyncio.Task[None] | None = None


class ExecutorPool:
    """`on_free` is called when a slot came free, `on_change` when an executor's health or membership changed."""

    def __init__(
        self,
        spec: QueueWorkerSpec,
        transport: Transport,
        *,
        rng: Random,
        clock: Callable[[], float],
        on_free: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._health = spec.executors.health_check
        self._transport = transport
        self._rng = rng
        self._clock = clock
        self._on_free = on_free
        self._on_change = on_change
        self._members: dict[Endpoint, Executor] = {}
        self._leaving: dict[Endpoint, Executor] = {}
        self._available: list[Executor] = []
        self._free = 0
        self._reserved = 0
        self._healthy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._chooser = self._make_chooser()

    # --- what it is told

    def apply(self, spec: QueueWorkerSpec) -> None:
        """Take a changed spec: strategy, concurrency and health check act from the next choice on."""
        before, self._spec = self._spec, spec
        self._health = spec.executors.health_check
        if (before.routing.strategy, before.routing.sticky_key) != (
            spec.routing.strategy,
            spec.routing.sticky_key,
        ):
            self._chooser = self._make_chooser()
        for executor in self._all():
            executor.capacity = self._capacity(executor)
            self._refresh(executor)
        self._chooser.members(tuple(self._members.values()))
        if before.executors.health_check != self._health:
            for executor in self._members.values():
                self._watch(executor)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Make the pool hold exactly these. One that leaves gets no new task and finishes what it runs."""
        wanted = dict.fromkeys(endpoints)
        if wanted.keys() == self._members.keys():
            return
        for endpoint in [e for e in self._members if e not in wanted]:
            self._leave(self._members.pop(endpoint))
        for endpoint in wanted:
            if endpoint not in self._members:
                self._join(endpoint)
        self._members = {endpoint: self._members[endpoint] for endpoint in wanted}
        self._chooser.members(tuple(self._members.values()))
        self._wake_waiting()
        self._on_change()

    # --- slots

    @property
    def can_reserve(self) -> bool:
        return self._free - self._reserved - len(self._waiting) > 0

    @property
    def healthy(self) -> int:
        return self._healthy

    def reserve(self) -> None:
        """Hold a free slot for a task that is about to be pulled; ask `can_reserve` first."""
        self._reserved += 1

    def unreserve(self) -> None:
        self._reserved -= 1

    async def acquire(self, task: Task, on_wait: Callable[[], None]) -> Executor:
        """Choose an executor for the task and take one of its slots; `release` gives it back.

        The executor's last good health check is no older than `maxAgeSeconds`. `on_wait` is called
        before the task waits, for a slot or for a check. Raises `NoExecutors`.
        """
        while True:
            waited = not self._available
            if waited:
                on_wait()
                await self._slot()
            executor = self._choose(task)
            executor.in_flight += 1
            executor.free -= 1
            self._free -= 1
            if executor.free <= 0:
                self._refresh(executor)
            if waited and not self._wake_waiting():
                self._on_free()  # what woke us may have freed more slots than ours
            if self.fresh(executor):
                return executor
            on_wait()
            try:
                await self._checked(executor)
            except BaseException:
                self.release(executor)
                raise
            if self.fresh(executor):
                return executor
            self.release(executor)

    def fresh(self, executor: Executor) -> bool:
        """Whether a task may go to it now: in the pool, healthy, and its last good check not too old."""
        age = self._clock() - executor.last_good
        most = self._health.max_age_seconds
        if age > most / 2 and not executor.leaving:
            self.check(executor)  # asked before it is too old, so that no task waits for the answer
        return age <= most and executor.health.healthy and not executor.leaving

    def release(self, executor: Executor) -> None:
        executor.in_flight -= 1
        if executor.leaving:
            if executor.in_flight == 0:
                self._leaving.pop(executor.endpoint, None)
            return
        if executor.available:
            executor.free += 1
            self._free += 1
        else:
            self._refresh(executor)
        if not self._wake_waiting():
            self._on_free()

    # --- health

    def broke(self, executor: Executor, reason: str) -> None:
        """A connection to it failed: it is unhealthy at once, and the next good check brings it back."""
        if executor.health.bad(reason, 1):
            self._flipped(executor)
            self._watch(executor)

    def refused(self, executor: Executor) -> None:
        """It answered that it takes no task now: leave it alone for a moment."""
        if executor.rest is not None:
            executor.rest.cancel()
        # The timer ends the rest, not the clock: a timer may fire a little before its time.
        executor.rest = asyncio.get_running_loop().call_later(REFUSAL_REST_SECONDS, self._rested, executor)
        self._refresh(executor)

    def check(self, executor: Executor) -> asyncio.Task[bool]:
        """Ask it for its health now; many callers share one request. The result: whether the answer was good."""
        if executor.probe is None or executor.probe.done():
            executor.probe = asyncio.create_task(self._probe(executor), name=f"probe {executor.name}")
        return executor.probe

    async def _checked(self, executor: Executor) -> bool:
        """Ask it and wait. Whoever gives up waiting takes the answer from nobody else."""
        return await asyncio.shield(self.check(executor))

    # --- what it shows

    @property
    def knows_all_kinds(self) -> bool:
        """Whether every executor is known to answer with the outcome itself (see `completions`)."""
        return all(executor.later is False for executor in self._members.values())

    def snapshot(self) -> tuple[ExecutorSnapshot, ...]:
        return tuple(
            ExecutorSnapshot(
                name=e.name,
                url=e.endpoint.url,
                healthy=e.health.healthy,
                in_flight=e.in_flight,
                capacity=e.capacity,
                last_check=e.last_check,
                reason=e.health.reason,
                leaving=e.leaving,
            )
            for e in self._all()
        )

    async def close(self) -> None:
        """Stop the health checks."""
        for executor in self._all():
            if executor.rest is not None:
                executor.rest.cancel()
        tasks = [t for e in self._all() for t in (e.watch, e.probe) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside

    def _all(self) -> list[Executor]:
        return [*self._members.values(), *self._leaving.values()]

    def _make_chooser(self) -> Chooser:
        made = chooser(self._spec.routing.strategy, self._spec.routing.sticky_key, self._rng)
        made.members(tuple(self._members.values()))
        return made

    def _capacity(self, executor: Executor) -> int:
        concurrency = self._spec.executors.concurrency
        return concurrency if executor.told_capacity is None else min(concurrency, executor.told_capacity)

    def _choose(self, task: Task) -> Executor:
        chosen = self._chooser.choose(self._available, task)
        assert isinstance(chosen, Executor)
        return chosen

    async def _slot(self) -> None:
        """Wait until an executor is available. Raises `NoExecutors` after the grace with none healthy."""
        while not self._available:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                async with asyncio.timeout(self._patience()):
                    await future
            except TimeoutError:
                if self._healthy == 0 and self._spec.executors.when_unavailable is WhenUnavailable.FAIL:
                    raise NoExecutors from None
            except asyncio.CancelledError:
                if future.done() and not future.cancelled() and not self._wake_waiting():
                    self._on_free()  # the slot that woke us is somebody else's now
                raise
            finally:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(future)

    def _patience(self) -> float | None:
        """Seconds that a task waits before it asks whether any executor is healthy at all."""
        executors = self._spec.executors
        if executors.when_unavailable is WhenUnavailable.HOLD:
            return None
        grace = executors.unavailable_grace_seconds
        return grace if self._healthy == 0 else max(grace, UNHEALTHY_PERIOD_SECONDS)

    def _wake_waiting(self) -> bool:
        """Let one task that waits try for a slot. Returns whether one waits."""
        while self._waiting:
            if not self._available:
                return True
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return True
        return False

    def _join(self, endpoint: Endpoint) -> None:
        executor = self._leaving.pop(endpoint, None)
        if executor is None:
            executor = Executor(endpoint, self._spec.executors.concurrency)
        executor.leaving = False
        self._members[endpoint] = executor
        if executor.health.healthy:
            self._healthy += 1
        self._refresh(executor)
        self._watch(executor)

    def _leave(self, executor: Executor) -> None:
        executor.leaving = True
        if executor.health.healthy:
            self._healthy -= 1
        self._refresh(executor)
        if executor.watch is not None:
            executor.watch.cancel()
        if executor.in_flight:
            self._leaving[executor.endpoint] = executor
        elif executor.probe is not None:
            executor.probe.cancel()

    def _refresh(self, executor: Executor) -> None:
        """Put the executor into the list of the available ones, or take it out; keep the count of free slots."""
        should = (
            executor.health.healthy
            and not executor.leaving
            and executor.in_flight < executor.capacity
            and executor.rest is None
        )
        listed = self._available
        if should and not executor.available:
            executor.listed_at = len(listed)
            listed.append(executor)
        elif executor.available and not should:
            last = listed.pop()
            if last is not executor:
                listed[executor.listed_at] = last
                last.listed_at = executor.listed_at
            executor.listed_at = -1
        executor.available = should
        free = executor.capacity - executor.in_flight if should else 0
        self._free += free - executor.free
        executor.free = free

    def _rested(self, executor: Executor) -> None:
        executor.rest = None
        self._refresh(executor)
        if executor.available and not self._wake_waiting():
            self._on_free()

    def _flipped(self, executor: Executor) -> None:
        if not executor.leaving:
            self._healthy += 1 if executor.health.healthy else -1
        self._refresh(executor)
        self._on_change()
        if executor.available and not self._wake_waiting():
            self._on_free()

    def _watch(self, executor: Executor) -> None:
        if executor.watch is not None:
            executor.watch.cancel()
        executor.watch = asyncio.create_task(self._check_for_ever(executor), name=f"health of {executor.name}")

    async def _check_for_ever(self, executor: Executor) -> None:
        while True:
            await self._checked(executor)
            pause = period(executor.health.healthy, self._health.period_seconds)
            # spread, so that many executors are not all asked in the same moment
            await asyncio.sleep(pause * (0.9 + 0.2 * self._rng.random()))

    async def _probe(self, executor: Executor) -> bool:
        url = executor.endpoint.url + self._health.path
        try:
            status, body = await self._transport.get(url, self._health.timeout_seconds)
        except TransportError as error:
            reason = f"no answer from {error}"
        else:
            reason = "" if status == 200 else f"{url} answered {status}: {excerpt(body)}"
        executor.last_check = time.time()
        if reason:
            if executor.health.bad(reason, self._health.failure_threshold):
                self._flipped(executor)
            return False
        executor.last_good = self._clock()
        if not executor.health.healthy and self._spec.executors.concurrency > 1:
            await self._ask_capacity(executor)
        if executor.health.good(self._health.success_threshold):
            self._flipped(executor)
        return True

    async def _ask_capacity(self, executor: Executor) -> None:
        """`/capacity` is there on some executors: it lowers what `concurrency` allows, and weighs `Weighted`."""
        told: int | None = None
        try:
            status, body = await self._transport.get(f"{executor.endpoint.url}/capacity", self._health.timeout_seconds)
            value = orjson.loads(body).get("max_concurrent") if status == 200 else None
            if isinstance(value, int) and value >= 1:
                told = value
        except (TransportError, orjson.JSONDecodeError, AttributeError):
            pass
        executor.told_capacity = told
        executor.capacity = self._capacity(executor)
        self._refresh(executor)
        self._chooser.members(tuple(self._members.values()))
