"""The queue's side of the wire: pull a task, report an outcome, ask for the depth. One client per queue URL."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from queueworker.routing.backoff import exponential, queue_delay
from queueworker.routing.http.transport import NotSent, TooLarge, TransportError
from queueworker.routing.queue.answers import (
    ForeignAnswer,
    LossCause,
    Reply,
    key_refused,
    read_depth,
    read_look_up,
    read_poll,
    read_report,
)
from queueworker.routing.queue.shared_backoff import SharedBackoff
from queueworker.routing.snapshot import Link, LinkReason
from queueworker.routing.wire.outcome import report_body
from queueworker.routing.wire.reading import describe, excerpt
from queueworker.routing.wire.task import InvalidTask, path_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from queueworker.routing.counters import Counters
    from queueworker.routing.http.transport import Answer, Transport
    from queueworker.routing.limits import Limits
    from queueworker.routing.wire.outcome import Outcome
    from queueworker.routing.wire.task import Task

log = logging.getLogger(__name__)

# A poll is never cancelled by us, because the queue may have popped a task for it. A queue that accepts the request
# and then says nothing for this long is given up on, and the loss that this may mean is counted.
PULL_TIMEOUT_SECONDS = 60.0
REPORT_TIMEOUT_SECONDS = 60.0
STATUS_TIMEOUT_SECONDS = 5.0
REPORT_RETRY_FIRST_SECONDS = 1.0
REPORT_RETRY_MAX_SECONDS = 30.0
# A task is read to this many times the limit of a body, so that one that is too large can be reported as failed.
PULL_LIMIT_FACTOR = 4
# So many 404s that may be somebody else's, with signs of the queue's life between them, say that an id is unknown.
DOUBTED_404S = 3
# A result that was refused so often, while other reports were taken, is reported as a failure; then it is given up.
MAX_REFUSALS = 8


class QueueClient:
    """Speaks to one queue, keeps the state of the link to it, and shares one backoff between all callers.

    `on_turn` is called when a request may start again, `on_link` when the reason of `link` changed.
    More than 15 attributes: three of them are counts that only this client can keep.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        transport: Transport,
        counters: Counters,
        *,
        limits: Limits,
        max_body_bytes: int,
        on_turn: Callable[[], None],
        on_link: Callable[[], None],
    ) -> None:
        self.url = url
        self.link = Link()
        self.backoff = SharedBackoff(on_turn)
        self.max_body_bytes = max_body_bytes
        """Of a task; a larger one is invalid."""
        self.stuck_reports = 0
        """Reports that the queue refuses, and that wait to be sent again."""
        self._key = key
        self._base = url.rstrip("/")
        self._next_url = f"{self._base}/tasks/next"
        self._transport = transport
        self._counters = counters
        self._limits = limits
        self._on_link = on_link
        self._key_changed = asyncio.Event()
        self._foreign_polls = 0
        """Polls in a row that somebody else answered."""
        self._signs_of_life = 0
        """Answers that only the queue itself gives."""
        self._reports_taken = 0
        self._refusals_in_a_row = 0

    def set_key(self, key: str | None) -> None:
        """Use another key from now on, and try at once what waits for it."""
        if key != self._key:
            self._key = key
            self._key_changed.set()
            self._key_changed = asyncio.Event()
            self.backoff.retry_now()

    @property
    def refuses_all_reports(self) -> bool:
        """Whether many reports wait because the queue refuses them, and none was taken meanwhile."""
        most = self._limits.max_stuck_reports
        return self.stuck_reports >= most and self._refusals_in_a_row >= most

    @property
    def poll_pause(self) -> float:
        """Seconds to wait before the next poll, beyond the poll interval: 0, 0, 5, 10 … 30 after foreign answers."""
        return queue_delay(max(0, self._foreign_polls - 1))

    # --- pull

    async def pull(self, epoch: int) -> Task | None:
        """One `GET /tasks/next`. None: there is nothing to do now (the queue is empty, or `link` tells why).

        `epoch` is the backoff's when the request was allowed. Raises `InvalidTask` for a task that cannot be routed.
        """
        counters = self._counters
        counters.polls += 1
        limit = PULL_LIMIT_FACTOR * self.max_body_bytes
        try:
            status, body = await self._transport.get(self._next_url, PULL_TIMEOUT_SECONDS, self._key, limit=limit)
        except TooLarge as error:
            self._foreign(ForeignAnswer(f"with more than {limit:,} bytes: {error}", LossCause.UNREADABLE))
            return None
        except TransportError as error:
            counters.polls_failed += 1
            if not isinstance(error, NotSent):
                self._count_lost(LossCause.NO_ANSWER)
            self._unreachable(epoch, error)
            return None
        except BaseException:
            self.backoff.abandoned(epoch)
            raise
        if not self.backoff.healthy:
            self.backoff.succeeded()
        try:
            task = read_poll(status, body)
        except ForeignAnswer as error:
            self._foreign(error, refused_key=key_refused(status, body))
            return None
        except InvalidTask as error:
            self._invalid(error)
            raise
        return self._pulled(task)

    def _pulled(self, task: Task | None) -> Task | None:
        self._foreign_polls = 0
        self._signs_of_life += 1
        if task is None:
            self._counters.polls_empty += 1
        else:
            self._counters.pulled += 1
            if len(task.raw) > self.max_body_bytes:
                too_large = InvalidTask(
                    f"the task has {len(task.raw):,} bytes, more than routing.maxBodyMebibytes allows "
                    f"({self.max_body_bytes >> 20} MiB)",
                    task.eval_id,
                )
                self._counters.invalid += 1
                raise too_large
        if self.link.reason is not LinkReason.CONNECTED:
            self._set_link(LinkReason.CONNECTED)
        return task

    def _foreign(self, error: ForeignAnswer, *, refused_key: bool = False) -> None:
        self._counters.polls_failed += 1
        self._foreign_polls += 1
        if error.cause is not None:
            self._count_lost(error.cause)
        if refused_key:
            self._key_refused(str(error))
        else:
            self._set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} answered {error}")

    def _invalid(self, error: InvalidTask) -> None:
        self._counters.invalid += 1
        if error.eval_id is None:
            self._foreign_polls += 1
            self._count_lost(LossCause.UNREADABLE)
        else:
            self._counters.pulled += 1
        self._set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} handed out an invalid task: {error}")

    def _count_lost(self, cause: LossCause) -> None:
        self._counters.count_lost_pull(cause.value)

    # --- report

    async def report(self, eval_id: str, outcome: Outcome, on_failure: Callable[[], None]) -> Outcome | None:
        """Tell the queue how the task ended; try for ever. `on_failure` is called before each wait.

        Returns the outcome as the queue took it (a result that it will never take becomes a failure), or None when
        the queue knows no such id: it was restarted, or the answer to an earlier report was lost.
        A failure that the queue will never take is returned as well, with an alarm in the log: nobody else can do more.
        """
        refusals = doubted = 0
        taken_before = self._reports_taken
        signs = -1
        while True:
            answer = await self._send_report(eval_id, outcome, on_failure)
            reply = read_report(answer.status, answer.body, completed=outcome.completed)
            if reply is Reply.TAKEN:
                self._report_taken()
                return outcome
            if reply is Reply.UNKNOWN_ID:
                self._unknown_id(eval_id)
                return None
            if reply is Reply.MAYBE_UNKNOWN_ID and self._signs_of_life != signs:
                doubted += 1
                signs = self._signs_of_life
                if doubted >= DOUBTED_404S and not await self._knows(eval_id):
                    self._unknown_id(eval_id)
                    return None
            refusals += 1
            self._refusals_in_a_row += 1
            self._report_refused(reply, answer)
            hopeless = refusals >= MAX_REFUSALS and self._reports_taken > taken_before
            if reply is Reply.NEVER or hopeless:
                words = f"queue refused the result with {answer.status}: {excerpt(answer.body)}"
                if not outcome.completed and refusals >= MAX_REFUSALS:
                    log.error("queue %s takes no report of task %s: %s", self.url, eval_id, words)
                    return outcome
                if outcome.completed:
                    outcome = replace(outcome, completed=False, error=words, result=None)
                    refusals, taken_before = 0, self._reports_taken
                    continue
            on_failure()
            await self._wait_to_report(exponential(refusals, REPORT_RETRY_FIRST_SECONDS, REPORT_RETRY_MAX_SECONDS))
            if reply is Reply.MAYBE_UNKNOWN_ID:
                await self.depth()  # a good answer is a sign of the queue's life

    async def _send_report(self, eval_id: str, outcome: Outcome, on_failure: Callable[[], None]) -> Answer:
        """The answer to one report, once there is one."""
        while True:
            if not self.backoff.try_acquire():
                on_failure()
                await self.backoff.acquire()
            epoch = self.backoff.epoch
            try:
                answer = await self._post_report(eval_id, outcome)
            except TransportError as error:
                self._unreachable(epoch, error)
            except BaseException:
                self.backoff.abandoned(epoch)
                raise
            else:
                if not self.backoff.healthy:
                    self.backoff.succeeded()
                return answer

    def _post_report(self, eval_id: str, outcome: Outcome) -> Awaitable[Answer]:
        verb = "complete" if outcome.completed else "fail"
        url = f"{self._base}/tasks/{path_id(eval_id)}/{verb}"
        limit = self._limits.max_small_body_bytes
        return self._transport.post(url, report_body(outcome), REPORT_TIMEOUT_SECONDS, self._key, limit=limit)

    def _report_taken(self) -> None:
        self._signs_of_life += 1
        self._reports_taken += 1
        self._refusals_in_a_row = 0
        if self.link.reason is LinkReason.CONNECTION_FAILED:
            self._set_link(LinkReason.CONNECTED)

    def _unknown_id(self, eval_id: str) -> None:
        self._refusals_in_a_row = 0
        log.warning("queue %s knows no task %s: it was restarted, or has the report already", self.url, eval_id)

    def _report_refused(self, reply: Reply, answer: Answer) -> None:
        what = f"{answer.status} ({describe(answer.body)}) to a report"
        if reply is Reply.KEY_REFUSED:
            self._key_refused(what)
        else:
            self._set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} answered {what}")

    async def _wait_to_report(self, delay: float) -> None:
        self.stuck_reports += 1
        try:
            async with asyncio.timeout(delay):  # wait_for may swallow a cancellation before Python 3.12
                await self._key_changed.wait()
        except TimeoutError:
            pass
        finally:
            self.stuck_reports -= 1

    # --- ask

    async def depth(self) -> int | None:
        """Tasks that wait in the queue, by its `/status`; None when it does not say."""
        answer = await self._ask("/status")
        depth = None if answer is None else read_depth(*answer)
        self._signs_of_life += depth is not None
        return depth

    async def _knows(self, eval_id: str) -> bool:
        answer = await self._ask(f"/tasks/{path_id(eval_id)}")
        return answer is None or bool(read_look_up(*answer))

    async def _ask(self, path: str) -> Answer | None:
        limit = self._limits.max_small_body_bytes
        try:
            return await self._transport.get(self._base + path, STATUS_TIMEOUT_SECONDS, self._key, limit=limit)
        except TransportError:
            return None

    # --- the link

    def _unreachable(self, epoch: int, error: TransportError) -> None:
        self.backoff.failed(epoch)
        self._set_link(LinkReason.CONNECTION_FAILED, f"queue cannot be reached at {error}")

    def _key_refused(self, what: str) -> None:
        how = "refused" if self._key else "not given"
        self._set_link(LinkReason.AUTHENTICATION_FAILED, f"queue {self.url} answered {what}: the API key was {how}")

    def _set_link(self, reason: LinkReason, message: str = "") -> None:
        link = Link(reason, message)
        if link != self.link:
            changed = reason is not self.link.reason
            self.link = link
            if changed:
                self._on_link()
