"""Tells the queue how tasks ended, until the queue itself has answered."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from queueworker.routing.aio import happens
from queueworker.routing.backoff import exponential
from queueworker.routing.http.transport import Answer, Broken, TransportError
from queueworker.routing.queue.answers import Reply, may_have_task, read_report
from queueworker.routing.snapshot import LinkReason
from queueworker.routing.wire.outcome import Outcome, report_body
from queueworker.routing.wire.reading import describe, excerpt
from queueworker.routing.wire.task import path_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.limits import Limits
    from queueworker.routing.queue.exchange import QueueExchange

log = logging.getLogger(__name__)

REPORT_TIMEOUT_SECONDS = 60.0
RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 30.0
# So many 404s that may be somebody else's, with signs of the queue's life between them, say that an id is unknown.
DOUBTED_404S = 3
# A result that was refused so often, while other reports were taken, is reported as a failure; then it is given up.
MAX_REFUSALS = 8


@dataclass(slots=True)
class ReportState:
    """One report on its way."""

    eval_id: str
    outcome: Outcome
    taken_before: int
    """How many other reports the queue had taken when it last refused this one."""
    refusals: int = 0
    """Of this result, or of the failure in its place."""
    refused_alone: int = 0
    """Of these, those before which the queue took another report: the others may be an outage of all reports."""
    stuck: bool = False
    """It was refused at least once."""
    doubted: int = 0
    """404s that may be somebody else's, with signs of the queue's life between them."""
    signs_of_life: int = -1
    """Of the queue, at the last 404 that was doubted."""

    def become_failure(self, error: str, taken: int) -> None:
        self.outcome = Outcome(completed=False, error=error, published=self.outcome.published)
        self.refusals, self.refused_alone, self.taken_before = 0, 0, taken

    def count_refusal(self, taken: int) -> None:
        self.refusals += 1
        self.refused_alone += taken > self.taken_before
        self.taken_before = taken


class Next(Enum):
    """What to do with a report that the queue has refused."""

    SEND_AGAIN = auto()
    """After a wait."""
    REPORT_FAILURE = auto()
    """The queue will never take the result: the task has failed."""
    GIVE_UP = auto()
    """Nor will it take the failure: nobody can do more."""


def after_refusal(report: ReportState, reply: Reply) -> Next:
    """Pure. The report's refusals include this one."""
    never = reply is Reply.NEVER and (report.refusals >= MAX_REFUSALS or report.outcome.completed)
    if not (never or report.refused_alone >= MAX_REFUSALS):
        return Next.SEND_AGAIN
    return Next.REPORT_FAILURE if report.outcome.completed else Next.GIVE_UP


