"""One attempt at a task: what an executor is asked, and what its answer, or its silence, comes to.

After the request was written a failure is ambiguous: the task may have run. Only `retry` sends it again then.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from queueworker.resource.spec import Recovery, WhenUnavailable
from queueworker.routing.backoff import exponential
from queueworker.routing.http.large import LARGE_BYTES, in_turns
from queueworker.routing.http.transport import NotSent, TimedOut, TransportError
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.wire.task import (
    InvalidAnswer,
    Outcome,
    Task,
    excerpt,
    outcome_of,
    parse_large_result,
    parse_result,
    running_event,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.counters import Counters
    from queueworker.routing.executors.async_outcomes import Completions
    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.pool import ExecutorPool
    from queueworker.routing.http.large import Pieces
    from queueworker.routing.http.transport import Transport


# An executor ends a task at its timeout and then answers: it gets this much longer to do so.
EXECUTE_MARGIN_SECONDS = 10.0


class Again(NamedTuple):
    """Try another attempt, after so many seconds."""

    after: float = 0.0


class Attempts:
    """Makes them, for one router. `spec` and `completions` are those of now: the router changes them."""

    def __init__(
        self,
        spec: QueueWorkerSpec,
        completions: Completions,
        pool: ExecutorPool,
        transport: Transport,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.completions = completions
        self._pool = pool
        self._transport = transport
        self._counters = counters
        self._clock = clock

    async def attempt(self, task: Task, executor: Executor, body: bytes | Pieces, timeout: int) -> Outcome | Again:
        """One `POST /execute`; an executor of the later kind is then waited for."""
        counters, completions = self._counters, self.completions
        limit = timeout + EXECUTE_MARGIN_SECONDS
        doubtful, task.doubtful = task.doubtful, True
        expected = None if executor.later is False else completions.expect(task.eval_id)
        started = self._clock()
        try:
            try:
                status, answer = await self._transport.post(executor.execute_url, body, limit)
                if status != 200:
                    counters.attempts_failed += 1
                    task.doubtful = doubtful or (status >= 500 and status != 503)
                    return self._rejected(task, executor, status, answer)
                if len(answer) < LARGE_BYTES:
                    result = parse_result(answer)
                else:
                    result = await in_turns(parse_large_result(answer))
                executor.later = result.get("status") == "running"
                if not executor.later:
                    task.doubtful = False
                    return self._answered(executor, outcome_of(result, answer), started)
            except NotSent as error:
                counters.attempts_failed += 1
                task.doubtful = doubtful
                self._pool.broke(executor, f"cannot be reached at {error}")
                return Again()
            except TransportError as error:
                counters.attempts_failed += 1
                self._broke(executor, error)
                failure = f"executor {executor.name}: {error}"
            except InvalidAnswer as error:
                counters.attempts_failed += 1
                self._pool.failed(executor, str(error))
                return Outcome(completed=False, error=f"executor {executor.name} {error}")
            else:
                if expected is None:
                    expected = completions.expect(task.eval_id)
                    await completions.listen()
                self._runs_later(task, executor, result, timeout, published=expected.done())
                failure = f"executor {executor.name}: no outcome of the task was published within {limit:.0f} s"
            if expected is not None:
                # Also where the answer was lost: the outcome of one that is known to publish it may come all the same.
                if executor.later:
                    await asyncio.wait([expected], timeout=max(0.0, started + limit - self._clock()))
                if expected.done():
                    task.doubtful = False
                    return self._answered(executor, expected.result(), started)
            return self._again(task, failure)
        finally:
            seconds = self._clock() - started
            task.executor_seconds += seconds
            counters.execution.observe(seconds)
            if expected is not None:
                completions.forget(task.eval_id)

    def _runs_later(
        self, task: Task, executor: Executor, result: dict[str, Any], timeout: int, *, published: bool
    ) -> None:
        """`running`: tell the subscribers, unless its outcome was faster, and the journal, if it is news."""
        assert task.journal is not None
        if not published:
            task.journal.publish(*running_event(task.eval_id, result, timeout))
        if task.until is None:
            task.until = time.time() + timeout + EXECUTE_MARGIN_SECONDS
            note(task, State.EXECUTING, executor.name)

    async def overhear(self, task: Task) -> Outcome | None:
        """A later executor had the task when its router died: what it publishes counts, up to the task's end.

        None: the task is to be executed again. The slot that was reserved for it stays so only then.
        """
        assert task.until is not None
        completions, outcome, again = self.completions, None, False
        expected = completions.expect(task.eval_id)
        try:
            await completions.listen()
            await asyncio.wait([expected], timeout=max(0.0, task.until - time.time()))
            if expected.done():
                task.doubtful = False
                outcome = expected.result()
            elif self.spec.routing.recovery is Recovery.FAIL:
                outcome = died_with(task.executor)
            again = outcome is None
            return outcome
        finally:
            completions.forget(task.eval_id)
            if not again:
                self._pool.unreserve()

    async def used(self, task: Task, wait: Coroutine[Any, Any, None]) -> None:
        """Wait, and count it as the executor's time: it is no overhead of ours."""
        started = self._clock()
        await wait
        task.executor_seconds += self._clock() - started

    def _answered(self, executor: Executor, outcome: Outcome, started: float) -> Outcome:
        self._pool.answered(executor, outcome.completed, self._clock() - started)
        return outcome

    def _broke(self, executor: Executor, error: TransportError) -> None:
        """The request was, or may have been, written, and no answer came."""
        if isinstance(error, TimedOut):
            self._pool.failed(executor, f"no answer in time at {error}")
            self._pool.check(executor)
        else:
            self._pool.broke(executor, f"broke the connection at {error}")

    def _rejected(self, task: Task, executor: Executor, status: int, answer: bytes | bytearray) -> Outcome | Again:
        text = f"Executor rejected task: {excerpt(answer)}"  # the legacy worker's words
        executors = self.spec.executors
        if status in {429, 503}:
            self._pool.refused(executor)
            waited = self._clock() - task.pulled_at - task.executor_seconds
            if executors.when_unavailable is WhenUnavailable.HOLD or waited <= executors.unavailable_grace_seconds:
                return Again()
        elif status >= 500:
            self._pool.failed(executor, f"answered {status}: {excerpt(answer)}")
            return self._again(task, text)
        return Outcome(completed=False, error=text)

    def _again(self, task: Task, error: str) -> Outcome | Again:
        """After an ambiguous failure: another attempt after its backoff, if `retry` allows one."""
        retry = self.spec.routing.retry
        if task.attempt >= retry.attempts:
            return Outcome(completed=False, error=error)
        delay = exponential(task.attempt, retry.backoff_seconds, retry.max_backoff_seconds)
        task.attempt += 1
        self._counters.retried += 1
        return Again(delay)


def note(task: Task, state: State, executor: str = "") -> None:
    """Put the task's entry into its journal."""
    assert task.journal is not None
    task.executor = executor or task.executor
    details = (task.raw, task.attempt, executor)
    entry = entries.encode_task(state, task.queue.url, *details, doubtful=task.doubtful, until=task.until)
    task.journal.put(task.eval_id, entry, entries.parts(entries.TASK, task.raw))


def died_with(executor: str) -> Outcome:
    return Outcome(completed=False, error=f"the router died while executor {executor} ran the task")
