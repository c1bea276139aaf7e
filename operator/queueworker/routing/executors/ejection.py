"""Takes executors, or single slots of them, out of use for a time: ejections and cooldowns, with their timers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from queueworker.routing.executors import outliers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queueworker.routing.counters import Counters
    from queueworker.routing.executors.executor import Executor, Members
    from queueworker.routing.executors.slots import Slots

# How long an executor gets no task after it answered 429 or 503.
REFUSAL_COOLDOWN_SECONDS = 1.0
# How much the newest task counts in the moving average of what tasks take.
NEWEST_TASK_WEIGHT = 0.05


class Ejections:
    """Decides by the rules of `outliers`. Calls `on_flip` when an executor was ejected or readmitted."""

    def __init__(
        self,
        members: Members,
        slots: Slots,
        *,
        clock: Callable[[], float],
        counters: Counters,
        on_flip: Callable[[Executor], None],
    ) -> None:
        self._members = members
        self._slots = slots
        self._clock = clock
        self._counters = counters
        self._on_flip = on_flip
        self._ejected: dict[Executor, None] = {}
        """The one that was ejected first comes first."""
        self._failing: set[Executor] = set()
        """Executors whose last tasks all failed."""
        self._faulty: set[Executor] = set()
        """Executors that failed most of their last tasks by a fault of their own."""
        self._usual_seconds = outliers.INITIAL_TASK_SECONDS
        """Moving average of what a completed task takes."""
        self._timers: set[asyncio.TimerHandle] = set()

    def answered(self, executor: Executor, completed: bool, took: float) -> None:
        """The executor gave a task's result after so many seconds. Call it before the task's permit is released."""
        history = executor.failures
        history.gave_a_result()
        if executor in self._faulty and not history.fails_most:
            self._faulty.discard(executor)
        if completed:
            self._usual_seconds += (took - self._usual_seconds) * NEWEST_TASK_WEIGHT
            if history.consecutive_failed_tasks:
                history.consecutive_failed_tasks = 0
                self._failing.discard(executor)
            return
        history.consecutive_failed_tasks += 1
        if history.consecutive_failed_tasks < outliers.CONSECUTIVE_FAILURES or executor.leaving:
            return
        self._failing.add(executor)
        seconds = outliers.slot_cooldown(took, self._usual_seconds, len(self._failing), self._members.healthy_count)
        if seconds:
            executor.in_flight += 1  # keeps the slot in use after the task's permit is released
            self._slots.refresh(executor)
            self._call_later(seconds, lambda: self._slots.give_back(executor))

    def failed(self, executor: Executor, reason: str) -> None:
        """The executor failed a task by a fault of its own: enough of those eject it, in a row or by their share."""
        executor.record_failure(reason)
        history = executor.failures
        history.failed()
        if history.fails_most:
            self._faulty.add(executor)
        if not history.reason or executor.leaving or not executor.healthy:
            return
        most = self._most()
        in_a_row = history.consecutive_failures >= outliers.CONSECUTIVE_FAILURES
        if len(self._ejected) >= most or not (in_a_row or _passing(self._faulty) <= most):
            return
        why = history.reason
        seconds = history.eject(self._clock())
        executor.ejection_reason = f"ejected for {seconds:.0f} s after {why}: {reason}"
        executor.ejection_timer = self._call_later(seconds, lambda: self._readmit(executor))
        executor.ejected_until = time.time() + seconds
        self._ejected[executor] = None
        self._counters.ejections += 1
        self._on_flip(executor)

    def refused(self, executor: Executor) -> None:
        """The executor answered that it takes no task now: give it none for a moment."""
        self._cancel(executor.cooldown_timer)
        # The timer ends the cooldown, not the clock: a timer may fire a little before its time.
        executor.cooldown_timer = self._call_later(REFUSAL_COOLDOWN_SECONDS, lambda: self._end_cooldown(executor))
        self._slots.refresh(executor)

    def readmit_some(self) -> None:
        """End the ejections that began first while there are more than may be: others became unhealthy or left."""
        while len(self._ejected) > self._most():
            self._readmit(next(iter(self._ejected)))

    def forget(self, executor: Executor) -> None:
        """The executor leaves the pool."""
        self._failing.discard(executor)
        self._faulty.discard(executor)
        if executor.ejection_reason:
            self._readmit(executor)

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _most(self) -> int:
        return outliers.max_ejected(self._members.healthy_count + _passing(self._ejected))

    def _readmit(self, executor: Executor) -> None:
        self._cancel(executor.ejection_timer)
        executor.ejection_timer = executor.ejected_until = None
        executor.ejection_reason = ""
        del self._ejected[executor]
        executor.failures.returned(self._clock())
        self._on_flip(executor)

    def _end_cooldown(self, executor: Executor) -> None:
        executor.cooldown_timer = None
        self._slots.refresh(executor)
        if executor.available:
            self._slots.offer()

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        def due() -> None:
            self._timers.discard(timer)
            callback()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)
        return timer

    def _cancel(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
            self._timers.discard(timer)


def _passing(executors: Iterable[Executor]) -> int:
    """How many of them have health checks that succeed."""
    return sum(executor.health.passing and not executor.leaving for executor in executors)
