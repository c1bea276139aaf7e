"""The executor pool: its members, which of them are healthy and have a free slot, and which one gets the next task.

Invariants: an executor never has more tasks in flight than its capacity; a reserved slot is a free slot that a pull
under way will fill; tasks that wait for a slot come before new pulls.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from queueworker.resource.spec import WhenUnavailable
from queueworker.routing.executors.ejection import Ejections
from queueworker.routing.executors.executor import Executor
from queueworker.routing.executors.health import UNHEALTHY_PERIOD_SECONDS
from queueworker.routing.executors.health_checks import HealthChecks
from queueworker.routing.executors.permit import SlotPermit
from queueworker.routing.executors.slots import Slots
from queueworker.routing.executors.slow_start import WarmUp
from queueworker.routing.executors.strategies import Chooser, chooser

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping
    from random import Random

    from queueworker.resource.spec import ExecutorsSpec, QueueWorkerSpec
    from queueworker.routing.config import Endpoint
    from queueworker.routing.counters import Counters
    from queueworker.routing.http.transport import Transport
    from queueworker.routing.in_flight import InFlightTask
    from queueworker.routing.limits import Limits
    from queueworker.routing.snapshot import ExecutorSnapshot


# How long a later attempt at a task waits for another executor than those that failed it.
AVOID_SECONDS = 10.0


class NoExecutors(Exception):
    """No executor was healthy during the whole grace period, and the object says `whenUnavailable: Fail`."""

    def __init__(self) -> None:
        super().__init__("No healthy executors available")  # the legacy worker's words


class ExecutorPool:
    """Gives each task a slot of an executor.

    Calls `on_free` when a slot became free that no waiting task claims, `on_change` when health or membership changed.
    """

    def __init__(
        self,
        spec: QueueWorkerSpec,
        transport: Transport,
        *,
        rng: Random,
        clock: Callable[[], float],
        on_free: Callable[[], None],
        on_change: Callable[[], None],
        counters: Counters,
        limits: Limits,
    ) -> None:
        self._spec = spec
        self._max_age = spec.executors.health_check.max_age_seconds
        self._rng = rng
        self._clock = clock
        self._on_change = on_change
        self._members: dict[Endpoint, Executor] = {}
        self._leaving: dict[Endpoint, Executor] = {}
        """They left while they ran tasks; some may be done by now."""
        self._healthy = 0
        self._slots = Slots(on_free)
        self._rival_slots: Mapping[str, int] = {}
        self._chooser = self._make_chooser()
        self._warm_up = WarmUp(spec.executors.slow_start_seconds, clock=clock, on_step=self._warm_up_step)
        self._ejections = Ejections(self._slots, clock=clock, counters=counters, on_flip=self._flipped)
        self._checks = HealthChecks(
            *(spec.executors, transport),
            rng=rng,
            clock=clock,
            limits=limits,
            on_flip=self._flipped,
            on_capacity=self._capacity_changed,
        )

    # --- configuration

    def apply(self, spec: QueueWorkerSpec) -> None:
        """Take a changed spec: strategy, concurrency and health check apply from the next choice on."""
        before, self._spec = self._spec, spec
        check = spec.executors.health_check
        self._max_age = check.max_age_seconds
        self._checks.spec = spec.executors
        self._warm_up.window = spec.executors.slow_start_seconds
        if (before.routing.strategy, before.routing.sticky_key) != (spec.routing.strategy, spec.routing.sticky_key):
            self._chooser = self._make_chooser()
        for executor in self._all():
            self._set_capacity(executor)
        self._tell_chooser()
        if before.executors.health_check != check:
            for executor in self._members.values():
                self._checks.start(executor)
        self._slots.wake()

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Make the pool hold exactly these. An executor that leaves gets no new task and finishes what it runs."""
        wanted = dict.fromkeys(endpoints)
        if wanted.keys() == self._members.keys():
            return
        self._leaving = {endpoint: executor for endpoint, executor in self._leaving.items() if executor.in_flight}
        for endpoint in [e for e in self._members if e not in wanted]:
            self._leave(self._members.pop(endpoint))
        for endpoint in wanted:
            if endpoint not in self._members:
                self._join(endpoint)
        self._members = {endpoint: self._members[endpoint] for endpoint in wanted}
        self._tell_chooser()
        self._slots.wake()
        self._on_change()

    # --- slots

    def set_rival_slots(self, taken: Mapping[str, int]) -> None:
        """Slots that other routers of the object hold, by the name of the executor: they count as taken."""
        if taken == self._rival_slots:
            return
        self._rival_slots = taken
        for executor in self._members.values():
            self._set_capacity(executor)
        self._tell_chooser()
        self._slots.offer()

    @property
    def can_reserve(self) -> bool:
        """Whether a slot is free that no permit and no waiting task claims."""
        slots = self._slots
        free = slots.free - slots.reserved - len(slots.waiting) > 0
        # Tasks that avoid an executor leave its slots to others, but not without end.
        return free and (not slots.avoiding or len(slots.avoiding) < self._healthy)

    @property
    def healthy(self) -> int:
        """Executors in the pool whose health checks succeed and that are not ejected."""
        return self._healthy

    def reserve(self) -> SlotPermit:
        """Reserve a free slot for a task that is about to be pulled. Check `can_reserve` first."""
        return SlotPermit(self._slots)

    async def acquire(self, permit: SlotPermit, flight: InFlightTask, on_wait: Callable[[], None]) -> Executor:
        """Choose an executor for the task and move the permit to one of its slots; `permit.release` gives it back.

        The executor's last successful health check is not older than `maxAgeSeconds`, and it is another one than those
        that failed the task, if there is one (see `_wait_for_another`). `on_wait` is called before any wait, for a slot
        or for a health check. The permit gives its reservation up before it waits for a slot, and holds nothing when
        this raises `NoExecutors` or is cancelled.
        """
        slots = self._slots
        while True:
            waits = bool(flight.failed_at) and await self._wait_for_another(permit, flight, on_wait)
            if not slots.available:
                waits = True
                permit.release()
                on_wait()
                await self._wait_for_slot()
            executor = self._choose(flight)
            permit.move_to(executor)
            if waits:
                slots.offer()
            if self.fresh(executor):
                return executor
            try:
                on_wait()
                await self._checks.wait_for_check(executor)
            except BaseException:
                permit.release()
                raise
            if self.fresh(executor):
                return executor
            permit.release()

    def has_another(self, flight: InFlightTask) -> bool:
        """Whether an executor is healthy that has not failed the task; it may be busy."""
        return any(e.healthy and e.name not in flight.failed_at for e in self._members.values())

    def fresh(self, executor: Executor) -> bool:
        """Whether a task may go to the executor now: in the pool, healthy, and checked within `maxAgeSeconds`."""
        age = self._clock() - executor.last_success
        if age > self._max_age / 2 and not executor.leaving:
            self.check(executor)  # before the last check is too old, so that no task has to wait for the next one
        return age <= self._max_age and executor.healthy and not executor.leaving

    # --- what became of tasks

    def answered(self, executor: Executor, completed: bool, took: float) -> None:
        """The executor gave a task's result after so many seconds. Call it before the task's permit is released."""
        self._ejections.answered(executor, completed, took, self._healthy)

    def failed(self, executor: Executor, reason: str) -> None:
        """The executor failed a task by a fault of its own: enough of those in a row eject it for a time."""
        self._ejections.failed(executor, reason, self._healthy)

    def broke(self, executor: Executor, reason: str) -> None:
        """A connection to the executor failed: it is unhealthy until a health check succeeds."""
        if executor.health.healthy:
            self.failed(executor, reason)
        if executor.health.failed(reason, 1):
            self._flipped(executor)
            if not executor.leaving:
                self._checks.start(executor)

    def refused(self, executor: Executor) -> None:
        """The executor answered that it takes no task now: it gets none for a moment."""
        self._ejections.refused(executor)

    def check(self, executor: Executor) -> asyncio.Task[bool]:
        """Probe the executor's health now; concurrent callers share one probe."""
        return self._checks.check(executor)

    # --- state

    @property
    def all_synchronous(self) -> bool:
        """Whether every executor is known to answer with the outcome itself (see `async_outcomes`)."""
        return all(executor.completes_async is False for executor in self._members.values())

    def snapshot(self) -> tuple[ExecutorSnapshot, ...]:
        return tuple(executor.snapshot() for executor in self._all())

    async def close(self) -> None:
        """Stop the health checks and all timers."""
        self._ejections.close()
        self._warm_up.close()
        await self._checks.close([*self._members.values(), *self._leaving.values()])

    # --- members

    def _all(self) -> list[Executor]:
        return [*self._members.values(), *(e for e in self._leaving.values() if e.in_flight)]

    def _join(self, endpoint: Endpoint) -> None:
        executor = self._leaving.pop(endpoint, None) or Executor(endpoint, self._spec.executors.concurrency)
        executor.leaving = False
        self._members[endpoint] = executor
        self._count(executor)
        self._slots.refresh(executor)
        self._checks.start(executor)

    def _leave(self, executor: Executor) -> None:
        executor.leaving = True
        self._ejections.forget(executor)
        self._count(executor)
        self._slots.refresh(executor)
        self._checks.stop(executor)
        if executor.in_flight:
            self._leaving[executor.endpoint] = executor
        elif executor.probe is not None:
            executor.probe.cancel()

    def _flipped(self, executor: Executor) -> None:
        """The executor became healthy or unhealthy, was ejected or readmitted."""
        self._count(executor)
        self._slots.refresh(executor)
        self._on_change()
        if executor.available:
            self._slots.offer()

    def _count(self, executor: Executor) -> None:
        """Count the healthy executors. A new one may have to warm up; with one less, fewer may be ejected."""
        counts = executor.healthy and not executor.leaving
        if counts is executor.counted:
            return
        executor.counted = counts
        self._healthy += 1 if counts else -1
        if counts:
            self._warm_up.came(executor, self._healthy)
            self._set_capacity(executor)
            return
        self._warm_up.went(executor)
        while self._ejections.too_many(self._healthy):
            self._ejections.readmit_first()

    # --- capacity and choice

    def _set_capacity(self, executor: Executor) -> None:
        slots = self._spec.executors.concurrency
        if executor.advertised_capacity is not None:
            slots = min(slots, executor.advertised_capacity)
        left = max(0, slots - self._rival_slots.get(executor.name, 0))
        executor.capacity = min(left, self._warm_up.usable(executor, slots))
        self._slots.refresh(executor)

    def _capacity_changed(self, executor: Executor) -> None:
        self._set_capacity(executor)
        self._tell_chooser()

    def _warm_up_step(self) -> None:
        for executor in self._warm_up.step(self._members.values(), self._healthy):
            self._set_capacity(executor)
        self._tell_chooser()
        self._slots.offer()

    def _make_chooser(self) -> Chooser[Executor]:
        return chooser(self._spec.routing.strategy, self._spec.routing.sticky_key, self._rng)

    def _tell_chooser(self) -> None:
        self._chooser.set_members(tuple(self._members.values()))

    def _choose(self, flight: InFlightTask) -> Executor:
        """The strategy's choice, unless that executor has failed the task and another one is available."""
        slots = self._slots
        executor = self._chooser.choose(slots.available, flight.task)
        if flight.failed_at and executor.name in flight.failed_at:
            others = slots.others(flight.failed_at)
            return self._rng.choice(others) if others else executor
        return executor

    async def _wait_for_another(self, permit: SlotPermit, flight: InFlightTask, on_wait: Callable[[], None]) -> bool:
        """Wait until an executor is available that has not failed the task. Returns whether there was a wait.

        Waits as long as such an executor is healthy; before a later attempt at most for `AVOID_SECONDS`, because the
        one that failed may do better now.
        """
        slots, waited = self._slots, False
        deadline = self._clock() + (AVOID_SECONDS if flight.attempt > 1 else math.inf)
        while not slots.others(flight.failed_at) and self.has_another(flight):
            left = deadline - self._clock()
            if left <= 0:
                break
            if not waited:
                waited = True
                permit.release()
                on_wait()
            await slots.wait(min(left, UNHEALTHY_PERIOD_SECONDS), flight.failed_at)
        return waited

    async def _wait_for_slot(self) -> None:
        """Wait until an executor is available. Raises `NoExecutors` after the grace period with none healthy."""
        while not self._slots.available:
            woken = await self._slots.wait(_patience(self._spec.executors, self._healthy))
            if not woken and self._healthy == 0 and self._spec.executors.when_unavailable is WhenUnavailable.FAIL:
                raise NoExecutors


def _patience(executors: ExecutorsSpec, healthy: int) -> float | None:
    """Seconds that a task waits for a slot before it asks whether any executor is healthy at all."""
    if executors.when_unavailable is WhenUnavailable.HOLD:
        return None
    grace = executors.unavailable_grace_seconds
    return grace if healthy == 0 else max(grace, UNHEALTHY_PERIOD_SECONDS)
