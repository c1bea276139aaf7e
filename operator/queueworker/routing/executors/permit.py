"""A permit for one slot of the pool: the only way to hold one, and the only way to give it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.slots import Slots


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
