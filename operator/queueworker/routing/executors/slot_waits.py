"""How long a task waits for a slot, and when it gives up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from queueworker.resource.executors_spec import WhenUnavailable
from queueworker.routing.executors.health import UNHEALTHY_PERIOD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.resource.executors_spec import ExecutorsSpec
    from queueworker.routing.executors.permit import SlotPermit
    from queueworker.routing.executors.slots import Slots
    from queueworker.routing.in_flight import InFlightTask

# How long a later attempt at a task waits for another executor than those that failed it.
AVOID_SECONDS = 10.0


class NoExecutors(Exception):
    """No executor was healthy during the whole grace period, and the object says `whenUnavailable: Fail`."""

    def __init__(self) -> None:
        super().__init__("No healthy executors available")  # the legacy worker's words


class SlotWaits:
    """Waits in the line of a pool's slots. The owner sets `spec` when it changes.

    `is_down`: whether every executor is sick and idle. `has_another`: whether an executor is healthy that has not
    failed the task.
    """

    def __init__(
        self,
        spec: ExecutorsSpec,
        slots: Slots,
        clock: Callable[[], float],
        is_down: Callable[[], bool],
        has_another: Callable[[InFlightTask], bool],
    ) -> None:
        self.spec = spec
        self._slots = slots
        self._clock = clock
        self._is_down = is_down
        self._has_another = has_another

    async def any_slot(self) -> None:
        """Wait until an executor is available. Raises `NoExecutors` after the grace period with all of them down."""
        while not self._slots.available:
            woken = await self._slots.wait(self._patience())
            if not woken and self._is_down() and self.spec.when_unavailable is WhenUnavailable.FAIL:
                raise NoExecutors

    async def another_slot(self, permit: SlotPermit, flight: InFlightTask, on_wait: Callable[[], None]) -> bool:
        """Wait until an executor is available that has not failed the task. Returns whether there was a wait.

        Waits as long as such an executor is healthy; before a later attempt at most for `AVOID_SECONDS`, because the
        one that failed may do better now. Before the first wait the permit is released, and `on_wait` called.
        """
        waited = False
        deadline = self._clock() + (AVOID_SECONDS if flight.attempt > 1 else math.inf)
        while not self._slots.others(flight.failed_at) and self._has_another(flight):
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
        return grace if self._is_down() else max(grace, UNHEALTHY_PERIOD_SECONDS)
