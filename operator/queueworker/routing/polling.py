"""When the queue is polled, by how many requests at once, and why it is not: the one place that says "no more"."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING

from queueworker.resource.spec import JournalPolicy, QueueWorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.limits import Limits
    from queueworker.routing.memory_budget import MemoryAccount
    from queueworker.routing.queue.client import QueueClient


class Hold(StrEnum):
    """Why nothing is pulled, though slots are free."""

    NOT_ROUTING = "the router is not routing"
    JOURNAL = "the journal cannot be written, and routing.journal is Required"
    REFUSED_REPORTS = "the queue refuses all reports"
    MEMORY = "the memory budget of the process (MEMORY_BUDGET_MEBIBYTES) is used up"
    EVENTS = "too many events wait for Redis"


class Poller:
    """Starts with one poll after an idle time, and allows twice as many each time that a poll finds a task.

    So a backlog fills every slot within a few round trips, and an empty queue is asked once per interval.
    `on_due` is called when the next poll is due.
    """

    def __init__(
        self,
        spec: QueueWorkerSpec,
        queue: QueueClient,
        journal: Journal,
        memory: MemoryAccount,
        limits: Limits,
        on_due: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.routing = False
        """Whether the object wants tasks to be pulled now."""
        self.under_way = 0
        self.allowed = 0
        """Polls that may be under way at once; 0 between an empty answer and the next poll."""
        self._queue = queue
        self._journal = journal
        self._memory = memory
        self._limits = limits
        self._on_due = on_due
        self._timer: asyncio.TimerHandle | None = None

    def may_start(self) -> bool:
        """Whether one more poll may start now. If so, start it: while the queue is away this takes the only try."""
        return self.under_way < self.allowed and self.hold() is None and self._queue.backoff.try_acquire()

    def hold(self) -> Hold | None:
        """Why nothing is pulled; None when polls may start as the queue allows."""
        if not self.routing:
            return Hold.NOT_ROUTING
        if not self._journal.writable and self.spec.routing.journal is JournalPolicy.REQUIRED:
            return Hold.JOURNAL
        if self._queue.reporter.all_refused:
            return Hold.REFUSED_REPORTS
        if not self._journal.has_room:
            return Hold.EVENTS
        if not self._memory.may_pull():
            return Hold.MEMORY
        return None

    @property
    def reason(self) -> str:
        """Why nothing is pulled though the object wants it; empty when polls may start."""
        hold = self.hold()
        return "" if hold is None or hold is Hold.NOT_ROUTING else hold.value

    def started(self) -> None:
        """A poll is under way; `ended` follows, whatever comes of it."""
        self.under_way += 1
        self._memory.expect_tasks(self.under_way)

    def ended(self, *, found: bool) -> None:
        """A poll brought a task, or there is nothing to do until the next one."""
        self.under_way -= 1
        self._memory.expect_tasks(self.under_way)
        if not found:
            self._pause()
        elif self.allowed < self._limits.max_concurrent_polls:
            self.allowed *= 2

    def resume(self) -> None:
        """Poll now, if anything allows it."""
        self.allowed = max(1, self.allowed)
        self._cancel_timer()
        self._on_due()

    def close(self) -> None:
        self.routing = False
        self._cancel_timer()

    def _pause(self) -> None:
        self.allowed = 0
        if self._timer is None and self.routing:
            delay = max(self.spec.queue.poll_interval_seconds, self._queue.poll_pause)
            self._timer = asyncio.get_running_loop().call_later(delay, self.resume)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
