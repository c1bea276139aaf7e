"""One executor as the pool sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.routing.executors.health import HealthState
from queueworker.routing.executors.outliers import Record

if TYPE_CHECKING:
    import asyncio

    from queueworker.routing.config import Endpoint


class Executor:
    """Times are seconds on the monotonic clock, but for `last_check`."""

    __slots__ = (
        "available", "away_since", "capacity", "counted", "ejected", "ejection", "endpoint", "execute_url", "free",
        "health", "in_flight", "last_check", "last_good", "later", "leaving", "listed_at", "name", "probe", "record",
        "rest", "returned_at", "told_capacity", "watch",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, capacity: int) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.execute_url = f"{endpoint.url}/execute"
        self.capacity = capacity
        """What it may be given at once now: all of its slots, or fewer while it warms up."""
        self.told_capacity: int | None = None
        self.in_flight = 0
        self.free = 0
        """Its part of the pool's count of free slots."""
        self.health = HealthState()
        self.last_good = float("-inf")
        self.last_check: float | None = None
        self.rest: asyncio.TimerHandle | None = None
        """Ends the moment that it is left alone for, after it refused a task."""
        self.record = Record()
        self.ejected = ""
        """Why it is left alone although its checks are good; empty when it is not."""
        self.ejection: asyncio.TimerHandle | None = None
        self.counted = False
        """Whether it is among the pool's healthy ones."""
        self.away_since = float("-inf")
        self.returned_at: float | None = None
        """Since when it warms up; None when it is warm."""
        self.leaving = False
        self.later: bool | None = None
        """Whether it answers `running` and publishes the outcome itself; None until its first answer."""
        self.available = False
        """Healthy, in the pool, not resting, with a free slot: exactly when it is in the pool's list."""
        self.listed_at = -1
        self.probe: asyncio.Task[bool] | None = None
        self.watch: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Its checks are good, and it is not ejected."""
        return self.health.healthy and not self.ejected
