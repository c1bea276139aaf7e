"""What a router does once a second: rates, the queue's depth, its log, and the watchdog that notices a stall."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.resource.executors_spec import WhenUnavailable
from queueworker.routing.aio import cancelled
from queueworker.routing.history import History
from queueworker.routing.router_log import RouterLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.counters import Counters
    from queueworker.routing.executors.async_outcomes import AsyncOutcomes
    from queueworker.routing.executors.executor_pool import ExecutorPool
    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.lifecycle import Lifecycle
    from queueworker.routing.polling import Hold, Poller
    from queueworker.routing.queue.client import QueueClients
    from queueworker.routing.runs import TaskRuns

PERIOD_SECONDS = 1.0
DEPTH_PERIOD_SECONDS = 15.0
STALL_SECONDS = 60.0
UNSERVED_SECONDS = 5.0
"""Tasks that wait for so long with no healthy executor are worth a warning."""


class Watchdog:
    """Notices that nothing is pulled though tasks wait and slots are free, whatever the cause."""

    def __init__(self) -> None:
        self._pulled = -1
        self._since = 0.0

    def look(self, *, due: bool, pulled: int, hold: Hold | None, depth: int | None, now: float) -> str:
        """Why the router is stalled, in words; empty while it is not. `due`: tasks could be pulled now."""
        if not due or pulled != self._pulled:
            self._pulled, self._since = pulled, now
        if now - self._since < STALL_SECONDS:
            return ""
        why = hold.value if hold is not None else "the cause is not known: restart the router, and report this"
        return f"{depth} tasks wait and slots are free, but nothing was pulled for {now - self._since:.0f} s: {why}"


class Housekeeper:
    """`run` returns when the router is told to stop. `on_transition` is called when a stall begins or ends.

    More than 15 attributes: most are the parts that it looks after.
    """

    def __init__(
        self,
        log: RouterLog,
        life: Lifecycle,
        queues: QueueClients,
        pool: ExecutorPool,
        outcomes: AsyncOutcomes,
        journal: Journal,
        poller: Poller,
        runs: TaskRuns,
        counters: Counters,
        clock: Callable[[], float],
        on_transition: Callable[[], None],
    ) -> None:
        self.depth: int | None = None
        """Tasks that wait in the queue; None when the newest attempt to find out has failed."""
        self.stalled = ""
        self.changed = False
        """Something has changed that the log may have to tell."""
        self.history = History(counters)
        self._log = log
        self._life = life
        self._queues = queues
        self._pool = pool
        self._outcomes = outcomes
        self._journal = journal
        self._poller = poller
        self._runs = runs
        self._counters = counters
        self._clock = clock
        self._on_transition = on_transition
        self._watchdog = Watchdog()
        self._asking: asyncio.Task[None] | None = None
        self._depth_at = float("-inf")
        self._unserved = False
        self._served_at = clock()

    async def run(self) -> None:
        while not self._life.stopping:
            now = self._clock()
            if self.history.sample(now):
                self.history.add(now, *self._pool.members.usage())
            self._measure_depth(now)
            self._watch(now)
            self._tell_log(now)
            if self._outcomes.listening and self._pool.all_synchronous:
                await self._outcomes.stop_listening()
            self._pool.set_rival_slots(self._journal.lease.rival_slots)
            self._queues.keep_only({flight.queue for flight in self._runs.flights.values()})
            self._runs.fill_slots()
            await self._life.drained_within(PERIOD_SECONDS)

    async def close(self) -> None:
        if self._asking is not None:
            await cancelled(self._asking)

    def _measure_depth(self, now: float) -> None:
        if not self._life.routing or not self._queues.own.backoff.healthy:
            self.depth = None
        elif now - self._depth_at >= DEPTH_PERIOD_SECONDS:
            self._depth_at = now
            self._asking = asyncio.create_task(self._ask_depth())

    async def _ask_depth(self) -> None:
        self.depth = await self._queues.own.depth()

    def _watch(self, now: float) -> None:
        due = bool(self.depth) and self._life.routing and self._pool.can_reserve and self._queues.own.link.ok
        before = self.stalled
        self.stalled = self._watchdog.look(
            due=due, pulled=self._counters.pulled, hold=self._poller.hold(), depth=self.depth, now=now
        )
        self._watch_executors(now)
        if bool(before) != bool(self.stalled):
            self._log.stalled(self.stalled)
            self._on_transition()

    def _watch_executors(self, now: float) -> None:
        """Tell the log once that tasks wait although nobody could run them, and once that it is over."""
        waiting = self.depth if self.depth and self._life.routing and not self._pool.members.healthy_count else 0
        if not waiting:
            self._served_at = now
        if bool(waiting) is not self._unserved and (not waiting or now - self._served_at >= UNSERVED_SECONDS):
            self._unserved = bool(waiting)
            fails = self._poller.spec.executors.when_unavailable is WhenUnavailable.FAIL
            self._log.unserved(waiting, fails=fails)

    def _tell_log(self, now: float) -> None:
        if self.changed:
            link = self._journal.link
            links = {"queue": self._queues.own.link, "journal": link.journal, "events": link.events}
            self.changed = self._log.observe(links, self._pool.snapshot(), now)
        self._log.summarize(self._counters, len(self._runs.flights), self.depth, now)
