"""The router: one queue, one pool of executors, one journal. Wiring only; each part says what it does.

A task's way: reserve a slot and poll (`runs`), then execute, record, report, publish (`task_run`).
"""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING

from queueworker.routing.counters import Counters
from queueworker.routing.executors.async_outcomes import AsyncOutcomes
from queueworker.routing.executors.attempt import EXECUTE_MARGIN_SECONDS, Attempts
from queueworker.routing.executors.executor_pool import ExecutorPool
from queueworker.routing.housekeeping import Housekeeper
from queueworker.routing.http.transport import HttpTransport, Transport
from queueworker.routing.journal.journal import Journal
from queueworker.routing.journal.redis_client import Client, connect
from queueworker.routing.lifecycle import Lifecycle
from queueworker.routing.limits import Limits
from queueworker.routing.memory_budget import MemoryAccount, MemoryBudget
from queueworker.routing.polling import Poller
from queueworker.routing.queue.client import QueueClient, QueueClients
from queueworker.routing.recovery import Unfinished
from queueworker.routing.router_log import RouterLog
from queueworker.routing.runs import TaskRuns
from queueworker.routing.snapshot import Snapshot
from queueworker.routing.task_run import TaskRunner
from queueworker.routing.wire.cloud_events import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queueworker.routing.config import Endpoint, RouterConfig
    from queueworker.routing.in_flight import InFlightTask
    from queueworker.routing.tracer import Tracer

log = logging.getLogger(__name__)


