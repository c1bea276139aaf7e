"""The free slots of a pool, the permits that hold one, and the tasks that wait for one."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING

from queueworker.resource.executors_spec import ExecutorsSpec, WhenUnavailable
from queueworker.routing.executors.health_checks import UNHEALTHY_PERIOD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.executors.executor import Executor, Members
    from queueworker.routing.in_flight import InFlightTask

# How long a later attempt at a task waits for another executor than those that failed it.
AVOID_SECONDS = 10.0


class Slots:
    """Knows which executors have a free slot, how many slots are free in all, and which tasks wait for one.

    `on_free` is called when a slot became free that no waiting task claims. Invariants:

    * `available` holds exactly the executors with `available` set, each at its `available_index`;
    * `free` is the sum of every executor's `free`;
    * `reserved` permits hold a slot without an executor (see `SlotPermit`).
    """

    def __init__(self, on_free: Callable[[], None]) -> None:
        self.available: list[Executor] = []
        self.free = 0
        self.reserved = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.avoiding: dict[asyncio.Future[None], tuple[str, ...]] = {}
        """Tasks that wait for another executor than those that failed them, whose names are here. They go first."""
        self._on_free = on_free

    def take(self, executor: Executor) -> None:
        """Use a slot of an executor, also one above its capacity."""
        executor.in_flight += 1
        executor.free -= 1
        self.free -= 1
        if executor.free <= 0:
            self.refresh(executor)

    def give_back(self, executor: Executor) -> None:
        executor.in_flight -= 1
        if executor.leaving:
            return
        if executor.available:
            executor.free += 1
            self.free += 1
        else:
            self.refresh(executor)
        self.offer()

    def refresh(self, executor: Executor) -> None:
        """Bring `available` and `free` up to date after anything about the executor changed."""
        should = (
            executor.healthy
            and not executor.leaving
            and executor.in_flight < executor.capacity
            and executor.cooldown_timer is None
            and not executor.silent
        )
        if should is not executor.available:
            if should:
                self._append(executor)
            else:
                self._remove(executor)
            executor.available = should
        free = executor.capacity - executor.in_flight if should else 0
        self.free += free - executor.free
        executor.free = free

    def offer(self) -> None:
        """Slots may have become free: wake a waiting task, or tell the owner of the pool."""
        if not ((self.waiting or self.avoiding) and self.wake()):
            self._on_free()

    def wake(self) -> bool:
        """Wake one waiting task if an executor is available. Returns whether a task claims the next free slot."""
        for future, names in self.avoiding.items():
            if not future.done() and self.others(names):
                del self.avoiding[future]
                future.set_result(None)
                return True
        while self.waiting:
            if not self.available:
                return True
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                return True
        return False

    def others(self, names: tuple[str, ...]) -> list[Executor]:
        """The available executors that have none of these names."""
        return [executor for executor in self.available if executor.name not in names]

    async def wait(self, seconds: float | None, avoid: tuple[str, ...] = ()) -> bool:
        """Wait in line until a slot may be free, for so many seconds at most. Returns False after that time.

        `avoid`: names of executors whose slots are not meant.

        The slot may be gone again when the caller runs. A caller that takes it calls `offer` afterwards, because the
        event that woke it may have freed more slots than that one.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if avoid:
            self.avoiding[future] = avoid
        else:
            self.waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            self._leave_line(future)
            return False
        except asyncio.CancelledError:
            if not self._leave_line(future):
                self.offer()  # it was woken for a slot: pass that on
            raise
        return True

    def _leave_line(self, future: asyncio.Future[None]) -> bool:
        """Whether the future was still waiting, rather than woken."""
        if not future.cancelled():
            return False
        self.avoiding.pop(future, None)
        with contextlib.suppress(ValueError):
            self.waiting.remove(future)
        return True

    def _append(self, executor: Executor) -> None:
        executor.available_index = len(self.available)
        self.available.append(executor)

    def _remove(self, executor: Executor) -> None:
        """Move the last executor into the gap: O(1), and no strategy depends on the order of the list."""
        last = self.available.pop()
        if last is not executor:
            self.available[executor.available_index] = last
            last.available_index = executor.available_index
        executor.available_index = -1


class SlotPermit:
    """Holds one slot: reserved without an executor, or in use on one, or none after `release`.

    `ExecutorPool.reserve` makes permits and `ExecutorPool.acquire` moves them to an executor. Call `release` in a
    `finally`: then the slot is given back whatever raises.
    """

    __slots__ = ("_executor", "_reserved", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._reserved = True
        self._executor: Executor | None = None
        slots.reserved += 1

    def move_to(self, executor: Executor) -> None:
        """Use a slot of the executor, in place of the reservation if there is one. For `ExecutorPool.acquire`."""
        assert self._executor is None, "the permit holds a slot already"
        if self._reserved:
            self._reserved = False
            self._slots.reserved -= 1
        self._slots.take(executor)
        self._executor = executor

    def release(self) -> None:
        """Give back whatever the permit holds; harmless when it holds nothing.

        A slot in use goes to a waiting task or to `on_free`. A reservation does not: its owner found no task for the
        slot, and would be told at once to look for one again.
        """
        executor = self._executor
        if executor is not None:
            self._executor = None
            self._slots.give_back(executor)
        elif self._reserved:
            self._reserved = False
            self._slots.reserved -= 1


class NoExecutors(Exception):
    """No executor was healthy during the whole grace period, and the object says `whenUnavailable: Fail`."""

    def __init__(self) -> None:
        super().__init__("No healthy executors available")  # the legacy worker's words


class SlotWaits:
    """Waits in the line of a pool's slots. The owner sets `spec` when it changes."""

    def __init__(self, spec: ExecutorsSpec, members: Members, slots: Slots, clock: Callable[[], float]) -> None:
        self.spec = spec
        self._members = members
        self._slots = slots
        self._clock = clock

    async def any_slot(self) -> None:
        """Wait until an executor is available. Raises `NoExecutors` after the grace period with all of them down."""
        while not self._slots.available:
            was_down = self._members.down()
            woken = await self._slots.wait(self._patience())
            if not woken and was_down and self._members.down() and self.spec.when_unavailable is WhenUnavailable.FAIL:
                raise NoExecutors

    async def another_slot(self, permit: SlotPermit, flight: InFlightTask, on_wait: Callable[[], None]) -> bool:
        """Wait until an executor is available that has not failed the task. Returns whether there was a wait.

        Waits as long as such an executor is healthy; before a later attempt at most for `AVOID_SECONDS`, because the
        one that failed may do better now. Before the first wait the permit is released, and `on_wait` called.
        """
        waited = False
        deadline = self._clock() + (AVOID_SECONDS if flight.attempt > 1 else math.inf)
        while not self._slots.others(flight.failed_at) and self._members.has_another(flight):
            left = deadline - self._clock()
            if left <= 0:
                break
            if not waited:
                waited = True
                permit.release()
                on_wait()
            await self._slots.wait(min(left, UNHEALTHY_PERIOD_SECONDS), flight.failed_at)
        return waited

    def _patience(self) -> float | None:
        """Seconds that a task waits for a slot before it asks whether any executor is there at all."""
        if self.spec.when_unavailable is WhenUnavailable.HOLD:
            return None
        grace = self.spec.unavailable_grace_seconds
        return grace if self._members.down() else max(grace, UNHEALTHY_PERIOD_SECONDS)
