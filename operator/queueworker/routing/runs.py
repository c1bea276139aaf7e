"""The runs of one router: which tasks are in flight, and the asyncio tasks that carry them.

A run begins with a poll, or with a task that was taken over. A poll is never cancelled, because the queue may have
popped a task for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from queueworker.routing.counters import Counters, LossCause
from queueworker.routing.in_flight import InFlightTask
from queueworker.routing.journal.entries import UnreadableEntry
from queueworker.routing.polling import Hold
from queueworker.routing.recovery import revive, stub_task
from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.task import InvalidTask, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from queueworker.routing.executors.executor_pool import ExecutorPool
    from queueworker.routing.executors.slots import SlotPermit
    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.lifecycle import Lifecycle
    from queueworker.routing.memory_budget import MemoryAccount
    from queueworker.routing.polling import Poller
    from queueworker.routing.queue.client import QueueClient, QueueClients
    from queueworker.routing.task_run import TaskRunner

log = logging.getLogger(__name__)

CLOSING_SECONDS = 3.0
# What may have come up while the process was frozen. Not memory: this very poll counts there.
_SINCE_FROZEN = (Hold.NOT_ROUTING, Hold.JOURNAL)
OUTCOME_LOOK_SECONDS = 0.2
"""Between two looks at a task whose outcome a second queue waits for."""


class TaskRuns:
    """Starts runs while slots are free. `on_done` is called when a run has ended."""

    def __init__(
        self,
        group: str,
        life: Lifecycle,
        queues: QueueClients,
        pool: ExecutorPool,
        poller: Poller,
        runner: TaskRunner,
        journal: Journal,
        memory: MemoryAccount,
        counters: Counters,
        clock: Callable[[], float],
        on_done: Callable[[], None],
    ) -> None:
        self.flights: dict[str, InFlightTask] = {}
        """Tasks that were handed to us and are not reported yet."""
        self._recovered: deque[InFlightTask] = deque()
        """Those taken over that wait for a slot; they go before new polls."""
        self._awaited: dict[str, InFlightTask] = {}
        """Those taken over that an asynchronous executor had, and may have."""
        self._runs: set[asyncio.Task[None]] = set()
        self._group = group
        self._life = life
        self._queues = queues
        self._pool = pool
        self._poller = poller
        self._runner = runner
        self._journal = journal
        self._memory = memory
        self._counters = counters
        self._clock = clock
        self._on_done = on_done

    @property
    def busy(self) -> bool:
        return bool(self._runs)

    def oldest_seconds(self) -> float:
        """The age of the oldest task in flight, which is the one that was added first; 0 if there is none."""
        oldest = next(iter(self.flights.values()), None)
        return self._clock() - oldest.pulled_at if oldest is not None else 0.0

    def awaited(self) -> dict[str, int]:
        """Tasks of dead routers that asynchronous executors may still run, by the name of the executor."""
        found = Counter(flight.executor for flight in self._awaited.values() if flight.deadline is not None)
        return dict(found)

    def longest_timeout(self, default: int) -> int:
        """Of the tasks in flight, in seconds; `default` is that of a task without one. 0 if there is none."""
        return max((flight.task.timeout or default for flight in self.flights.values()), default=0)

    def fill_slots(self) -> None:
        """Start as many runs as may start now. Called whenever a slot, a task or a permission may have come."""
        pool = self._pool
        while pool.can_reserve and not self._life.stopping:
            if self._recovered:
                self._start(self._carry(self._recovered.popleft(), pool.reserve()))
            elif self._poller.may_start():
                self._poller.started()
                self._start(self._poll_and_carry(pool.reserve(), self._queues.own.backoff.epoch))
            else:
                return

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        run = asyncio.create_task(work)
        self._runs.add(run)
        run.add_done_callback(self._run_done)

    def _run_done(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        if not run.cancelled() and run.exception() is not None:
            log.error("%s: a task run broke", self._group, exc_info=run.exception())
        if not self._life.routing:
            self._on_done()

    async def _poll_and_carry(self, permit: SlotPermit, epoch: int) -> None:
        """A run from its poll on. The permit is given back, whatever happens."""
        try:
            task = None
            try:
                task = await self._poll(epoch)
            finally:
                self._poller.ended(found=task is not None)
            if task is not None:
                flight = self._add(InFlightTask(task, self._queues.own, self._clock()))
                self.fill_slots()
                await self._carry(flight, permit)
        finally:
            permit.release()

    async def _poll(self, epoch: int) -> Task | None:
        """The next task that is to be routed; None when there is nothing to do until the next poll.

        `epoch` is the backoff's when the poll was allowed. A duplicate, or a task that is invalid, is followed by one
        more poll at once, and no more: an answer that never changes must not be asked for without a pause.
        """
        queue = self._queues.own
        for _ in range(2):
            if not self._life.routing:
                break
            if self._clock() > self._journal.lease.until:
                await self._journal.lease.verify()
                if self._poller.hold() in _SINCE_FROZEN:
                    break
            try:
                task = await queue.pull(epoch)
            except InvalidTask as error:
                log.warning("%s: queue %s: %s", self._group, queue.url, error)
                if error.eval_id is not None and not self._is_duplicate(error.eval_id):
                    self._fail(error.eval_id, queue, str(error))
            else:
                if task is None or not self._is_duplicate(task.eval_id):
                    return task
                self._counters.duplicates += 1
            epoch = queue.backoff.epoch
        queue.backoff.abandoned(queue.backoff.epoch)
        return None

    def _is_duplicate(self, eval_id: str) -> bool:
        """Whether a task of that id is in flight here. It is not run again then, but its report may have been too
        early. If it came from another queue, this one gets the same outcome.
        """
        flight, queue = self.flights.get(eval_id), self._queues.own
        if flight is None:
            return False
        if flight.queue is queue:
            flight.redelivered = True
        else:
            self._start(self._report_as_well(flight, queue))
        return True

    async def _report_as_well(self, flight: InFlightTask, queue: QueueClient) -> None:
        """The own report of the task may never end: the queue that it came from may be gone for good."""
        while flight.outcome is None and self.flights.get(flight.eval_id) is flight:
            await asyncio.sleep(OUTCOME_LOOK_SECONDS)
        await self._journal.durable(flight.eval_id)  # or a successor might come to another outcome
        outcome = flight.outcome or Outcome(completed=False, error="another router has a task of this id")
        log.warning(
            "%s: task %s came from %s as well as from %s", self._group, flight.eval_id, queue.url, flight.queue.url
        )
        await queue.reporter.report(flight.eval_id, outcome, lambda: None)

    async def _carry(self, flight: InFlightTask, permit: SlotPermit | None = None) -> None:
        try:
            await self._runner.run(flight, permit)
        finally:
            if self.flights.get(flight.eval_id) is flight:
                self._remove(flight)

    def _add(self, flight: InFlightTask) -> InFlightTask:
        self.flights[flight.eval_id] = flight
        self._memory.take_task(len(flight.task.raw))
        return flight

    def _remove(self, flight: InFlightTask) -> None:
        del self.flights[flight.eval_id]
        self._awaited.pop(flight.eval_id, None)
        self._memory.give_task(len(flight.task.raw))

    def _fail(self, eval_id: str, queue: QueueClient, error: str) -> None:
        """Report a task as failed that cannot be routed as it came."""
        outcome = Outcome(completed=False, error=error)
        flight = InFlightTask(stub_task(eval_id), queue, self._clock(), outcome=outcome)
        self._start(self._carry(self._add(flight)))

    # --- recovery

    def on_recovered(self, found: dict[str, bytes]) -> None:
        """Take over what a dead router left: finish what was executed, route the rest as `recovery` says."""
        self._counters.recovered += self.revive(found)
        log.info("%s: took over %d tasks of a router that died", self._group, len(found))
        self.fill_slots()

    def revive(self, found: dict[str, bytes]) -> int:
        """Make runs of entries that are in our journal by now. Returns how many were not in flight here already."""
        new = {eval_id: raw for eval_id, raw in found.items() if eval_id not in self.flights}
        recovery = self._runner.spec.routing.recovery
        for eval_id, raw in new.items():
            try:
                flight = revive(eval_id, raw, recovery, self._queues.of, self._clock())
            except UnreadableEntry as error:
                self._start(self._journal.takeover.quarantine(eval_id, raw))
                self._fail(eval_id, self._queues.own, f"the journal's entry of the task cannot be read ({error})")
                continue
            self._add(flight)
            if flight.outcome is not None:
                self._start(self._carry(flight))
                continue
            self._recovered.append(flight)
            if flight.deadline is not None:
                self._awaited[eval_id] = flight
        return len(new)

    def on_fenced(self, lost: set[str]) -> None:
        """Another router has these tasks now. A poll goes on: the task that it may bring was never in the journal.

        They are out of the table at once: what is left in our old journal may come back to us as recovered.
        """
        for flight in [self.flights[eval_id] for eval_id in lost if eval_id in self.flights]:
            self._remove(flight)
            flight.lost = True
            if flight.run is not None:
                flight.run.cancel()
        self._recovered = deque(flight for flight in self._recovered if not flight.lost)

    # --- the end

    async def end_polls(self) -> None:
        """However short the drain: the journal must get what the queue has popped."""
        deadline = self._clock() + CLOSING_SECONDS
        while self._poller.under_way and self._clock() < deadline:
            await asyncio.sleep(CLOSING_SECONDS / 100)
        for _ in range(self._poller.under_way):
            self._counters.count_lost_pull(LossCause.NO_ANSWER)

    async def end_runs(self) -> None:
        """Cancel what runs; with no successor, report what could not be finished as failed. No run begins any more."""
        self._journal.takeover.end()
        for run in list(self._runs):
            run.cancel()
        if self._runner.final:
            for flight in self._recovered:
                self._start(self._runner.give_up(flight))
        if self._runs:
            await asyncio.wait(self._runs, timeout=2 * CLOSING_SECONDS)
