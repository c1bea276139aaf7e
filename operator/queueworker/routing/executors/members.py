"""The executors of a pool, and what is asked of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.routing.config import Endpoint
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.in_flight import InFlightTask


class Members:
    """Those in the pool, and those that left it and still run tasks."""

    def __init__(self) -> None:
        self.present: dict[Endpoint, Executor] = {}
        self.leaving: dict[Endpoint, Executor] = {}
        """Some may be done by now."""
        self.healthy = 0
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
        return self.healthy == 0 and not any(executor.running for executor in self.all())

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
