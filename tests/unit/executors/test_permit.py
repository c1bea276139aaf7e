"""A permit holds one slot at most, once, and gives it back whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from queueworker.routing.executors.slots import NoExecutors
from tests.support.fake_transport import UNHEALTHY
from tests.support.pools import PoolWorld, check_books, flight, spec
from tests.support.properties import examples

if TYPE_CHECKING:
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.slots import SlotPermit


def test_a_reservation_becomes_a_slot_in_use_and_never_counts_twice() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        permit = world.pool.reserve()
        check_books(world.pool, reserved=1)
        assert (world.in_flight, world.pool.can_reserve) == (0, False)
        world.start(permit)
        check_books(world.pool, reserved=0)
        assert (world.in_flight, world.pool.can_reserve) == (1, False)
        world.do(permit.release)
        assert (world.in_flight, world.pool.can_reserve) == (0, True)


def test_a_permit_can_be_released_any_number_of_times() -> None:
    with PoolWorld(1) as world:
        for permit in (world.pool.reserve(), world.take()[0]):
            for _ in range(3):
                world.do(permit.release)
        check_books(world.pool, reserved=0)
        assert world.in_flight == 0


def test_a_released_permit_can_be_acquired_again_without_a_reservation() -> None:
    with PoolWorld(1) as world:
        permit, _ = world.take()
        world.do(permit.release)
        world.start(permit)
        check_books(world.pool, reserved=0)
        assert world.in_flight == 1
        world.do(permit.release)
        assert world.in_flight == 0


def test_a_permit_that_holds_a_slot_cannot_be_acquired_once_more() -> None:
    with PoolWorld(1) as world:
        permit, _ = world.take()
        with pytest.raises(AssertionError, match="holds a slot"):
            world.start(permit).result()
        assert world.in_flight == 1
        world.do(permit.release)
        assert world.in_flight == 0


def test_a_reservation_is_given_up_while_the_task_waits_for_a_slot() -> None:
    with PoolWorld(1, {"concurrency": 1}) as world:
        held, _ = world.take()
        permit = world.pool.reserve()
        acquiring = world.start(permit)
        check_books(world.pool, reserved=0)
        acquiring.cancel()
        world.advance(0)
        world.do(held.release)
        assert world.pool.can_reserve, "the cancelled task claims nothing"


@pytest.mark.parametrize("stale", [False, True])
def test_a_slot_is_given_back_when_on_wait_raises(stale: bool) -> None:
    age = 1 if stale else 3600
    with PoolWorld(1, {"concurrency": 1, "healthCheck": {"maxAgeSeconds": age, "periodSeconds": 100}}) as world:
        held = None if stale else world.take()[0]
        world.advance(5)
        permit = world.pool.reserve()

        def raises() -> None:
            raise RuntimeError("the journal is broken")

        async def acquire() -> None:
            try:
                await world.pool.acquire(permit, flight(), raises)
            finally:
                permit.release()

        with pytest.raises(RuntimeError):
            world.run(acquire())
        if held is not None:
            world.do(held.release)
        check_books(world.pool, reserved=0)
        assert world.in_flight == 0
        assert world.pool.can_reserve


class Interleaving:
    """Tasks that take slots, hold them and give them up, among executors that fail, leave and come back."""

    def __init__(self, world: PoolWorld) -> None:
        self.world = world
        self.reserved: list[SlotPermit] = []
        self.acquiring: list[tuple[asyncio.Task[Executor], SlotPermit]] = []
        self.held: list[tuple[SlotPermit, Executor]] = []
        self.released: list[SlotPermit] = []
        self.allowed: dict[str, int] = {}
        """What may be in flight above the capacity: what was there when the capacity was lowered."""

    def reserve(self, _: int) -> None:
        if self.world.pool.can_reserve:
            self.reserved.append(self.world.pool.reserve())

    def acquire(self, which: int) -> None:
        permits = self.reserved + self.released
        if permits:
            permit = permits[which % len(permits)]
            (self.reserved if permit in self.reserved else self.released).remove(permit)
            self.acquiring.append((self.world.start(permit, f"t{which}"), permit))

    def hold(self, which: int) -> None:
        """The task of a dead router that this executor has already, above its capacity if need be."""
        if not self.reserved:
            return
        permit = self.reserved.pop(which % len(self.reserved))
        name = f"executor-{which % 4}"
        executor = self.world.pool.members.find(name)
        if executor is None:
            self.reserved.append(permit)
        else:
            self.allowed[executor.endpoint.url] = executor.in_flight + 1
            self.held.append((permit, executor))
        self.world.do(self.world.pool.hold, permit, name)

    def give_up_reservation(self, which: int) -> None:
        if self.reserved:
            permit = self.reserved.pop(which % len(self.reserved))
            self.world.do(permit.release)
            self.released.append(permit)

    def release(self, which: int) -> None:
        if self.held:
            permit, _ = self.held.pop(which % len(self.held))
            self.world.do(permit.release)
            self.released.append(permit)

    def cancel(self, which: int) -> None:
        if self.acquiring:
            self.world.do(self.acquiring[which % len(self.acquiring)][0].cancel)
            self.world.advance(0)  # otherwise the cancelled wait stands in the line until the next step

    def release_and_cancel(self, which: int) -> None:
        """In one moment: a task is woken for the slot and cancelled before it runs."""
        if self.held and self.acquiring:
            permit, _ = self.held.pop(which % len(self.held))
            acquiring = self.acquiring[which % len(self.acquiring)][0]

            async def both() -> None:
                permit.release()
                acquiring.cancel()

            self.world.run(both())
            self.released.append(permit)

    def complete(self, which: int) -> None:
        self._end(which, lambda executor: self.world.pool.ejections.answered(executor, True, 0.1))

    def fail_task(self, which: int) -> None:
        self._end(which, lambda executor: self.world.pool.ejections.answered(executor, False, 0.01))

    def fault(self, which: int) -> None:
        self._end(which, lambda executor: self.world.pool.ejections.failed(executor, "answered 500"))

    def break_connection(self, which: int) -> None:
        self._end(which, lambda executor: self.world.pool.broke(executor, "broke the connection"))

    def refuse(self, which: int) -> None:
        self._end(which, self.world.pool.ejections.refused)

    def _end(self, which: int, tell: object) -> None:
        if self.held:
            permit, executor = self.held.pop(which % len(self.held))

            async def end() -> None:
                tell(executor)  # type: ignore[operator]
                permit.release()

            self.world.run(end())
            self.released.append(permit)

    def sicken(self, which: int) -> None:
        self.world.transport.health[f"executor-{which % 4}"] = UNHEALTHY

    def heal(self, which: int) -> None:
        self.world.transport.health.pop(f"executor-{which % 4}", None)

    def set_pool(self, which: int) -> None:
        self._keep_what_runs()
        self.world.set_pool([i for i in range(4) if which >> i & 1])

    def set_concurrency(self, which: int) -> None:
        self._keep_what_runs()
        self.world.do(self.world.pool.apply, spec({**SICKLY, "concurrency": 1 + which % 3}))

    def slow_checks(self, which: int) -> None:
        self.world.transport.health_seconds = (which % 3) * 0.4

    def advance(self, which: int) -> None:
        self.world.advance((0, 0.3, 1.1, 6, 25)[which % 5])

    def _keep_what_runs(self) -> None:
        for executor in self.world.pool.snapshot():
            self.allowed[executor.url] = executor.in_flight

    def settle(self) -> None:
        """What ended since is noted."""
        for entry in [entry for entry in self.acquiring if entry[0].done()]:
            self.acquiring.remove(entry)
            task, permit = entry
            if task.cancelled() or task.exception() is not None:
                assert task.cancelled() or isinstance(task.exception(), NoExecutors), task.exception()
                self.released.append(permit)
            else:
                self.held.append((permit, task.result()))

    def check(self) -> None:
        world = self.world
        assert not world.loop.broken, world.loop.broken
        check_books(world.pool, reserved=len(self.reserved))
        for executor in world.pool.snapshot():
            lowered = self.allowed[executor.url] = min(self.allowed.get(executor.url, 0), executor.in_flight)
            assert 0 <= executor.in_flight <= max(executor.capacity, lowered), executor
            assert executor.in_flight >= sum(e.endpoint.url == executor.url for _, e in self.held)

    def end(self) -> None:
        """All tasks end, all executors are well again: then every slot is free."""
        world = self.world
        world.transport.health.clear()
        world.transport.health_seconds = 0.0
        for task, _ in self.acquiring:
            task.cancel()
        world.advance(0)
        self.settle()
        for permit, _ in self.held:
            world.do(permit.release)
        for permit in self.reserved:
            world.do(permit.release)
        world.set_pool(4)
        world.advance(400)
        check_books(world.pool, reserved=0)
        assert [(e.name, e.healthy, e.in_flight) for e in world.pool.snapshot()] == [
            (f"executor-{i}", True, 0) for i in range(4)
        ]
        assert world.pool.can_reserve


SICKLY: dict[str, object] = {
    "concurrency": 2,
    "slowStartSeconds": 5,
    "unavailableGraceSeconds": 3,
    "healthCheck": {"maxAgeSeconds": 1, "periodSeconds": 2},
}
STEPS = (
    Interleaving.reserve, Interleaving.reserve, Interleaving.acquire, Interleaving.acquire, Interleaving.acquire,
    Interleaving.hold, Interleaving.release, Interleaving.give_up_reservation, Interleaving.cancel,
    Interleaving.release_and_cancel, Interleaving.complete, Interleaving.fail_task, Interleaving.fault,
    Interleaving.fault, Interleaving.break_connection, Interleaving.refuse, Interleaving.sicken, Interleaving.heal,
    Interleaving.set_pool, Interleaving.set_concurrency, Interleaving.slow_checks, Interleaving.advance,
)  # fmt: skip


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 31)), max_size=80))
@example([(Interleaving.reserve, 0), (Interleaving.set_pool, 0), (Interleaving.acquire, 0), (Interleaving.cancel, 0)])
def test_whatever_happens_slots_are_counted_once_and_come_back(steps: list[tuple[object, int]]) -> None:
    with PoolWorld(4, SICKLY) as world:
        run = Interleaving(world)
        for step, which in steps:
            step(run, which)  # type: ignore[operator]
            run.settle()
            run.check()
        run.end()
