"""The executor pool: who is in it, who is healthy, who has a free slot, and who gets the next task.

Invariants: in flight on an executor never exceeds its capacity; reserved slots are free slots that a
pull in flight will fill; tasks that wait for a slot come before new pulls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from queueworker.resource.spec import WhenUnavailable
from queueworker.routing.counters import Counters
from queueworker.routing.executors import outliers, slow_start
from queueworker.routing.executors.executor import Executor
from queueworker.routing.executors.health import UNHEALTHY_PERIOD_SECONDS
from queueworker.routing.executors.health_checks import Probes
from queueworker.routing.executors.strategies import Chooser, chooser
from queueworker.routing.snapshot import ExecutorSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.config import Endpoint
    from queueworker.routing.http.transport import Transport
    from queueworker.routing.wire.task import Task

# How long an executor that answered 429 or 503 is left alone.
REFUSAL_REST_SECONDS = 1.0
# How much the newest task counts in what a task usually takes.
USUAL_WEIGHT = 0.05


class NoExecutors(Exception):
    """No executor was healthy for the whole grace, and the object says `whenUnavailable: Fail`."""

    def __init__(self) -> None:
        super().__init__("No healthy executors available")  # the legacy worker's words


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
        counters: Counters | None = None,
    ) -> None:
        self._spec = spec
        self._health = spec.executors.health_check
        self._rng = rng
        self._clock = clock
        self._on_free = on_free
        self._on_change = on_change
        self._counters = counters or Counters()
        self._members: dict[Endpoint, Executor] = {}
        self._leaving: dict[Endpoint, Executor] = {}
        self._available: list[Executor] = []
        self._free = 0
        self._reserved = 0
        self._healthy = 0
        self._up_since = 0.0
        """Since when there has been a healthy executor without a break."""
        self._ejected: dict[Executor, None] = {}
        """The longest ejected first."""
        self._failing: set[Executor] = set()
        """Those whose last tasks all failed."""
        self._usual_seconds = outliers.USUAL_SECONDS
        """What a task takes that is completed, lately."""
        self._ramp_timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._chooser = self._make_chooser()
        self._probes = Probes(
            spec.executors,
            transport,
            rng=rng,
            clock=clock,
            on_flip=self._settle,
            on_capacity=self._capacity_told,
        )
        self._timers: set[asyncio.TimerHandle] = set()

    # --- what it is told

    def apply(self, spec: QueueWorkerSpec) -> None:
        """Take a changed spec: strategy, concurrency and health check act from the next choice on."""
        before, self._spec = self._spec, spec
        self._probes.spec = spec.executors
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
                self._probes.watch(executor)

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
                await self._probes.checked(executor)
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
        return age <= most and executor.healthy and not executor.leaving

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
        if executor.health.healthy:
            self.failed(executor, reason)
        if executor.health.bad(reason, 1):
            self._settle(executor)
            self._probes.watch(executor)

    def answered(self, executor: Executor, completed: bool, took: float) -> None:
        """It gave a task's result, after so many seconds. Call it before `release`."""
        record = executor.record
        record.in_a_row = 0
        if completed:
            self._usual_seconds += (took - self._usual_seconds) * USUAL_WEIGHT
            if record.tasks_failed:
                record.tasks_failed = 0
                self._failing.discard(executor)
            return
        record.tasks_failed += 1
        if record.tasks_failed < outliers.FAILURES_IN_A_ROW or executor.leaving:
            return
        self._failing.add(executor)
        seconds = outliers.rest(took, self._usual_seconds, len(self._failing), self._healthy)
        if seconds:
            executor.in_flight += 1  # in the place of the task, whose slot is given back now
            self._refresh(executor)
            self._later(seconds, lambda: self.release(executor))

    def failed(self, executor: Executor, reason: str) -> None:
        """It failed a task by a fault of its own: so many in a row eject it for a time (see `outliers`)."""
        if not executor.record.failed() or executor.leaving or not executor.healthy:
            return
        if len(self._ejected) + 1 > outliers.at_most(self._healthy + self._sound_ejected()):
            return
        seconds = executor.record.eject(self._clock())
        executor.ejected = f"ejected for {seconds:.0f} s after {executor.record.in_a_row} failures in a row: {reason}"
        executor.ejection = self._later(seconds, lambda: self._readmit(executor))
        self._ejected[executor] = None
        self._counters.ejections += 1
        self._settle(executor)

    def refused(self, executor: Executor) -> None:
        """It answered that it takes no task now: leave it alone for a moment."""
        self._cancel(executor.rest)
        # The timer ends the rest, not the clock: a timer may fire a little before its time.
        executor.rest = self._later(REFUSAL_REST_SECONDS, lambda: self._rested(executor))
        self._refresh(executor)

    def check(self, executor: Executor) -> asyncio.Task[bool]:
        """Ask it for its health now; many callers share one request. The result: whether the answer was good."""
        return self._probes.check(executor)

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
                healthy=e.healthy,
                in_flight=e.in_flight,
                capacity=e.capacity,
                last_check=e.last_check,
                reason=e.health.reason or e.ejected,
                leaving=e.leaving,
            )
            for e in self._all()
        )

    async def close(self) -> None:
        """Stop the health checks."""
        for handle in self._timers:
            handle.cancel()
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

    def _later(self, seconds: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        def due() -> None:
            self._timers.discard(handle)
            do()

        handle = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(handle)
        return handle

    def _cancel(self, handle: asyncio.TimerHandle | None) -> None:
        if handle is not None:
            handle.cancel()
            self._timers.discard(handle)

    def _capacity(self, executor: Executor) -> int:
        """What it may be given at once now: never less than it has already."""
        slots = self._spec.executors.concurrency
        if executor.told_capacity is not None:
            slots = min(slots, executor.told_capacity)
        if executor.returned_at is None:
            return slots
        elapsed = self._clock() - executor.returned_at
        warm = slow_start.usable(slots, elapsed, self._spec.executors.slow_start_seconds)
        return min(slots, max(warm, executor.in_flight))

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
        self._count(executor)
        self._refresh(executor)
        self._probes.watch(executor)

    def _leave(self, executor: Executor) -> None:
        executor.leaving = True
        if executor.ejected:
            self._readmit(executor)
        self._failing.discard(executor)
        self._count(executor)
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
            executor.healthy
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

    def _capacity_told(self, executor: Executor) -> None:
        executor.capacity = self._capacity(executor)
        self._refresh(executor)
        self._chooser.members(tuple(self._members.values()))

    def _settle(self, executor: Executor) -> None:
        """Its health changed, or it was ejected or taken back."""
        self._count(executor)
        self._refresh(executor)
        self._on_change()
        if executor.available and not self._wake_waiting():
            self._on_free()

    def _count(self, executor: Executor) -> None:
        """Keep the number of healthy executors, and what hangs on it: who warms up, and how many may be ejected."""
        counts = executor.healthy and not executor.leaving
        if counts is executor.counted:
            return
        executor.counted = counts
        self._healthy += 1 if counts else -1
        now = self._clock()
        if counts:
            if self._healthy == 1:
                self._up_since = now
            if slow_start.begins(
                now - executor.away_since, now - self._up_since, self._spec.executors.slow_start_seconds
            ):
                executor.returned_at = now
                self._ramp_timer = self._ramp_timer or self._later(slow_start.TICK_SECONDS, self._ramp)
            executor.capacity = self._capacity(executor)
        else:
            executor.away_since = now
            executor.returned_at = None
            while len(self._ejected) > outliers.at_most(self._healthy + self._sound_ejected()):
                self._readmit(next(iter(self._ejected)))

    def _ramp(self) -> None:
        """Give those that warm up the slots that they have come to. With nobody warm to carry the load, all of them."""
        now, window = self._clock(), self._spec.executors.slow_start_seconds
        warming = [e for e in self._members.values() if e.returned_at is not None]
        alone = len(warming) == self._healthy
        for executor in warming:
            if alone or (executor.returned_at is not None and now - executor.returned_at >= window):
                executor.returned_at = None
            executor.capacity = self._capacity(executor)
            self._refresh(executor)
        again = any(e.returned_at is not None for e in warming)
        self._ramp_timer = self._later(slow_start.TICK_SECONDS, self._ramp) if again else None
        self._chooser.members(tuple(self._members.values()))
        if not self._wake_waiting():
            self._on_free()

    def _sound_ejected(self) -> int:
        return sum(e.health.healthy and not e.leaving for e in self._ejected)

    def _readmit(self, executor: Executor) -> None:
        """Its ejection is over."""
        self._cancel(executor.ejection)
        executor.ejection = None
        self._ejected.pop(executor, None)
        executor.ejected = ""
        executor.record.returned(self._clock())
        self._settle(executor)
