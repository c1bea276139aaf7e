"""One task's way, from the pull to the event: execute → record → report → publish, in this order.

Whatever dies in between, the task is reported once. The outcome is in the journal before the report, unless Redis is
away; the entry of a first attempt is written while the executor is called already (docs/design.md says why).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing import router_log
from queueworker.routing.aio import uncancel
from queueworker.routing.executors.attempt import EXECUTE_MARGIN_SECONDS, Attempts, Retry
from queueworker.routing.executors.slots import NoExecutors, SlotPermit
from queueworker.routing.in_flight import InFlightTask, count_death, failed_task, record_outcome, record_state
from queueworker.routing.journal.entries import State
from queueworker.routing.snapshot import Pipeline, TaskFailure
from queueworker.routing.wire.outcome import Outcome, event
from queueworker.routing.wire.task import execute_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.counters import Counters
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.executor_pool import ExecutorPool
    from queueworker.routing.journal.failed_tasks import FailedTask
    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.limits import Limits
    from queueworker.routing.memory_budget import MemoryAccount
    from queueworker.routing.router_log import RouterLog
    from queueworker.routing.tracer import TaskSpan
    from queueworker.routing.wire.cloud_events import Envelope

log = logging.getLogger(__name__)

GIVE_UP_SECONDS = 3.0
MAX_FAILURES = 20
"""Failed tasks that are kept in memory for the HTTP API. Redis keeps more of them."""


class Fenced(Exception):
    """Another router has taken the task over: nothing more may be done for it here."""


class TaskRunner:
    """Carries tasks from slot to event, for one router. `spec` is the current one: the router changes it.

    More than 15 attributes: the parts that it uses, and what it counts for people.
    """

    def __init__(
        self,
        spec: QueueWorkerSpec,
        pool: ExecutorPool,
        attempts: Attempts,
        journal: Journal,
        envelope: Envelope,
        memory: MemoryAccount,
        counters: Counters,
        limits: Limits,
        clock: Callable[[], float],
        *,
        log: RouterLog,
        on_report_failure: Callable[[], None],
        start_span: Callable[..., TaskSpan] | None = None,
    ) -> None:
        self.spec = spec
        self.final = False
        """No router comes after this one: a task that is cancelled is reported as failed."""
        self.last_task_time: float | None = None
        """Unix time in seconds of the last report."""
        self.executing = 0
        """Tasks that executors have."""
        self.reporting = 0
        """Tasks that have ended and wait for the journal and for the queue."""
        self.failures: deque[TaskFailure] = deque(maxlen=MAX_FAILURES)
        """The newest failed tasks, the newest first."""
        self._pool = pool
        self._attempts = attempts
        self._journal = journal
        self._envelope = envelope
        self._memory = memory
        self._counters = counters
        self._limits = limits
        self._clock = clock
        self._log = log
        self._logs_each_task = logging.getLogger(router_log.__name__).isEnabledFor(logging.DEBUG)
        self._on_report_failure = on_report_failure
        self._start_span = start_span

    async def run(self, flight: InFlightTask, permit: SlotPermit | None) -> None:
        """Take the task to its event. The permit is given back, whatever happens here."""
        flight.run = asyncio.current_task()
        if self._start_span is not None:
            flight.span = self._start_span(flight.task, flight.queue.url, recovered=flight.recovered)
        try:
            outcome = flight.outcome or await self._execute(flight, permit)
            await self._settle(flight, outcome, permit)
        except Fenced:
            log.warning("another router took task %s over", flight.eval_id)
        except Exception as error:
            log.exception("task %s met a defect of the router", flight.eval_id)
            await self._settle(flight, Outcome(completed=False, error=f"the router failed: {error!r}"), permit)
        except asyncio.CancelledError:
            await self._on_cancelled(flight)
            raise
        finally:
            if permit is not None:
                permit.release()
            if flight.span is not None:
                flight.span.end()

    async def _settle(self, flight: InFlightTask, outcome: Outcome, permit: SlotPermit | None = None) -> None:
        """Record, report, publish. Frees the slot first: the executor has done its part."""
        size = len(outcome.result or b"")
        self.reporting += 1
        self._memory.take_result(size)
        if permit is not None:
            permit.release()  # not before the result counts: the slot may be filled at once
        try:
            await self._record(flight, outcome)
            taken = await self._report(flight, outcome)
            self._publish(flight, taken)
        finally:
            self.reporting -= 1
            self._memory.give_result(size)

    # --- execute

    async def _execute(self, flight: InFlightTask, permit: SlotPermit | None) -> Outcome:
        """Give the task to executors until one has answered for it, or `retry` and the grace are used up.

        The slot is still taken then.
        """
        assert permit is not None
        if flight.deadline is not None:
            self._pool.hold(permit, flight.executor)
            outcome = await self._await_published_outcome(flight, flight.deadline)
            if outcome is not None:
                return outcome
            permit.release()
        timeout = flight.task.timeout or self.spec.routing.task_timeout_seconds
        body = execute_body(flight.task, timeout)
        while True:
            try:
                executor = await self._pool.acquire(permit, flight, lambda: self._record_wait(flight))
            except NoExecutors as error:
                self._counters.attempts_failed += 1
                return Outcome(completed=False, error=str(error))
            if not flight.executor:
                self._counters.wait.observe(self._clock() - flight.pulled_at)
            self.executing += 1
            try:
                result = await self._attempt(flight, executor, body, timeout)
            finally:
                self.executing -= 1
            if isinstance(result, Outcome):
                return result
            permit.release()
            flight.may_have_entry, flight.deadline = True, None
            if result.after:
                await self._back_off(flight, result.after)

    async def _attempt(self, flight: InFlightTask, executor: Executor, body: bytes, timeout: int) -> Outcome | Retry:
        """One attempt. Waits for the journal where it may hold an earlier entry of the task."""
        flight.deadline = time.time() + timeout + EXECUTE_MARGIN_SECONDS if executor.completes_async else None
        record_state(flight, self._journal, State.EXECUTING, executor.name)
        if flight.may_have_entry:
            # The journal may already hold `pulled`: a successor would then run the task again.
            await self._journal.durable(flight.eval_id)
        await self._raise_if_fenced(flight)
        return await self._attempts.attempt(flight, executor, body, timeout)

    # --- record

    async def _record(self, flight: InFlightTask, outcome: Outcome) -> None:
        """Make the outcome durable, so that a successor reports the task and does not run it again."""
        flight.outcome = outcome
        flight.event_id = flight.event_id or self._envelope.event_id()
        record_outcome(flight, self._journal, outcome)
        await self._journal.durable(flight.eval_id)
        await self._raise_if_fenced(flight)

    # --- report

    async def _report(self, flight: InFlightTask, outcome: Outcome) -> Outcome:
        """Tell the queue. Returns the outcome as the queue took it."""
        reporter = flight.queue.reporter
        taken: Outcome | None = None
        if flight.span is not None:
            flight.span.report()
        flight.redelivered = True
        while flight.redelivered:
            # Once more when the id was handed out again while its report was on its way: the queue may have popped
            # that copy after it took the report.
            flight.redelivered = False
            taken = await reporter.report(flight.eval_id, taken or outcome, self._on_report_failure) or taken
        if taken is None:
            self._counters.reports_unknown += 1
        if flight.span is not None:
            flight.span.reported(completed=(taken or outcome).completed, known=taken is not None)
        return taken or outcome

    # --- publish

    def _publish(self, flight: InFlightTask, outcome: Outcome) -> None:
        """Publish the outcome, then forget the entry; keep a record of a failed task."""
        counters, clock = self._counters, self._clock()
        self.last_task_time = time.time()
        seconds = clock - flight.pulled_at
        counters.overhead.observe(seconds - flight.executor_seconds)
        failed = None
        if outcome.completed:
            counters.completed += 1
            counters.completed_seconds.observe(seconds)
            if self._logs_each_task:
                self._log.completed(flight, seconds)
        else:
            counters.failed += 1
            counters.failed_seconds.observe(seconds)
            self._log.failed(flight, outcome.error, seconds, clock)
            failed = self._record_failure(flight, outcome.error, self.last_task_time)
        published = flight.outcome is not None and flight.outcome.published
        told = None
        if not published:
            told = self._envelope.wrap(event(flight.eval_id, outcome), flight.eval_id, flight.event_id)
        self._journal.finish(flight.eval_id, told, failed)

    # --- details of the steps

    async def _await_published_outcome(self, flight: InFlightTask, deadline: float) -> Outcome | None:
        """An asynchronous executor had the task when its router died. None: the task is to be executed again.

        The deadline is by the clock of the dead router's machine, which may be another than ours.
        """
        allowed = (flight.task.timeout or self.spec.routing.task_timeout_seconds) + EXECUTE_MARGIN_SECONDS
        self.executing += 1
        try:
            outcome = await self._attempts.resume(flight, deadline - time.time(), allowed)
        finally:
            self.executing -= 1
        if outcome is not None:
            return outcome
        flight.deadline = None  # or a successor would wait for it, and count this death, again
        return count_death(flight, self.spec.routing.recovery)

    def _record_wait(self, flight: InFlightTask) -> None:
        flight.may_have_entry = True
        record_state(flight, self._journal, State.PULLED)

    async def _back_off(self, flight: InFlightTask, seconds: float) -> None:
        """Sleep, and count the time as execution, not as router overhead."""
        started = self._clock()
        await asyncio.sleep(seconds)
        flight.executor_seconds += self._clock() - started

    def _record_failure(self, flight: InFlightTask, error: str, now: float) -> FailedTask:
        """The record of a failed task for Redis; a short one is kept for the HTTP API."""
        failed = failed_task(flight, error, now, self._limits)
        shown = (failed.eval_id, now, failed.error, failed.executor, failed.attempts, failed.ambiguous)
        self.failures.appendleft(TaskFailure(*shown))
        return failed

    async def _raise_if_fenced(self, flight: InFlightTask) -> None:
        """Called before anything that others would see. Raises `Fenced`."""
        if self._clock() > self._journal.lease.until:
            await self._journal.lease.verify()
        if flight.lost:
            raise Fenced

    def pipeline(self, in_flight: int, buffered_events: int) -> Pipeline:
        """Where so many tasks in flight are."""
        pulled = max(0, in_flight - self.executing - self.reporting)
        return Pipeline(pulled, self.executing, self.reporting, buffered_events)

    # --- the end of a router

    async def _on_cancelled(self, flight: InFlightTask) -> None:
        if self.final:
            uncancel()
            await self.give_up(flight)
        elif flight.eval_id not in self._journal:
            record_state(flight, self._journal, State.PULLED)  # for the successor

    async def give_up(self, flight: InFlightTask) -> None:
        """Report a task as failed that nobody will finish, within a bounded time."""
        error = "the QueueWorker was deleted before the task ended"
        outcome = flight.outcome or Outcome(completed=False, error=error)
        with contextlib.suppress(TimeoutError, Fenced):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await self._settle(flight, outcome)