class Router:
    """`run()` returns once `stop()` or `drain()` has ended it.

    `on_transition` is called (synchronously, in the loop) whenever something changed that a condition in status
    depends on. `budget` and `tracer` are the process's. More than 15 attributes: the parts that it wires together.
    """

    def __init__(
        self,
        config: RouterConfig,
        endpoints: Sequence[Endpoint],
        *,
        worker_id: str,
        on_transition: Callable[[], None] = lambda: None,
        inherited: Unfinished | None = None,
        transport: Transport | None = None,
        connect: Callable[..., Client] = connect,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        limits: Limits = Limits(),  # noqa: B008 -- frozen
        budget: MemoryBudget | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._config, self._endpoints = config, endpoints
        self._worker_id, self._on_transition, self._inherited = worker_id, on_transition, inherited or Unfinished()
        self._clock, self._limits = clock, limits
        self._memory = MemoryAccount(budget or MemoryBudget(), self._fill_slots)
        self._transport = transport or HttpTransport(memory=self._memory)
        self._counters, self._life = Counters(), Lifecycle()
        self._drain_deadline = float("inf")
        """On the monotonic clock, once the router is told to end."""
        self._moving = False
        """The successor has another Redis: it cannot find in the journal what is left."""
        self._unfinished = Unfinished()
        spec, counters, self._log = config.spec, self._counters, RouterLog(config.group)
        self._journal = Journal(
            *(config.redis_url, config.group, worker_id, counters),
            limits=limits,
            memory=self._memory,
            clock=clock,
            on_recovered=self._on_recovered,
            on_fenced=self._on_fenced,
            on_link=self._on_journal_link,
            on_room=self._fill_slots,
            connect=connect,
        )
        self._queues = QueueClients(spec.queue.url, self._make_queue)
        self._pool = ExecutorPool(
            *(spec, self._transport),
            rng=rng or random.Random(),
            clock=clock,
            on_free=self._fill_slots,
            on_change=self._transition,
            counters=counters,
            limits=limits,
        )
        self._outcomes = AsyncOutcomes(config.redis_url, connect, max_body_bytes=spec.routing.max_body_bytes)
        envelope = Envelope(config.group, spec.events.format)
        used = (self._outcomes, self._pool, self._transport, self._journal, envelope)
        self._attempts = Attempts(spec, *used, counters, clock)
        self._poller = Poller(spec, self._queues.own, self._journal, self._memory, limits, self._fill_slots)
        self._runner = TaskRunner(
            *(spec, self._pool, self._attempts, self._journal, envelope, self._memory, counters),
            *(limits, clock),
            log=self._log,
            on_report_failure=self._transition,
            start_span=None if tracer is None else partial(tracer.task, config.group),
        )
        parts = (self._life, self._queues, self._pool, self._poller, self._runner, self._journal, self._memory)
        self._runs = TaskRuns(config.group, *parts, counters, clock, on_done=self._settle)
        kept = (self._life, self._queues, self._pool, self._outcomes, self._journal, self._poller, self._runs)
        self._housekeeper = Housekeeper(self._log, *kept, counters, clock, on_transition)

    # --- what it is told

    async def run(self) -> None:
        """Route until the router is told to stop. Raises nothing that a peer could cause."""
        self._life.started = True
        inherited = self._inherited
        try:
            await self._journal.start(inherited.entries, inherited.disowned)
            if not self._journal.writable:
                log.warning("%s: %s", self._config.group, self._journal.link.journal.message)
            if inherited.unwritten is not None:
                self._journal.inherit(inherited.unwritten)
            self._runs.revive(inherited.entries)
            self._pool.set_rival_slots(self._journal.lease.rival_slots)
            self._pool.set_endpoints(self._endpoints)
            self._settle()
            self._poller.resume()
            await self._housekeeper.run()
            while not self._life.drained.is_set() and (left := self._drain_deadline - self._clock()) > 0:
                await self._life.drained_within(min(left, 1.0))
                unserved = self._runner.final and not self._pool.members.healthy_count
                if unserved and await self._queues.own.depth() is None:
                    break  # nobody is left who could run a task or take its report: waiting changes nothing
        finally:
            await self._close()

    def serves(self, config: RouterConfig) -> bool:
        """Whether `apply` can take it. A router is bound to one queue and one Redis: others need another router."""
        return config.has_peers_of(self._config)

    def apply(self, config: RouterConfig) -> None:
        """Take a changed configuration, but for another queue or Redis; no task in flight is lost or started again."""
        if (config := config.at(self._config)) == self._config:
            return
        if config.redis_url != self._config.redis_url:
            self._journal.log_in(config.redis_url)
            self._outcomes.log_in(config.redis_url)
        self._config = config
        self._runner.spec = self._poller.spec = config.spec
        self._attempts.apply(config.spec)
        self._queues.apply(config.spec.routing.max_body_bytes, config.api_key)
        self._pool.apply(config.spec)
        self._settle()
        self._poller.resume()
        self._on_transition()

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """Make the pool hold exactly these executors."""
        self._endpoints = endpoints
        if self._life.started:
            self._pool.set_endpoints(endpoints)

    async def stop(self, *, final: bool = False) -> None:
        """Drain for at most `drainSeconds`: what is not done by then stays in the journal for the successor.

        `final`: there will be none, because the object is deleted, so what is not done is reported as failed.
        """
        self._runner.final = final
        await self._end(self._config.spec.routing.drain_seconds)

    async def drain(self, successor: RouterConfig) -> Unfinished:
        """End for a router of that configuration: tasks run to their end, and are reported where they came from.

        There is no limit but the tasks' own timeouts. With the same Redis the successor finds in the journal what could
        not be reported; with another Redis, or one that does not answer, it gets that from here, with events as well.
        """
        self._moving = not successor.has_redis_of(self._config)
        longest = self._runs.longest_timeout(self._config.spec.routing.task_timeout_seconds)
        await self._end(max(self._config.spec.routing.drain_seconds, longest + EXECUTE_MARGIN_SECONDS))
        return self._unfinished

    async def _end(self, seconds: float) -> None:
        self._drain_deadline = min(self._drain_deadline, self._clock() + seconds)
        self._life.stopping = True
        self._settle()
        if self._life.started:
            await self._life.stopped.wait()

    @property
    def in_flight(self) -> Mapping[str, InFlightTask]:
        """Tasks that were handed to us and are not reported yet, by eval_id."""
        return self._runs.flights

    def snapshot(self) -> Snapshot:
        queue, counters = self._queues.own, self._counters
        return Snapshot(
            group=self._config.group,
            worker_id=self._worker_id,
            intent=self._config.intent,
            phase=self._life.phase,
            executors=self._pool.snapshot(),
            queue=queue.link,
            events=self._journal.link.events,
            journal=self._journal.link.journal,
            queue_url=queue.url,
            queue_depth=self._housekeeper.depth,
            consecutive_errors=queue.backoff.consecutive_errors,
            last_task_time=self._runner.last_task_time,
            in_flight=len(self._runs.flights),
            events_buffered=self._journal.buffered_events,
            per_minute=self._housekeeper.history.per_minute,
            counters=counters,
            rivals=self._journal.lease.rivals,
            awaited=self._runs.awaited(),
            slots_free=self._pool.members.free_slots(),
            oldest_task_seconds=self._runs.oldest_seconds(),
            stalled=self._housekeeper.stalled,
            hold=self._poller.reason,
            memory_held=self._memory.held,
            memory_budget=self._memory.budget.max_bytes,
            pipeline=self._runner.pipeline(len(self._runs.flights), self._journal.buffered_events),
            history=self._housekeeper.history,
            failures=tuple(self._runner.failures),
            transitions=tuple(self._log.transitions),
        )

    # --- life

    async def _close(self) -> None:
        """Every step is tried, whatever the others raise: `stop()` must return."""
        self._life.stopping = True
        self._settle()
        self._poller.close()
        try:
            for step in (
                self._runs.end_polls, self._runs.end_runs, self._pool.close, self._outcomes.close, self._close_journal,
                self._housekeeper.close, self._transport.close,
            ):  # fmt: skip
                try:
                    await step()
                except Exception:
                    log.exception("%s: a step of closing the router failed", self._config.group)
        finally:
            self._queues.close()
            self._memory.close()
            self._life.end()
            self._on_transition()

    async def _close_journal(self) -> None:
        entries = self._journal.hand_over() if (moving := self._moving) else {}  # may change meanwhile
        unwritten, disowned = await self._journal.close(), self._journal.lease.disowned_next(moving=moving)
        self._unfinished = Unfinished(entries | self._journal.unsure(), unwritten, disowned)

    def _settle(self) -> None:
        changed = self._life.settle(self._config.intent, busy=self._runs.busy)
        self._poller.routing = self._life.routing
        if changed:
            self._on_transition()

    def _transition(self) -> None:
        self._housekeeper.changed = True
        self._on_transition()

    def _fill_slots(self) -> None:
        self._runs.fill_slots()

    def _on_recovered(self, found: dict[str, bytes]) -> None:
        self._runs.on_recovered(found)

    def _on_fenced(self, lost: set[str]) -> None:
        self._runs.on_fenced(lost)

    def _on_journal_link(self) -> None:
        self._transition()
        self._runs.fill_slots()

    def _make_queue(self, url: str) -> QueueClient:
        return QueueClient(
            *(url, self._config.api_key, self._transport, self._counters),
            limits=self._limits,
            max_body_bytes=self._config.spec.routing.max_body_bytes,
            on_turn=self._fill_slots,
            on_link=self._transition,
        )
