"""One executor as the pool sees it, and the executors of a pool."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queueworker.routing.executors.health_checks import HealthState
from queueworker.routing.executors.outliers import FailureHistory
from queueworker.routing.snapshot import ExecutorFailure, ExecutorSnapshot, ExecutorState

if TYPE_CHECKING:
    import asyncio

    from queueworker.routing.config import Endpoint
    from queueworker.routing.in_flight import InFlightTask

MAX_FAILURES = 5
"""Failures that are kept of each executor."""
MAX_REASON_CHARS = 500


class Executor:
    """The state of one executor. Times are seconds on the monotonic clock, except `last_check`.

    More than 15 attributes: each part of the pool keeps here what it knows of the executor, so that a look-up costs
    nothing and nothing has to be cleaned up when the executor leaves.
    """

    __slots__ = (
        "advertised_capacity", "available", "available_index", "away_since", "capacity", "capacity_due",
        "completes_async", "cooldown_timer", "counts_as_healthy", "ejected_until", "ejection_reason", "ejection_timer",
        "endpoint", "execute_url", "failures", "free", "health", "health_loop", "in_flight", "last_check",
        "last_failures", "last_success", "leaving", "name", "probe", "running", "silent", "warming_since",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, concurrency: int | None) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.execute_url = f"{endpoint.url}/execute"
        self.capacity = concurrency or 1
        """Tasks that it may run at once now: `concurrency`, what it advertises, or fewer while it warms up."""
        self.advertised_capacity: int | None = None
        """`max_concurrent` of its answer to `/capacity`; 0 when it has no such call, None while it is not known."""
        self.capacity_due = float("-inf")
        """When it is to be asked again, after it did not answer; until then it is left alone."""
        self.in_flight = 0
        """Slots in use: by tasks, and by slots that cool down after failed tasks."""
        self.running = 0
        """Calls of `/execute` that it has not answered yet."""
        self.silent = False
        """It let a health check time out while it ran a task, and has answered nothing since: it gets no task."""
        self.free = 0
        """Its share of `Slots.free`: capacity minus in flight while it is available, else 0."""
        self.health = HealthState()
        self.last_success = float("-inf")
        """Time of the last health check that succeeded."""
        self.last_check: float | None = None
        """Unix time in seconds of the last health check's answer."""
        self.failures = FailureHistory()
        self.cooldown_timer: asyncio.TimerHandle | None = None
        """Runs while the executor gets no task because it refused one."""
        self.ejection_reason = ""
        """Why it is ejected although its health checks succeed; empty when it is not ejected."""
        self.ejection_timer: asyncio.TimerHandle | None = None
        self.ejected_until: float | None = None
        """Unix time in seconds of the end of its ejection; None when it is not ejected."""
        self.last_failures: tuple[ExecutorFailure, ...] = ()
        """For people; the newest first."""
        self.counts_as_healthy = False
        """Whether `Members.healthy_count` includes it."""
        self.away_since = float("-inf")
        self.warming_since: float | None = None
        """Start of its warm-up; None when it has all its slots."""
        self.leaving = False
        """No longer in the pool; it finishes the tasks that it runs."""
        self.completes_async: bool | None = None
        """Whether it answers `running` and publishes the outcome itself; None until its first answer."""
        self.available = False
        """Whether it may be given a task now: exactly the executors in `Slots.available`."""
        self.available_index = -1
        self.probe: asyncio.Task[bool] | None = None
        """The health check under way, or the last one."""
        self.health_loop: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Its health checks succeed, and it is not ejected."""
        return self.health.passing and not self.ejection_reason

    @property
    def state(self) -> ExecutorState:
        if self.leaving:
            return ExecutorState.LEAVING
        if not self.health.passing:
            return ExecutorState.UNCHECKED if self.last_check is None else ExecutorState.UNHEALTHY
        if self.ejection_reason:
            return ExecutorState.EJECTED
        if self.silent:
            return ExecutorState.SILENT
        return ExecutorState.HEALTHY if self.warming_since is None else ExecutorState.WARMING_UP

    def record_failure(self, reason: str) -> None:
        """Keep the failure for people to see."""
        newest = ExecutorFailure(time.time(), reason[:MAX_REASON_CHARS])
        self.last_failures = (newest, *self.last_failures[: MAX_FAILURES - 1])

    def max_slots(self, concurrency: int | None) -> int:
        """Tasks that it may run at once when it is warm."""
        if concurrency is None:
            return self.advertised_capacity or 1
        return min(concurrency, self.advertised_capacity or concurrency)

    def snapshot(self) -> ExecutorSnapshot:
        return ExecutorSnapshot(
            name=self.name,
            url=self.endpoint.url,
            healthy=self.healthy,
            in_flight=self.in_flight,
            capacity=self.capacity,
            last_check=self.last_check,
            reason=self.health.reason or self.ejection_reason,
            leaving=self.leaving,
            idle=not self.running,
            state=self.state,
            ejected_until=self.ejected_until,
            failures=self.last_failures,
        )


class Members:
    """Those in the pool, and those that left it and still run tasks."""

    def __init__(self) -> None:
        self.present: dict[Endpoint, Executor] = {}
        self.leaving: dict[Endpoint, Executor] = {}
        """Some may be done by now."""
        self.healthy_count = 0
        """Executors in the pool whose health checks succeed and that are not ejected."""

    def all(self) -> list[Executor]:
        """Those in the pool, and those that left and still run tasks."""
        return [*self.present.values(), *(e for e in self.leaving.values() if e.in_flight)]

    def find(self, name: str) -> Executor | None:
        return next((executor for executor in self.all() if executor.name == name), None)

    def drop_idle(self) -> None:
        """Forget those that left and are done."""
        self.leaving = {endpoint: executor for endpoint, executor in self.leaving.items() if executor.in_flight}

    def down(self) -> bool:
        """Whether every executor is sick and idle."""
        return self.healthy_count == 0 and not any(executor.running for executor in self.all())

    def has_another(self, flight: InFlightTask) -> bool:
        """Whether an executor is healthy that has not failed the task; it may be busy."""
        return any(e.healthy and e.name not in flight.failed_at for e in self.present.values())

    def usage(self) -> tuple[int, int]:
        """Slots in use, and slots of the healthy executors."""
        found = self.all()
        in_use = sum(executor.in_flight for executor in found)
        return in_use, sum(e.capacity for e in found if e.healthy and not e.leaving)

    def free_slots(self) -> int:
        """Slots that could take a task now, including those that are reserved for pulls."""
        return sum(executor.free for executor in self.present.values())
