"""One attempt at a task: one `POST /execute`, and what its answer or its absence comes to.

An ambiguous failure means that the task may have run: only `routing.retry` allows another attempt then. A task that
provably did not run is sent again, unless it is to blame itself; an executor that does not serve the call gets each
task once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, assert_never

from queueworker.resource.executors_spec import WhenUnavailable
from queueworker.routing.backoff import exponential
from queueworker.routing.executors.outcome_waits import LOGS_PERIOD_SECONDS, OutcomeWaits
from queueworker.routing.executors.verdict import Failure, Kind, Running, classify
from queueworker.routing.http.transport import Answer, TooLarge, Transport, TransportError
from queueworker.routing.in_flight import InFlightTask, record_state
from queueworker.routing.journal.entries import State
from queueworker.routing.wire.outcome import Outcome, running_event
from queueworker.routing.wire.published import Lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.counters import Counters
    from queueworker.routing.executors.async_outcomes import AsyncOutcomes
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.executor_pool import ExecutorPool
    from queueworker.routing.journal.journal import Journal
    from queueworker.routing.wire.cloud_events import Envelope

# An executor ends a task at the task's timeout and then answers: it gets this much longer to do so.
EXECUTE_MARGIN_SECONDS = 10.0
NO_OUTCOME = "no outcome of the task was published"


class Retry(NamedTuple):
    """Make another attempt, after so many seconds."""

    after: float = 0.0


class Attempts:
    """Makes attempts for one router."""

    def __init__(
        self,
        spec: QueueWorkerSpec,
        outcomes: AsyncOutcomes,
        pool: ExecutorPool,
        transport: Transport,
        journal: Journal,
        envelope: Envelope,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        self._outcomes = outcomes
        self._pool = pool
        self._transport = transport
        self._journal = journal
        self._envelope = envelope
        self._counters = counters
        self._clock = clock
        self._waits = OutcomeWaits(transport, clock, spec.routing.max_body_bytes)
        self.apply(spec)

    def apply(self, spec: QueueWorkerSpec) -> None:
        """Take a changed spec: it applies to attempts that begin from now on, and to the next decision of others."""
        self._spec = spec
        self._envelope.format = spec.events.format
        self._max_body_bytes = spec.routing.max_body_bytes
        self._outcomes.max_body_bytes = self._waits.max_body_bytes = self._max_body_bytes

    async def attempt(self, flight: InFlightTask, executor: Executor, body: bytes, timeout: int) -> Outcome | Retry:
        """Ask the executor to run the task, which has `timeout` seconds for it; wait for an asynchronous executor.

        The caller holds a permit for a slot of the executor, and releases it afterwards.
        """
        if executor.completes_async is not False:
            await self._outcomes.listen()  # before it is asked, so that no outcome is missed
        if not self._pool.fresh(executor):
            return Retry()  # it left the pool, failed or fell silent while the task waited
        was_ambiguous, flight.ambiguous = flight.ambiguous, True
        published = None if executor.completes_async is False else self._outcomes.subscribe(flight.eval_id)
        started = self._clock()
        allowed = timeout + EXECUTE_MARGIN_SECONDS
        headers = _headers(flight, executor)
        try:
            answer = await self._post(executor, body, allowed, headers)
            match classify(answer, executor.name, flight.eval_id):
                case Outcome() as outcome:
                    executor.completes_async = False
                    return self._ended(flight, executor, outcome, started)
                case Running() as running:
                    executor.completes_async = True
                    if published is None:
                        published = self._outcomes.subscribe(flight.eval_id)
                        await self._outcomes.listen()
                    self._record_running(flight, executor, running, timeout, published)
                    return await self._follow(flight, executor, published, started, allowed)
                case Failure() as failure:
                    flight.ambiguous = was_ambiguous or failure.ambiguous
                    self._tell_pool(executor, failure, started)
                    _trace_failure(flight, failure.kind.name.lower(), answer)
                    if published is not None and failure.answer_lost:
                        told = await self._told(published, executor, flight.eval_id, started + allowed)
                        if isinstance(told, Outcome):
                            return self._ended(flight, executor, told, started)
                    return self._after_failure(flight, executor, failure)
        finally:
            seconds = self._clock() - started
            flight.executor_seconds += seconds
            self._counters.execution.observe(seconds)
            if flight.span is not None:
                flight.span.attempt_ended()
            if published is not None:
                self._outcomes.unsubscribe(flight.eval_id)

    async def resume(self, flight: InFlightTask, left: float, allowed: float) -> Outcome | None:
        """Wait for the outcome of a task that an asynchronous executor had when the task's router died.

        `left`: seconds until its deadline, by clocks that may be hours apart. So the executor is asked in any case, and
        waited for while it says that the task runs, but for no longer than a task is `allowed` to take. None when
        nobody tells the outcome in time, or when the executor does not know the task any more.
        """
        published = self._outcomes.subscribe(flight.eval_id)
        started, seconds = self._clock(), min(max(left, LOGS_PERIOD_SECONDS), allowed)
        try:
            await self._outcomes.listen()
            executor = self._pool.members.find(flight.executor)
            took = self._clock() - started
            told = await self._waits.outcome(published, executor, flight.eval_id, seconds - took, allowed - took)
        finally:
            self._outcomes.unsubscribe(flight.eval_id)
        if not isinstance(told, Outcome):
            return None
        flight.ambiguous = False
        return told

    # --- the call, and what an asynchronous executor tells after it

    async def _post(self, executor: Executor, body: bytes, seconds: float, headers: str) -> Answer | TransportError:
        executor.running += 1
        url, limit = executor.execute_url, self._max_body_bytes
        try:
            answer = await self._transport.post(url, body, seconds, limit=limit, headers=headers)
        except TransportError as error:
            return error
        finally:
            executor.running -= 1
        if executor.silent:
            self._pool.heard_from(executor)
        return answer

    def _record_running(
        self,
        flight: InFlightTask,
        executor: Executor,
        verdict: Running,
        timeout: int,
        published: asyncio.Future[Outcome],
    ) -> None:
        """Tell subscribers, unless the outcome was faster, and the journal, unless it has the deadline already."""
        if flight.span is not None:
            flight.span.attempt_running()
        if not published.done():
            told = running_event(flight.eval_id, verdict.result, timeout)
            self._journal.publish(self._envelope.wrap(told, flight.eval_id))
        if flight.deadline is None:
            flight.deadline = time.time() + timeout + EXECUTE_MARGIN_SECONDS
            record_state(flight, self._journal, State.EXECUTING, executor.name)

    async def _told(
        self, published: asyncio.Future[Outcome], executor: Executor, eval_id: str, until: float
    ) -> Outcome | Lost | None:
        """What the executor tells until then, if it is asynchronous. It may do so although its answer was lost."""
        if executor.completes_async:
            return await self._waits.outcome(published, executor, eval_id, until - self._clock())
        return published.result() if published.done() else None

    async def _follow(
        self,
        flight: InFlightTask,
        executor: Executor,
        published: asyncio.Future[Outcome],
        started: float,
        allowed: float,
    ) -> Outcome | Retry:
        """An asynchronous executor has the task: its outcome, or what follows if it tells none."""
        told = await self._told(published, executor, flight.eval_id, started + allowed)
        if isinstance(told, Outcome):
            return self._ended(flight, executor, told, started)
        _trace_failure(flight, "no_outcome")
        if isinstance(told, Lost):
            return Outcome(completed=False, error=f"executor {executor.name}: {told.error}")
        return self._retry(flight, f"executor {executor.name}: {NO_OUTCOME} within {allowed:.0f} s")

    # --- what follows

    def _ended(self, flight: InFlightTask, executor: Executor, outcome: Outcome, started: float) -> Outcome:
        flight.ambiguous = False
        self._pool.ejections.answered(executor, outcome.completed, self._clock() - started)
        return outcome

    def _tell_pool(self, executor: Executor, failure: Failure, started: float) -> None:
        """Who is to blame for the failed attempt."""
        self._counters.attempts_failed += 1
        pool, ejections = self._pool, self._pool.ejections
        match failure.kind:
            case Kind.REFUSED:
                ejections.refused(executor)
            case Kind.FAULT | Kind.UNSERVED:
                ejections.failed(executor, failure.reason)
            case Kind.NOT_SENT | Kind.BROKEN:
                pool.broke(executor, failure.reason)
            case Kind.TIMED_OUT:
                ejections.failed(executor, failure.reason)
                pool.checks.check(executor)
            case Kind.TOO_LARGE:
                ejections.answered(executor, completed=False, took=self._clock() - started)
            case Kind.REJECTED:
                pass
            case other:
                assert_never(other)

    def _after_failure(self, flight: InFlightTask, executor: Executor, failure: Failure) -> Outcome | Retry:
        first_time = executor.name not in flight.failed_at
        if first_time and failure.reason and failure.kind is not Kind.NOT_SENT:
            flight.failed_at += (executor.name,)
        match failure.kind:
            case Kind.NOT_SENT:
                return Retry()
            case Kind.REFUSED if self._may_wait(flight):
                return Retry()
            case Kind.UNSERVED if first_time and self._pool.members.has_another(flight):
                return Retry()
            case Kind.FAULT | Kind.BROKEN | Kind.TIMED_OUT:
                return self._retry(flight, failure.error)
        return Outcome(completed=False, error=failure.error)

    def _may_wait(self, flight: InFlightTask) -> bool:
        """Whether a task that executors refuse may go on waiting for one that takes it."""
        executors = self._spec.executors
        waited = self._clock() - flight.pulled_at - flight.executor_seconds
        hold = executors.when_unavailable is WhenUnavailable.HOLD
        return hold or waited <= executors.unavailable_grace_seconds

    def _retry(self, flight: InFlightTask, error: str) -> Outcome | Retry:
        """After an ambiguous failure: another attempt after its backoff, if `routing.retry` allows one."""
        retry = self._spec.routing.retry
        if flight.attempt >= retry.attempts:
            return Outcome(completed=False, error=error)
        delay = exponential(flight.attempt, retry.backoff_seconds, retry.max_backoff_seconds)
        flight.attempt += 1
        self._counters.retried += 1
        return Retry(delay)


def _headers(flight: InFlightTask, executor: Executor) -> str:
    """What tells the executor of the trace: the attempt's own span, or else what the task said."""
    if flight.span is not None:
        return flight.span.attempt(executor.name, executor.execute_url, flight.attempt)
    trace = flight.task.trace
    return "" if trace is None else trace.headers


def _trace_failure(flight: InFlightTask, failure: str, answer: Answer | TransportError | None = None) -> None:
    if flight.span is not None:
        flight.span.attempt_failed(failure, answer.status if isinstance(answer, Answer | TooLarge) else None)
