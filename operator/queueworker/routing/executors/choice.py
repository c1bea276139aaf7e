"""The choice of an executor for one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.routing.executors.strategies import Chooser, chooser

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from queueworker.resource.spec import RoutingSpec
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.slots import Slots
    from queueworker.routing.in_flight import InFlightTask


class Choice:
    """Chooses by the strategy of the spec, and past the executors that have failed the task."""

    def __init__(self, spec: RoutingSpec, slots: Slots, rng: Random) -> None:
        self._slots = slots
        self._rng = rng
        self._by = (spec.strategy, spec.sticky_key)
        self._chooser: Chooser[Executor] = chooser(*self._by, rng)

    def apply(self, spec: RoutingSpec) -> None:
        """Take a changed spec; `set_members` follows."""
        if self._by != (spec.strategy, spec.sticky_key):
            self._by = (spec.strategy, spec.sticky_key)
            self._chooser = chooser(*self._by, self._rng)

    def set_members(self, members: Iterable[Executor]) -> None:
        """Take the pool's executors. Called after every change of the pool or of a capacity."""
        self._chooser.set_members(tuple(members))

    def executor_for(self, flight: InFlightTask) -> Executor:
        """An executor that is available; there must be one. One that has failed the task only if there is no other."""
        slots = self._slots
        executor = self._chooser.choose(slots.available, flight.task)
        if flight.failed_at and executor.name in flight.failed_at:
            others = slots.others(flight.failed_at)
            return self._rng.choice(others) if others else executor
        return executor
