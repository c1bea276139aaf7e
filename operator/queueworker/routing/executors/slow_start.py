"""How many of its slots a returning executor may use: it warms up on one, then on more, then on all. Pure.

Envoy's and HAProxy's slow start scale a weight. A slot is what this pool gives out, so slots are what
grows, and under a backlog that holds whatever the strategy is. `window` is `executors.slowStartSeconds`.
"""

from __future__ import annotations

from queueworker.routing.executors.health import UNHEALTHY_PERIOD_SECONDS

TICK_SECONDS = 0.5


def begins(away: float, pool_up: float, window: float) -> bool:
    """Whether an executor that is healthy now has to warm up.

    `away`: seconds since it was last in use, infinite when it is new. A moment's absence (one broken connection) cools
    nothing down. `pool_up`: seconds that the pool has had a healthy executor without a break. A pool that
    woke up within the window has none that is warm, so nobody else could take the load.
    """
    return window > 0 and away >= UNHEALTHY_PERIOD_SECONDS and pool_up >= window


def usable(capacity: int, elapsed: float, window: float) -> int:
    """Slots that may be used so many seconds after the return: from 1, linearly, to all of them."""
    return capacity if elapsed >= window else 1 + int((capacity - 1) * elapsed / window)
