"""The free slots of a pool, and the tasks that wait for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.executors.executor import Executor


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
        """Use a slot of an executor that is available."""
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
