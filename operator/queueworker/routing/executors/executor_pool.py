"""The executor pool: its members, which of them are healthy and have a free slot, and which one gets the next task.

Invariants: an executor never has more tasks in flight than its capacity; a reserved slot is a free slot that a pull
under way will fill; tasks that wait for a slot come before new pulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.routing.executors.ejection import Ejections
from queueworker.routing.executors.executor import Executor, Members
from queueworker.routing.executors.health_checks import HealthChecks
from queueworker.routing.executors.slots import SlotPermit, Slots, SlotWaits
from queueworker.routing.executors.slow_start import WarmUp
from queueworker.routing.executors.strategies import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from random import Random

    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.config import Endpoint
    from queueworker.routing.counters import Counters
    from queueworker.routing.http.transport import Transport
    from queueworker.routing.in_flight import InFlightTask
    from queueworker.routing.limits import Limits
    from queueworker.routing.snapshot import ExecutorSnapshot


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
        self._clock = clock
        self._on_change = on_change
        self.members = Members()
        self._slots = Slots(on_free)
        self._choice = Choice(spec.routing, self._slots, rng)
        self._waits = SlotWaits(spec.executors, self.members, self._slots, clock)
        self._rival_slots: Mapping[str, int] = {}
        self._warm_up = WarmUp(spec.executors.slow_start_seconds, clock=clock, on_step=self._warm_up_step)
        self.ejections = Ejections(self.members, self._slots, clock=clock, counters=counters, on_flip=self._flipped)
        self.checks = HealthChecks(
            *(spec.executors, transport),
            rng=rng,
            clock=clock,
            limits=limits,
            on_flip=self._flipped,
            on_silence=self._silent,
            on_answer=self.heard_from,
            on_capacity=self._capacity_known,
        )

    # --- configuration

    def apply(self, spec: QueueWorkerSpec) -> None:
        """Take a changed spec: strategy, concurrency and health check apply from the next choice on."""
        before, self._spec = self._spec, spec
        check = spec.executors.health_check
        self._max_age = check.max_age_seconds
        self.checks.spec = self._waits.spec = spec.executors
        self._choice.apply(spec.routing)
        self._warm_up.window = spec.executors.slow_start_seconds
        self._set_capacities(self.members.all())
        if before.executors.health_check != check:
            for executor in self.members.present.values():
                self.checks.start(executor)
        self._slots.wake()

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Make the pool hold exactly these. An executor that leaves gets no new task and finishes what it runs."""
        wanted = dict.fromkeys(endpoints)
        if wanted.keys() == self.members.present.keys():
            return
        self.members.drop_idle()
        for endpoint in [e for e in self.members.present if e not in wanted]:
            self._leave(self.members.present.pop(endpoint))
        for endpoint in wanted:
            if endpoint not in self.members.present:
                self._join(endpoint)
        self.members.present = {endpoint: self.members.present[endpoint] for endpoint in wanted}
        self._choice.set_members(self.members.present.values())
        self._slots.wake()
        self._on_change()

    # --- slots

    def set_rival_slots(self, taken: Mapping[str, int]) -> None:
        """Slots that other routers of the object hold, by the name of the executor: they count as taken."""
        if taken != self._rival_slots:
            self._rival_slots = taken
            self._set_capacities(self.members.present.values())
            self._slots.offer()

    @property
    def can_reserve(self) -> bool:
        """Whether a slot is free that no permit and no waiting task claims."""
        slots = self._slots
        free = slots.free - slots.reserved - len(slots.waiting) > 0
        # tasks that avoid executors leave slots to others, in bounds
        return free and len(slots.avoiding) < max(1, self.members.healthy_count)

    def reserve(self) -> SlotPermit:
        """Reserve a free slot for a task that is about to be pulled. Check `can_reserve` first."""
        return SlotPermit(self._slots)

    def hold(self, permit: SlotPermit, name: str) -> None:
        """Move the permit to the executor of that name, which has the task already, whatever its state is. If it is in
        the pool no more, the permit stays as it is.
        """
        executor = self.members.find(name)
        if executor is not None:
            permit.move_to(executor)

    async def acquire(self, permit: SlotPermit, flight: InFlightTask, on_wait: Callable[[], None]) -> Executor:
        """Choose an executor for the task and move the permit to one of its slots; `permit.release` gives it back.

        The executor's last successful health check is not older than `maxAgeSeconds`, and it is another one than those
        that failed the task, if there is one (see `SlotWaits.another_slot`). `on_wait` is called before any wait, for a
        slot or for a health check. The permit gives its reservation up before it waits for a slot, and holds nothing
        when this raises `NoExecutors` or is cancelled.
        """
        slots = self._slots
        while True:
            waits = bool(flight.failed_at) and await self._waits.another_slot(permit, flight, on_wait)
            if not slots.available:
                waits = True
                permit.release()
                on_wait()
                await self._waits.any_slot()
            executor = self._choice.executor_for(flight)
            permit.move_to(executor)
            if waits:
                slots.offer()
            if self.fresh(executor):
                return executor
            try:
                on_wait()
                await self.checks.wait_for_check(executor)
            except BaseException:
                permit.release()
                raise
            if self.fresh(executor):
                return executor
            permit.release()

    def fresh(self, executor: Executor) -> bool:
        """Whether a task may go to the executor now: in the pool, healthy, and checked within `maxAgeSeconds`."""
        age = self._clock() - executor.last_success
        if age > self._max_age / 2 and not executor.leaving:
            # before the last check is too old, so that no task has to wait for the next one
            self.checks.check(executor)
        return age <= self._max_age and executor.healthy and not executor.leaving

    # --- what became of tasks (see also `ejections`)

    def broke(self, executor: Executor, reason: str) -> None:
        """A connection to the executor failed: it is unhealthy until a health check succeeds."""
        if executor.health.passing:
            self.ejections.failed(executor, reason)
        if executor.health.failed(reason, 1):
            self._flipped(executor)
            if not executor.leaving:
                self.checks.start(executor)

    def heard_from(self, executor: Executor) -> None:
        """The executor answered something after it had been silent."""
        executor.silent = False
        self._slots.refresh(executor)
        if executor.available:
            self._slots.offer()

    # --- state

    @property
    def all_synchronous(self) -> bool:
        """Whether every executor is known to answer with the outcome itself (see `async_outcomes`)."""
        return all(executor.completes_async is False for executor in self.members.present.values())

    def snapshot(self) -> tuple[ExecutorSnapshot, ...]:
        return tuple(executor.snapshot() for executor in self.members.all())

    async def close(self) -> None:
        """Stop the health checks and all timers."""
        self.ejections.close()
        self._warm_up.close()
        await self.checks.close([*self.members.present.values(), *self.members.leaving.values()])

    # --- members

    def _silent(self, executor: Executor) -> None:
        executor.silent = True
        self._slots.refresh(executor)

    def _join(self, endpoint: Endpoint) -> None:
        executor = self.members.leaving.pop(endpoint, None) or Executor(endpoint, self._spec.executors.concurrency)
        executor.leaving = False
        self.members.present[endpoint] = executor
        self._count(executor)
        self._slots.refresh(executor)
        self.checks.start(executor)

    def _leave(self, executor: Executor) -> None:
        executor.leaving = True
        self.ejections.forget(executor)
        self._count(executor)
        self._slots.refresh(executor)
        self.checks.stop(executor)
        if executor.in_flight:
            self.members.leaving[executor.endpoint] = executor
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
        if counts is executor.counts_as_healthy:
            return
        executor.counts_as_healthy = counts
        self.members.healthy_count += 1 if counts else -1
        if counts:
            self._warm_up.came(executor, self.members.healthy_count)
            executor.capacity = self._capacity(executor)
            return
        self._warm_up.went(executor)
        self.ejections.readmit_some()

    # --- capacity and choice

    def _capacity(self, executor: Executor) -> int:
        slots = executor.max_slots(self._spec.executors.concurrency)
        left = max(0, slots - self._rival_slots.get(executor.name, 0))
        return min(left, self._warm_up.usable(executor, slots))

    def _warm_up_step(self) -> None:
        self._set_capacities(self._warm_up.step(self.members.present.values(), self.members.healthy_count))
        self._slots.offer()

    def _capacity_known(self, executor: Executor) -> None:
        before = executor.capacity
        self._set_capacities([executor])
        if executor.available and executor.capacity > before:
            self._slots.offer()

    def _set_capacities(self, executors: Iterable[Executor]) -> None:
        for executor in executors:
            executor.capacity = self._capacity(executor)
            self._slots.refresh(executor)
        self._choice.set_members(self.members.present.values())