class Reporter:
    """Sends reports. Any number may be on their way at once; they share the backoff of the exchange."""

    def __init__(self, exchange: QueueExchange, limits: Limits) -> None:
        self.stuck = 0
        """Reports that were refused and are not settled yet, whether they wait or are being sent again."""
        self._exchange = exchange
        self._limits = limits
        self._taken = 0
        self._refusals_in_a_row = 0
        self._asking: asyncio.Future[Answer | None] | None = None

    @property
    def all_refused(self) -> bool:
        """Whether many reports wait because the queue refuses them, and none was taken meanwhile."""
        most = self._limits.max_stuck_reports
        return self.stuck >= most and self._refusals_in_a_row >= most

    async def report(self, eval_id: str, outcome: Outcome, on_failure: Callable[[], None]) -> Outcome | None:
        """Tell the queue how the task ended; try for ever. `on_failure` is called before each wait.

        Returns the outcome as the queue took it (a result that it will never take becomes a failure), or None when
        the queue knows no such id: it was restarted, or the answer to an earlier report was lost.
        A failure that the queue will never take is returned as well, with an alarm in the log: nobody can do more.
        """
        report = ReportState(eval_id, outcome, self._taken)
        try:
            while True:
                answer = await self._send(report, on_failure)
                reply = await self._read(answer, report)
                if reply is Reply.TAKEN:
                    self._count_taken()
                    return report.outcome
                if reply is Reply.UNKNOWN_ID:
                    self._refusals_in_a_row = 0
                    log.warning("queue %s does not know task %s, or has its report", self._exchange.url, eval_id)
                    return None
                self._count_refusal(report, reply, answer)
                match after_refusal(report, reply):
                    case Next.SEND_AGAIN:
                        on_failure()
                        await self._wait(exponential(report.refusals, RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS))
                    case Next.REPORT_FAILURE:
                        report.become_failure(_refusal(answer), self._taken)
                    case Next.GIVE_UP:
                        url, shape = self._exchange.url, _shape(answer)
                        log.error("queue %s takes no report of task %s: %s", url, eval_id, shape)
                        return report.outcome
        finally:
            self.stuck -= report.stuck

    async def _send(self, report: ReportState, on_failure: Callable[[], None]) -> Answer | Broken:
        """The answer to one report, once there is one; or why it has none, if only this report has none."""
        exchange, backoff = self._exchange, self._exchange.backoff
        path = f"/tasks/{path_id(report.eval_id)}/{'complete' if report.outcome.completed else 'fail'}"
        while True:
            if not backoff.try_acquire():
                on_failure()
                await backoff.acquire()
            epoch = backoff.epoch
            answer: Answer | Broken
            try:
                try:
                    answer = await exchange.post(path, report_body(report.outcome), REPORT_TIMEOUT_SECONDS)
                except Broken as error:
                    if not await self._answers():
                        raise
                    answer = error
            except TransportError as error:
                exchange.unreachable(epoch, error)
            except BaseException:
                backoff.abandoned(epoch)
                raise
            else:
                exchange.answered()
                return answer

    async def _answers(self) -> bool:
        """Whether somebody answers at the queue's address now. Those who ask at once share one request.

        After a report that broke: what stands in between may cut off this one each time (for its size, or its text).
        It is a refusal then, and must not hold up everybody else as an outage does.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._exchange.ask("/status"))
        return await asyncio.shield(self._asking) is not None

    async def _read(self, answer: Answer | Broken, report: ReportState) -> Reply:
        if isinstance(answer, TransportError):
            return Reply.NOT_NOW
        reply = read_report(answer.status, answer.body, completed=report.outcome.completed)
        if reply is Reply.MAYBE_UNKNOWN_ID and await self._is_unknown(report):
            return Reply.UNKNOWN_ID
        return reply

    async def _is_unknown(self, report: ReportState) -> bool:
        """After a 404 that may be somebody else's: whether the queue itself has no such task.

        It has none after several such answers with signs of its life between them, when it does not say otherwise.
        """
        if self._exchange.signs_of_life != report.signs_of_life:
            report.doubted += 1
            report.signs_of_life = self._exchange.signs_of_life
        if report.doubted < DOUBTED_404S:
            await self._exchange.depth()  # a good answer is a sign of life
            return False
        answer = await self._exchange.ask(f"/tasks/{path_id(report.eval_id)}")
        return answer is not None and not may_have_task(*answer)

    def _count_taken(self) -> None:
        self._taken += 1
        self._refusals_in_a_row = 0
        self._exchange.signs_of_life += 1
        if self._exchange.link.reason is LinkReason.CONNECTION_FAILED:
            self._exchange.set_link(LinkReason.CONNECTED)

    def _count_refusal(self, report: ReportState, reply: Reply, answer: Answer | Broken) -> None:
        report.count_refusal(self._taken)
        self._refusals_in_a_row += 1
        if not report.stuck:
            report.stuck = True
            self.stuck += 1
        what = f"{_shape(answer)} to a report"
        if reply is Reply.KEY_REFUSED:
            self._exchange.key_refused(what)
        else:
            self._exchange.foreign(f"answered {what}")

    async def _wait(self, delay: float) -> None:
        await happens(self._exchange.key_changed, delay)


def _shape(answer: Answer | Broken) -> str:
    """An answer without its text, or why there is none."""
    if isinstance(answer, TransportError):
        return f"nothing whole ({answer})"
    return f"{answer.status} ({describe(answer.body)})"


def _refusal(answer: Answer | Broken) -> str:
    """The error of a task whose result was refused."""
    if isinstance(answer, TransportError):
        return f"queue gave no answer to the result: {answer}"
    return f"queue refused the result with {answer.status}: {excerpt(answer.body)}"
