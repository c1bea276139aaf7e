"""The router: pulls tasks, gives each to an executor, reports and publishes the outcome, and loses none.

Each task has a lane, an asyncio task of its own, which begins with the pull:

    reserve a slot → pull → choose → execute → report → publish

Lanes start while there are free slots and the queue gives tasks: one after an idle time, then twice as
many each time that one finds a task, so that a backlog fills every slot within a few round trips and an
empty queue is asked once an interval. A lane that pulled is never cancelled before its task is in the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, assert_never
from uuid import uuid4

from queueworker.resource.spec import JournalPolicy, Recovery
from queueworker.routing.config import Intent
from queueworker.routing.counters import Counters
from queueworker.routing.executors.async_outcomes import Completions
from queueworker.routing.executors.attempt import EXECUTE_MARGIN_SECONDS, Attempts, died_with, note
from queueworker.routing.executors.pool import ExecutorPool, NoExecutors
from queueworker.routing.http.transport import HttpTransport
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.journal.failed_tasks import NO_TASK, failed_task
from queueworker.routing.journal.journal import Journal
from queueworker.routing.journal.redis_client import connect
from queueworker.routing.queue.client import QueueClient
from queueworker.routing.snapshot import Phase, Snapshot
from queueworker.routing.wire.task import (
    InvalidAnswer,
    InvalidTask,
    Outcome,
    Task,
    event,
    execute_body,
    parse_task,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from queueworker.routing.config import Endpoint, RouterConfig
    from queueworker.routing.http.transport import Transport
    from queueworker.routing.journal.redis_client import Client

log = logging.getLogger(__name__)


class Fenced(Exception):
    """Another router has taken the task over: nothing more is to be done for it here."""


# Reports that the queue refuses wait in memory; above this many (beyond the slots) nothing new is pulled.
MAX_STUCK_REPORTS = 64
# Tasks that have ended wait in memory for the journal and for the queue. Above so much of them nothing new is pulled;
# each counts as its task, its result, and what its lane takes.
MAX_OWED_BYTES = 64 * 1024 * 1024
LANE_BYTES = 8 * 1024
MAX_WINDOW = 1024
DEPTH_PERIOD_SECONDS = 15.0
HOUSEKEEPING_SECONDS = 1.0
MINUTE_SECONDS = 60.0
CLOSING_SECONDS = 3.0


class Router:
    """One queue, one pool of executors, one journal.

    `run()` returns once `stop()` has drained it. `on_transition` is called (synchronously, in the
    loop) whenever something changed that a condition in status depends on.
    """

    def __init__(
        self,
        config: RouterConfig,
        endpoints: Sequence[Endpoint],
        *,
        worker_id: str,
        on_transition: Callable[[], None] = lambda: None,
        transport: Transport | None = None,
        connect: Callable[..., Client] = connect,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._endpoints = endpoints
        self._worker_id = worker_id
        self._on_transition = on_transition
        self._clock = clock
        self._transport = transport or HttpTransport()
        self._connect = connect
        self._counters = Counters()
        self._tasks: dict[str, Task] = {}
        """Handed to us and not reported yet."""
        self._recovered: deque[Task] = deque()
        """Taken over, waiting for a slot; they go before new pulls."""
        self._lanes: set[asyncio.Task[None]] = set()
        self._owed_bytes = 0
        """Of tasks that have ended and are not reported yet."""
        self._pulling = 0
        self._window = 0
        """Pulls that may be under way at once; 0 between an empty answer and the next poll."""
        self._poll_timer: asyncio.TimerHandle | None = None
        self._phase = Phase.STARTING
        self._stopping = False
        self._final = False
        self._drained = asyncio.Event()
        self._stopped = asyncio.Event()
        self._started = False
        self._last_task_time: float | None = None
        self._depth: int | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._chores: set[asyncio.Task[None]] = set()
        self._pool = ExecutorPool(
            config.spec,
            self._transport,
            rng=rng or random.Random(),
            clock=clock,
            on_free=self._kick,
            on_change=self._changed,
            counters=self._counters,
        )
        self._queue = self._make_queue(config.spec.queue.url)
        self._queues = {config.spec.queue.url: self._queue}
        self._journals: list[Journal] = []
        """Those that are open: the one in use, and others whose tasks are not done yet."""
        self._renew_journal()
        self._completions = Completions(config.redis_url, connect)
        self._attempts = Attempts(config.spec, self._completions, self._pool, self._transport, self._counters, clock)

    # --- what it is told

    async def run(self) -> None:
        """Route until `stop()` has drained the router. Raises nothing that a peer could cause."""
        self._started = True
        try:
            await self._journal.start()
            if not self._journal.writable:
                log.warning("%s: %s", self._config.group, self._journal.link.message)
            self._pool.set_endpoints(self._endpoints)
            self._settle_phase()
            self._open_window()
            await self._housekeep()
        finally:
            await self._close()

    def apply(self, config: RouterConfig) -> None:
        """Take a changed configuration; what is in flight is neither lost nor started again.

        Tasks of another queue URL, and of another Redis, are finished where they came from.
        """
        before, self._config = self._config, config
        if config == before:
            return
        if config.spec.queue.url != before.spec.queue.url:
            self._queue = self._queues.get(config.spec.queue.url) or self._make_queue(config.spec.queue.url)
            self._queues[config.spec.queue.url] = self._queue
            self._depth = None
            self._window = 0
        self._queue.set_key(config.api_key)
        if config.redis_url != self._journal.redis_url:
            self._move_journal()
        self._pool.apply(config.spec)
        self._attempts.spec = config.spec
        self._settle_phase()
        self._open_window()
        self._changed()

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """Make the pool hold exactly these executors."""
        self._endpoints = endpoints
        if self._started:
            self._pool.set_endpoints(endpoints)

    async def stop(self, *, final: bool = False) -> None:
        """Drain, for at most `drainSeconds`: what is not done by then stays in the journal for the successor.

        `final`: there will be none (the object is deleted), so what is not done is reported as failed.
        """
        self._stopping = True
        self._final = final
        self._settle_phase()
        await self._stopped.wait() if self._started else None

    def snapshot(self) -> Snapshot:
        queue = self._queue
        return Snapshot(
            group=self._config.group,
            worker_id=self._worker_id,
            intent=self._config.intent,
            phase=self._phase,
            executors=self._pool.snapshot(),
            queue=queue.link,
            events=self._journal.events_link,
            journal=self._journal.link,
            queue_url=queue.url,
            queue_depth=self._depth,
            consecutive_errors=queue.gate.consecutive_errors,
            last_task_time=self._last_task_time,
            in_flight=len(self._tasks),
            events_buffered=self._journal.buffered_events,
            per_minute=self._counters.routed - (self._samples[0][1] if self._samples else 0),
            counters=self._counters,
            peers=self._journal.peers,
        )

    # --- lanes

    def _kick(self) -> None:
        """Start as many lanes as may run now. Called whenever a slot, a task or a permission may have come."""
        pool = self._pool
        while pool.can_reserve and not self._stopping:
            if self._recovered:
                pool.reserve()
                self._start_lane(self._carry(self._recovered.popleft()))
            elif self._may_pull():
                pool.reserve()
                self._pulling += 1
                self._start_lane(self._pull_and_carry(self._queue, self._queue.gate.epoch))
            else:
                return

    def _may_pull(self) -> bool:
        return (
            self._pulling < self._window
            and self._phase is Phase.ROUTING
            and (self._journal.writable or self._config.spec.routing.journal is JournalPolicy.PREFERRED)
            and self._queue.stuck < MAX_STUCK_REPORTS
            and self._owed_bytes < MAX_OWED_BYTES
            and self._journal.has_room
            and self._queue.gate.take_turn()
        )

    def _start_lane(self, work: Coroutine[Any, Any, None]) -> None:
        lane = asyncio.create_task(work)
        self._lanes.add(lane)
        lane.add_done_callback(self._lane_done)

    def _lane_done(self, lane: asyncio.Task[None]) -> None:
        self._lanes.discard(lane)
        if not lane.cancelled() and lane.exception() is not None:
            log.error("%s: a lane broke", self._config.group, exc_info=lane.exception())
        if self._phase is not Phase.ROUTING:
            self._settle_phase()

    async def _pull_and_carry(self, queue: QueueClient, epoch: int) -> None:
        task: Task | None = None
        try:
            task = await self._pull(queue, epoch)
        finally:
            self._pulling -= 1
            if task is None:
                self._pool.unreserve()
        if task is None:
            self._pause_polling()
            return
        if self._window < MAX_WINDOW:
            self._window *= 2
        self._take(task, self._journal)
        self._kick()
        await self._carry(task)

    async def _pull(self, queue: QueueClient, epoch: int) -> Task | None:
        """The next task that is to be routed; None when there is nothing to do until the next poll.

        `epoch` is that of the turn: an outage that came between turn and request is one outage.
        """
        while self._phase is Phase.ROUTING and queue is self._queue:
            if self._clock() > self._journal.lease_until:
                await self._journal.ask()
            try:
                task = await queue.pull(epoch)
            except InvalidTask as error:
                log.warning("%s: queue %s: %s", self._config.group, queue.url, error)
                if error.eval_id is not None and not self._is_copy(error.eval_id):
                    self._refuse(error.eval_id, queue, str(error), self._journal)
            else:
                if task is None or not self._is_copy(task.eval_id):
                    return task
                self._counters.duplicates += 1
            epoch = queue.gate.epoch
        queue.gate.abandoned(queue.gate.epoch)
        return None

    def _is_copy(self, eval_id: str) -> bool:
        """Whether the task is in flight here. It is not run again then, but its report may have been too early."""
        task = self._tasks.get(eval_id)
        if task is not None:
            task.handed_again = True
        return task is not None

    def _take(self, task: Task, journal: Journal) -> None:
        task.journal = journal
        self._tasks[task.eval_id] = task

    def _refuse(self, eval_id: str, queue: QueueClient, error: str, journal: Journal) -> None:
        """Report a task as failed that cannot be routed as it came."""
        outcome = Outcome(completed=False, error=error)
        task = Task(eval_id, "", None, "", "", b"null", queue, self._clock(), outcome=outcome)
        self._take(task, journal)
        self._start_lane(self._carry(task))

    async def _carry(self, task: Task) -> None:
        """Take the task to its report. Until it is reported it stays in the journal, whatever happens here."""
        task.lane = asyncio.current_task()
        try:
            outcome = task.outcome
            if outcome is None and task.until is not None:
                outcome = await self._attempts.overhear(task)
            await self._settle(task, outcome or await self._execute(task))
        except Fenced:
            log.warning("%s: task %s was taken over by another router", self._config.group, task.eval_id)
        except Exception as error:
            log.exception("%s: task %s met a defect of the router", self._config.group, task.eval_id)
            await self._settle(task, Outcome(completed=False, error=f"the router failed: {error!r}"))
        except asyncio.CancelledError:
            assert task.journal is not None
            if self._final:
                await self._give_up(task)
            elif task.eval_id not in task.journal:
                note(task, State.PULLED)  # for the successor
            raise
        finally:
            if self._tasks.get(task.eval_id) is task:
                del self._tasks[task.eval_id]

    async def _fence(self, task: Task) -> None:
        """Called before whatever others would see. Raises `Fenced` when the task is another router's by now."""
        journal = task.journal
        assert journal is not None
        if self._clock() > journal.lease_until:
            await journal.ask()
        if journal.fenced and task.journal is journal:
            raise Fenced

    async def _execute(self, task: Task) -> Outcome:
        """Give the task to executors until one has answered for it, or `retry` and the grace are used up."""
        timeout = task.timeout or self._config.spec.routing.task_timeout_seconds
        body = execute_body(task, timeout)
        pool = self._pool
        reserved = True
        # Whether the journal may hold `pulled` for it: then `executing` has to be there before an executor is asked.
        noted = task.recovered

        def waits() -> None:
            nonlocal reserved, noted
            if reserved:
                reserved = False
                pool.unreserve()
            noted = True
            note(task, State.PULLED)

        while True:
            try:
                executor = await pool.acquire(task, waits)
            except NoExecutors as error:
                self._counters.attempts_failed += 1
                return Outcome(completed=False, error=str(error))
            finally:
                if reserved:
                    reserved = False
                    pool.unreserve()
            try:
                task.until = time.time() + timeout + EXECUTE_MARGIN_SECONDS if executor.later else None
                note(task, State.EXECUTING, executor.name)
                if noted and task.journal is not None:
                    await task.journal.durable(task.eval_id)
                await self._fence(task)
                if executor.later is not False:
                    # It may answer `running`: listen before it is asked, so that no outcome is missed.
                    await self._completions.listen()
                if not pool.fresh(executor):
                    continue  # it left, failed or fell silent while we waited
                result = await self._attempts.attempt(task, executor, body, timeout)
            finally:
                pool.release(executor)
            if isinstance(result, Outcome):
                return result
            noted, task.until = True, None
            if result.after:
                await self._attempts.used(task, asyncio.sleep(result.after))

    async def _settle(self, task: Task, outcome: Outcome) -> None:
        """Make the outcome durable, report it, publish it: in this order, whatever dies in between."""
        task.outcome = outcome
        owed = len(task.raw) + len(outcome.result or b"") + LANE_BYTES
        self._owed_bytes += owed
        try:
            counters = self._counters
            assert task.journal is not None
            if outcome.result is None or len(outcome.result) <= entries.MAX_KEPT_BYTES:
                kept = entries.parts(entries.RESULT, outcome.result or b"")
                task.journal.put(task.eval_id, self._executed(task, outcome), kept)
            await task.journal.durable(task.eval_id)
            await self._fence(task)
            taken: Outcome | None = None
            task.handed_again = True
            while task.handed_again:
                # Once more when a copy came while the report was on its way: it may have been popped after that.
                task.handed_again = False
                taken = await task.queue.report(task.eval_id, taken or outcome, self._changed) or taken
            if taken is None:
                counters.reports_unknown += 1
            final = taken or outcome
            if final.completed:
                counters.completed += 1
            else:
                counters.failed += 1
            self._last_task_time = time.time()
            counters.overhead.observe(self._clock() - task.pulled_at - task.executor_seconds)
            task.journal.finish(
                task.eval_id,
                None if outcome.published else event(task.eval_id, final),
                failed=None if final.completed else failed_task(task, final.error, self._last_task_time),
            )
            for journal in task.also_in:
                journal.finish(task.eval_id)
        finally:
            self._owed_bytes -= owed
            if self._owed_bytes + owed >= MAX_OWED_BYTES:
                self._kick()

    def _executed(self, task: Task, outcome: Outcome) -> bytes:
        details = (task.raw, task.attempt, task.executor)
        return entries.encode_outcome(task.queue.url, outcome, *details, doubtful=task.doubtful)

    async def _give_up(self, task: Task) -> None:
        """Nobody will come after this router: what could not be finished is reported as failed."""
        outcome = task.outcome or Outcome(completed=False, error="the QueueWorker was deleted before the task ended")
        with contextlib.suppress(TimeoutError, Fenced):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._settle(task, outcome)

    # --- polling

    def _open_window(self) -> None:
        if self._window == 0:
            self._window = 1
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None
        self._kick()

    def _pause_polling(self) -> None:
        """The queue had nothing, or could not be asked: ask again in an interval, once."""
        self._window = 0
        if self._poll_timer is None and not self._stopping:
            interval = self._config.spec.queue.poll_interval_seconds
            self._poll_timer = asyncio.get_running_loop().call_later(interval, self._poll)

    def _poll(self) -> None:
        self._poll_timer = None
        self._open_window()

    # --- recovery

    def _on_recovered(self, journal: Journal, found: dict[str, bytes]) -> None:
        """Take over what a dead router left: finish what was executed, route the rest as `recovery` says."""
        for eval_id, raw in found.items():
            if (here := self._tasks.get(eval_id)) is not None:
                if here.journal is not journal:
                    here.also_in += (journal,)
                continue
            self._counters.recovered += 1
            try:
                task = self._revive(eval_id, entries.decode(raw, journal.parts(eval_id)))
            except (entries.UnreadableEntry, InvalidTask, InvalidAnswer) as error:
                self._chore(journal.quarantine(eval_id, raw))
                text = f"the journal's entry of the task cannot be read ({error})"
                self._refuse(eval_id, self._queue, text, journal)
                continue
            self._take(task, journal)
            if task.outcome is not None:
                self._start_lane(self._carry(task))
            else:
                self._recovered.append(task)
        log.info("%s: took over %d tasks of a router that died", self._config.group, len(found))
        self._kick()

    def _revive(self, eval_id: str, entry: entries.Entry) -> Task:
        queue = self._queues.get(entry.queue_url)
        if queue is None:
            queue = self._queues[entry.queue_url] = self._make_queue(entry.queue_url)
        now = self._clock()
        outcome = entry.outcome
        if outcome is None and entry.task == NO_TASK:
            outcome = Outcome(completed=False, error="the router died, and a task as large as this one is not kept")
        if outcome is not None:
            task: Task | None = Task(eval_id, "", None, "", "", entry.task, queue, now, outcome=outcome)
        else:
            task = parse_task(entry.task, queue, now)
        if task is None or task.eval_id != eval_id:
            raise InvalidAnswer("it holds no task of that id")
        task.recovered = True
        task.attempt, task.executor = entry.attempt, entry.executor
        task.doubtful, task.until = entry.doubtful, entry.until
        fails = self._config.spec.routing.recovery is Recovery.FAIL
        if entry.state is State.EXECUTING and entry.until is None and fails:
            task.outcome = died_with(entry.executor)
        return task

    def _on_fenced(self, journal: Journal, unseen: dict[str, bytes]) -> None:
        """Another router has what our journal held: let go of that, and go on as another instance with the rest.

        A pull in flight goes on: whatever it brings was never in the journal.
        """
        if journal is self._journal:
            self._renew_journal()
            self._chore(self._retire(journal))
        journal.bequeath(self._journal)
        for eval_id, entry in unseen.items():
            self._journal.put(eval_id, entry, journal.parts(eval_id))
        for task in [t for t in self._tasks.values() if t.journal is journal]:
            if task.eval_id in unseen:
                task.journal = self._journal
            elif task.lane is not None:
                task.lane.cancel()
            else:
                del self._tasks[task.eval_id]
        self._recovered = deque(t for t in self._recovered if t.eval_id in self._tasks)

    def _move_journal(self) -> None:
        """Another Redis: new tasks use it at once, those in flight stay in the journal they are in."""
        old, completions = self._journal, self._completions
        self._renew_journal()
        self._completions = Completions(self._config.redis_url, self._connect)
        self._attempts.completions = self._completions
        if self._started:
            self._chore(self._retire(old, completions))
        else:
            self._journals.remove(old)

    def _renew_journal(self) -> None:
        self._journal = self._make_journal()
        self._journals.append(self._journal)
        if self._started:
            self._chore(self._journal.start())

    async def _retire(self, journal: Journal, completions: Completions | None = None) -> None:
        """Close a journal that no new task will use, once its last one is done."""
        try:
            await journal.ready.wait()  # its first beat may still bring tasks
            while any(task.journal is journal or journal in task.also_in for task in self._tasks.values()):
                await asyncio.sleep(HOUSEKEEPING_SECONDS)
        finally:
            if completions is not None:
                await completions.close()
        journal.bequeath(self._journal)
        await journal.close()
        if journal in self._journals:
            self._journals.remove(journal)

    # --- life

    async def _housekeep(self) -> None:
        """Once a second: samples, the queue's depth, and the end, when it has come."""
        depth_at = float("-inf")
        while not self._stopping:
            now = self._clock()
            self._samples.append((now, self._counters.routed))
            while now - self._samples[0][0] > MINUTE_SECONDS:
                self._samples.popleft()
            if now - depth_at >= DEPTH_PERIOD_SECONDS and self._queue.gate.open:
                depth_at = now
                self._chore(self._measure_depth())
            if self._completions.listening and self._pool.knows_all_kinds:
                await self._completions.stop()
            for queue in [q for url, q in self._queues.items() if q is not self._queue]:
                if not any(task.queue is queue for task in self._tasks.values()):
                    queue.gate.close()
                    del self._queues[queue.url]
            self._kick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), HOUSEKEEPING_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), self._config.spec.routing.drain_seconds)

    async def _measure_depth(self) -> None:
        self._depth = await self._queue.depth()

    async def _close(self) -> None:
        self._stopping = True
        self._settle_phase()
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self._pulling:  # however short the drain: what the queue has popped must reach the journal
                    await asyncio.sleep(CLOSING_SECONDS / 100)
        self._counters.pulls_lost += self._pulling
        for lane in list(self._lanes):
            lane.cancel()
        if self._final:
            for task in self._recovered:
                self._start_lane(self._give_up(task))
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=2 * CLOSING_SECONDS)
        await self._pool.close()
        await self._completions.close()
        while self._journals:
            # The one in use comes last: it writes what others could not. If it finds its lease lost, another follows.
            closing = [journal for journal in self._journals if journal is not self._journal] or [self._journal]
            self._journals = [journal for journal in self._journals if journal not in closing]
            for journal in closing:
                if journal is not self._journal:
                    journal.bequeath(self._journal)
            await asyncio.gather(*(journal.close() for journal in closing))
        for chore in list(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for queue in self._queues.values():
            queue.gate.close()
        await self._transport.close()
        self._phase = Phase.STOPPED
        self._stopped.set()
        self._changed()

    def _settle_phase(self) -> None:
        """Routing, draining or idle: from the intent, and from what is still in flight."""
        busy = bool(self._lanes)
        if self._stopping:
            phase = Phase.DRAINING
            if not busy:
                self._drained.set()
        else:
            match self._config.intent:
                case Intent.ROUTE:
                    phase = Phase.ROUTING
                case Intent.STANDBY | Intent.SUSPEND:
                    phase = Phase.DRAINING if busy else Phase.IDLE
                case other:
                    assert_never(other)
        if phase is not self._phase:
            self._phase = phase
            self._changed()

    def _changed(self) -> None:
        self._on_transition()

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        chore = asyncio.create_task(work)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    def _make_queue(self, url: str) -> QueueClient:
        return QueueClient(
            url,
            self._config.api_key,
            self._transport,
            self._counters,
            on_turn=self._kick,
            on_link=self._changed,
            clock=self._clock,
        )

    def _make_journal(self) -> Journal:
        return Journal(
            self._config.redis_url,
            self._config.group,
            f"{self._worker_id}:{uuid4().hex[:12]}",
            self._counters,
            clock=self._clock,
            on_recovered=self._on_recovered,
            on_fenced=self._on_fenced,
            on_link=self._journal_link_changed,
            on_room=self._kick,
            connect=self._connect,
        )

    def _journal_link_changed(self) -> None:
        self._changed()
        self._kick()
