"""How many of its slots a returning executor may use: it warms up on one, then on more, then on all.

The slow start of Envoy and HAProxy scales a weight. This pool hands out slots, so the number of slots grows: that
holds under a backlog, whatever the strategy. The time until all are in use is `executors.slowStartSeconds`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.routing.executors.health_checks import UNHEALTHY_PERIOD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queueworker.routing.executors.executor import Executor

STEP_SECONDS = 0.5


def begins(away: float, pool_up: float, window: float) -> bool:
    """Whether an executor that became healthy has to warm up, which takes `window` seconds.

    `away`: seconds since it was last in use, infinite when it is new. A moment's absence (one broken connection) needs
    no warm-up. `pool_up`: seconds for which the pool has had a healthy executor without a break. In a pool that has
    not been up for a whole window nobody is warm, so nobody else could take the load.
    """
    return window > 0 and away >= UNHEALTHY_PERIOD_SECONDS and pool_up >= window


def usable(capacity: int, elapsed: float, window: float) -> int:
    """Slots that may be in use so many seconds after the return: from 1, linearly, to all of them."""
    return capacity if elapsed >= window else 1 + int((capacity - 1) * elapsed / window)


class WarmUp:
    """The warm-up of a pool's executors. Calls `on_step` every half second while one warms up.

    The owner sets `window`, in seconds, when it changes.
    """

    def __init__(self, window: float, *, clock: Callable[[], float], on_step: Callable[[], None]) -> None:
        self.window = window
        self._clock = clock
        self._on_step = on_step
        self._up_since = 0.0
        """Since when the pool has had a healthy executor without a break."""
        self._timer: asyncio.TimerHandle | None = None

    def came(self, executor: Executor, healthy_count: int) -> None:
        """The executor became healthy; it is one of so many."""
        now = self._clock()
        if healthy_count == 1:
            self._up_since = now
        if begins(now - executor.away_since, now - self._up_since, self.window):
            executor.warming_since = now
            if self._timer is None:
                self._start_timer()

    def went(self, executor: Executor) -> None:
        """The executor became unhealthy, was ejected, or leaves the pool."""
        executor.away_since = self._clock()
        executor.warming_since = None

    def usable(self, executor: Executor, capacity: int) -> int:
        """How many slots of that capacity the executor may use now: never fewer than are in use already."""
        if executor.warming_since is None:
            return capacity
        warm = usable(capacity, self._clock() - executor.warming_since, self.window)
        return min(capacity, max(warm, executor.in_flight))

    def step(self, members: Iterable[Executor], healthy_count: int) -> list[Executor]:
        """Called on each step, with the pool's executors. Returns those whose usable slots may have changed.

        Where all healthy executors warm up, none is warm enough to carry the load: then each gets all its slots.
        """
        now = self._clock()
        warming = [executor for executor in members if executor.warming_since is not None]
        all_of_them = len(warming) == healthy_count
        for executor in warming:
            if all_of_them or (executor.warming_since is not None and now - executor.warming_since >= self.window):
                executor.warming_since = None
        if any(executor.warming_since is not None for executor in warming):
            self._start_timer()
        return warming

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(STEP_SECONDS, self._due)

    def _due(self) -> None:
        self._timer = None
        self._on_step()
