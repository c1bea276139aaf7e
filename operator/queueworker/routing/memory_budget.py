"""One budget for what all routers of a process hold in memory: tasks, results, events and records that wait.

Each router has an account. It may pull while it holds less than `SHARE` times what is free: a router that is alone may
use nearly all of the budget, several share it, and one that holds little may pull however much the others hold. (These
are the dynamic thresholds of shared packet buffers, after Choudhury and Hahne, 1998.)

A task that was pulled is always executed and reported, whatever the budget says. Its result, if it is large, is read
from the executor's connection once there is room for it; each router may always read one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.routing.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_BUDGET_BYTES = 512 * MIB
SHARE = 8
# What a task takes beside its body and its result.
RUN_BYTES = 8 * KIB
# The task as it came, its code, the request to the executor, and its journal entry.
TASK_COPIES = 4
# The result as it came, its journal entry, and the report to the queue.
RESULT_COPIES = 3
# Events and records may use this part of the budget, so that routing goes on while Redis is away.
BUFFERED_PART = 1 / 2
# How fast the expected size of a task follows smaller tasks.
EXPECTATION_DECAY = 64


class MemoryBudget:
    """In bytes, estimated from the sizes of bodies. Its accounts are used in one event loop."""

    def __init__(self, max_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self.buffered = 0
        """The part of `held` that events and records take."""
        self._waiting: set[MemoryAccount] = set()
        """Accounts that may not pull."""
        self._claims: dict[Claim, None] = {}
        """Those that wait, the oldest first."""
        self._serving = False

    def wait_for_room(self, waiting: MemoryAccount | Claim) -> None:
        if isinstance(waiting, Claim):
            self._claims[waiting] = None
        else:
            self._waiting.add(waiting)

    def forget(self, waiting: MemoryAccount | Claim) -> None:
        if isinstance(waiting, Claim):
            self._claims.pop(waiting, None)
        else:
            self._waiting.discard(waiting)

    def freed(self) -> None:
        """Something was given back: those who wait are told soon."""
        if (self._waiting or self._claims) and not self._serving:
            self._serving = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        for claim in [*self._claims]:
            if claim.fits:
                del self._claims[claim]
                claim.grant()
        for account in [account for account in self._waiting if account.has_room]:
            self._waiting.discard(account)
            account.on_room()


class MemoryAccount:
    """What one router holds. `on_room` is called when it may pull again."""

    def __init__(self, budget: MemoryBudget, on_room: Callable[[], None]) -> None:
        self.budget = budget
        self.on_room = on_room
        self.held = 0
        self.results = 0
        """Results that are being received, or wait for the journal and the queue."""
        self.waiting = 0
        """Results that wait for room."""
        self._buffered = 0
        self._expected_task = RUN_BYTES
        self._polls = 0

    # --- whether more may come

    @property
    def has_room(self) -> bool:
        return not self.held or (not self.waiting and self.has_room_for(0))

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes more leave room for others."""
        budget = self.budget
        return self.held + size < SHARE * (budget.max_bytes - budget.held - size)

    def may_pull(self) -> bool:
        """Whether another task may come. If not, `on_room` follows."""
        if self.has_room:
            return True
        self.budget.wait_for_room(self)
        return False

    @property
    def excess(self) -> int:
        """How many bytes of events and records are too many while Redis is away."""
        free = self.budget.max_bytes * BUFFERED_PART - self.budget.buffered
        return max(0, int((self._buffered - SHARE * free) / (1 + SHARE)))

    # --- what is held

    def take_task(self, size: int) -> None:
        """A task of so many bytes is in flight until `give_task`."""
        held = RUN_BYTES + TASK_COPIES * size
        expected = self._expected_task
        self._expected_task = held if held > expected else expected - (expected - held) // EXPECTATION_DECAY
        self._add(held)

    def give_task(self, size: int) -> None:
        self._add(-RUN_BYTES - TASK_COPIES * size)
        self.budget.freed()

    def take_result(self, size: int) -> None:
        """A result of so many bytes waits for the journal and the queue until `give_result`."""
        self.results += RESULT_COPIES * size
        self._add(RESULT_COPIES * size)

    def give_result(self, size: int) -> None:
        self.results -= RESULT_COPIES * size
        self._add(-RESULT_COPIES * size)
        self.budget.freed()

    def expect_tasks(self, polls: int) -> None:
        """So many polls are under way: each may bring a task as large as those before it."""
        expected = polls * self._expected_task
        self._add(expected - self._polls)
        self._polls = expected

    def set_buffered(self, size: int) -> None:
        """So many bytes of events and records wait for Redis."""
        change, self._buffered = size - self._buffered, size
        self.budget.buffered += change
        self._add(change)
        if change < 0:
            self.budget.freed()

    def claim(self, size: int, on_grant: Callable[[], None]) -> Claim:
        """Room for a result of so many bytes that is being received; to be released when it is there."""
        return Claim(self, size, on_grant)

    def close(self) -> None:
        """The router has ended, and holds nothing any more."""
        budget = self.budget
        self.set_buffered(0)
        budget.forget(self)
        budget.held -= self.held
        self.held = 0
        budget.freed()
        self.budget = MemoryBudget()  # whatever ends later has been given back already

    def _add(self, size: int) -> None:
        self.held += size
        self.budget.held += size


class Claim:
    """`on_grant` is called later if the claim is not granted at once."""

    __slots__ = ("_account", "_on_grant", "_size", "granted")

    def __init__(self, account: MemoryAccount, size: int, on_grant: Callable[[], None]) -> None:
        self._account = account
        self._size = size
        self._on_grant = on_grant
        self.granted = self.fits
        if self.granted:
            account.take_result(size)
        else:
            account.waiting += 1
            account.budget.wait_for_room(self)

    @property
    def fits(self) -> bool:
        account = self._account
        return not account.results or account.has_room_for(RESULT_COPIES * self._size)

    def grant(self) -> None:
        self.granted = True
        self._account.waiting -= 1
        self._account.take_result(self._size)
        self._on_grant()

    def release(self) -> None:
        if self.granted:
            self._account.give_result(self._size)
        else:
            self._account.waiting -= 1
            self._account.budget.forget(self)
