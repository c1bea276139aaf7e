"""The queue's side of the wire: pull, report, depth. One client per queue URL; tasks keep the one they came from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from queueworker.routing.backoff import Gate, exponential
from queueworker.routing.http.large import LARGE_BYTES, in_turns
from queueworker.routing.http.transport import NotSent, TransportError
from queueworker.routing.snapshot import Link, LinkReason
from queueworker.routing.wire.task import (
    InvalidAnswer,
    InvalidTask,
    Task,
    excerpt,
    is_object,
    parse_large_task,
    parse_task,
    path_id,
    report_body,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from queueworker.routing.counters import Counters
    from queueworker.routing.http.transport import Answer, Transport
    from queueworker.routing.wire.task import Outcome

# A pull is never cancelled by us, because the queue may have popped a task for it. A queue that accepts
# the request and then says nothing for this long is given up on, and the loss it may mean is counted.
PULL_TIMEOUT_SECONDS = 60.0
REPORT_TIMEOUT_SECONDS = 60.0
STATUS_TIMEOUT_SECONDS = 5.0
REPORT_RETRY_FIRST_SECONDS = 1.0
REPORT_RETRY_MOST_SECONDS = 30.0
# Answers that say "not now": worth asking again. Every other 4xx is a refusal of this very report.
_TRANSIENT = frozenset({401, 403, 408, 425, 429})


class QueueClient:
    """Speaks to one queue, keeps the state of the link to it, and shares one backoff between all callers."""

    def __init__(
        self,
        url: str,
        key: str | None,
        transport: Transport,
        counters: Counters,
        *,
        on_turn: Callable[[], None],
        on_link: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.url = url
        self.link = Link()
        self.gate = Gate(on_turn)
        self.stuck = 0
        """Reports that the queue keeps refusing to take, and that wait to be sent again."""
        self._key = key
        self._base = url.rstrip("/")
        self._next_url = f"{self._base}/tasks/next"
        self._transport = transport
        self._counters = counters
        self._on_link = on_link
        self._clock = clock
        self._key_changed = asyncio.Event()

    def set_key(self, key: str | None) -> None:
        """Use another key from now on, and try at once what waits for it."""
        if key != self._key:
            self._key = key
            self._key_changed.set()
            self._key_changed = asyncio.Event()
            self.gate.hurry()

    async def pull(self, epoch: int) -> Task | None:
        """One `GET /tasks/next`. None: nothing to do now (empty, or an answer that `link` tells of).

        `epoch` is the gate's when it gave the turn. Raises `InvalidTask` for a task that cannot be routed.
        """
        counters = self._counters
        counters.polls += 1
        try:
            status, body = await self._transport.get(self._next_url, PULL_TIMEOUT_SECONDS, self._key)
        except TransportError as error:
            counters.polls_failed += 1
            if not isinstance(error, NotSent):
                counters.pulls_lost += 1
            self._unreachable(epoch, error)
            return None
        except BaseException:
            self.gate.abandoned(epoch)
            raise
        if not self.gate.open:
            self.gate.succeeded()
        if status not in {200, 204}:
            counters.polls_failed += 1
            self._answered(status, body)
            return None
        try:
            if len(body) < LARGE_BYTES:
                task = parse_task(body, self, self._clock())
            else:
                task = await in_turns(parse_large_task(body, self, self._clock()))
        except InvalidAnswer as error:
            counters.polls_failed += 1
            self._set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} answered {error}")
            return None
        except InvalidTask as error:
            counters.pulled += 1
            counters.invalid += 1
            self._set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} handed out an invalid task: {error}")
            raise
        if task is None:
            counters.polls_empty += 1
        else:
            counters.pulled += 1
        if self.link.reason is not LinkReason.CONNECTED:
            self._set_link(LinkReason.CONNECTED)
        return task

    async def report(self, eval_id: str, outcome: Outcome, on_failure: Callable[[], None]) -> Outcome | None:
        """Tell the queue how the task ended; try for ever. `on_failure` is called before each wait.

        Returns the outcome as the queue took it (a result that it will never take becomes a failure),
        or None when it knows no such id.
        A queue that restarted has forgotten its tasks, and one whose answer was lost has the report
        already: both say that they do not know the id, and in both nothing is left to tell.
        A 200 with no JSON object is not the queue's: something in front of it has answered (a page that says
        to come back later), and the report is sent again.
        """
        refusals = 0
        while True:
            if not self.gate.take_turn():
                on_failure()
                await self.gate.turn()
            epoch = self.gate.epoch
            try:
                status, body = await self._post_report(eval_id, outcome)
            except TransportError as error:
                self._unreachable(epoch, error)
                continue
            except BaseException:
                self.gate.abandoned(epoch)
                raise
            if not self.gate.open:
                self.gate.succeeded()
            if status == 200 and is_object(body):
                if self.link.reason is LinkReason.CONNECTION_FAILED:
                    self._set_link(LinkReason.CONNECTED)
                return outcome if outcome.completed or b"not_found" not in body else None
            if status == 404:
                return None
            refusals += 1
            self._answered(status, body)
            if outcome.completed and 400 <= status < 500 and status not in _TRANSIENT:
                # The queue will never take this result (too large, say). The task is still owed a report.
                outcome = type(outcome)(
                    completed=False, error=f"queue refused the result with {status}: {excerpt(body)}"
                )
                continue
            on_failure()
            await self._wait_to_report(exponential(refusals, REPORT_RETRY_FIRST_SECONDS, REPORT_RETRY_MOST_SECONDS))

    async def depth(self) -> int | None:
        """Tasks that wait in the queue, by its `/status`; None when it does not say."""
        try:
            status, body = await self._transport.get(f"{self._base}/status", STATUS_TIMEOUT_SECONDS, self._key)
            value = orjson.loads(body).get("queued") if status == 200 else None
        except (TransportError, orjson.JSONDecodeError, AttributeError):
            return None
        return value if isinstance(value, int) else None

    def _post_report(self, eval_id: str, outcome: Outcome) -> Awaitable[Answer]:
        verb = "complete" if outcome.completed else "fail"
        url = f"{self._base}/tasks/{path_id(eval_id)}/{verb}"
        return self._transport.post(url, report_body(outcome), REPORT_TIMEOUT_SECONDS, self._key)

    async def _wait_to_report(self, delay: float) -> None:
        self.stuck += 1
        try:
            async with asyncio.timeout(delay):  # not wait_for, which may swallow a cancellation (before Python 3.12)
                await self._key_changed.wait()
        except TimeoutError:
            pass
        finally:
            self.stuck -= 1

    def _unreachable(self, epoch: int, error: TransportError) -> None:
        self.gate.failed(epoch)
        self._set_link(LinkReason.CONNECTION_FAILED, f"queue cannot be reached at {error}")

    def _answered(self, status: int, body: bytes | bytearray) -> None:
        if status in {401, 403}:
            self._set_link(
                LinkReason.AUTHENTICATION_FAILED,
                f"queue {self.url} answered {status}: the API key was {'refused' if self._key else 'not given'}",
            )
        else:
            self._set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} answered {status}: {excerpt(body)}")

    def _set_link(self, reason: LinkReason, message: str = "") -> None:
        link = Link(reason, message)
        if link != self.link:
            changed = reason is not self.link.reason
            self.link = link
            if changed:
                self._on_link()
