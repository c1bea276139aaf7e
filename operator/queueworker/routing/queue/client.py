"""The queue's side of the wire: pull a task, report an outcome, ask for the depth. One client per queue URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.routing.backoff import queue_delay
from queueworker.routing.counters import Counters, LossCause
from queueworker.routing.http.transport import NotSent, TooLarge, Transport, TransportError
from queueworker.routing.queue.answers import ForeignAnswer, key_refused, read_poll
from queueworker.routing.queue.exchange import QueueExchange
from queueworker.routing.queue.reporter import Reporter
from queueworker.routing.snapshot import Link, LinkReason
from queueworker.routing.wire.task import InvalidTask, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.limits import Limits

# A poll is never cancelled by us, because the queue may have popped a task for it. A queue that accepts the request
# and then says nothing for this long is given up on, and the loss that this may mean is counted.
PULL_TIMEOUT_SECONDS = 60.0
# A task is read to this many times the limit of a body, so that one that is too large can be reported as failed.
PULL_LIMIT_FACTOR = 4


class QueueClient:
    """Polls one queue. `reporter` tells it how its tasks ended."""

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
        self.max_body_bytes = max_body_bytes
        """Of a task; a larger one is invalid."""
        self._counters = counters
        self._exchange = QueueExchange(url, key, transport, limits, on_turn, on_link)
        self.backoff = self._exchange.backoff
        self.reporter = Reporter(self._exchange, limits)
        self.set_key = self._exchange.set_key
        self.depth = self._exchange.depth
        self._next_url = f"{self._exchange.base}/tasks/next"
        self._foreign_polls = 0
        """Polls in a row that somebody else answered."""

    @property
    def link(self) -> Link:
        return self._exchange.link

    @property
    def poll_pause(self) -> float:
        """Seconds to wait before the next poll, beyond the poll interval: 0, 0, 5, 10 … 30 after foreign answers."""
        return queue_delay(max(0, self._foreign_polls - 1))

    async def pull(self, epoch: int) -> Task | None:
        """One `GET /tasks/next`. None: there is nothing to do now (the queue is empty, or `link` tells why).

        `epoch` is the backoff's when the request was allowed. Raises `InvalidTask` for a task that cannot be routed.
        """
        counters, exchange = self._counters, self._exchange
        limit = PULL_LIMIT_FACTOR * self.max_body_bytes
        try:
            status, body = await exchange.get(self._next_url, PULL_TIMEOUT_SECONDS, limit)
        except TooLarge as error:
            exchange.answered()
            self._take_foreign(ForeignAnswer(f"with more than {limit:,} bytes ({error})", LossCause.UNREADABLE))
            return None
        except TransportError as error:
            counters.polls_failed += 1
            if not isinstance(error, NotSent):
                counters.count_lost_pull(LossCause.NO_ANSWER)
            exchange.unreachable(epoch, error)
            return None
        except BaseException:
            exchange.backoff.abandoned(epoch)
            raise
        exchange.answered()
        try:
            return self._take(read_poll(status, body, self.max_body_bytes))
        except ForeignAnswer as error:
            self._take_foreign(error, refused_key=key_refused(status, body))
            return None
        except InvalidTask as error:
            self._take_invalid(error)
            if len(body) > self.max_body_bytes:
                raise InvalidTask(self._too_large(len(body)), error.eval_id) from error
            raise

    def _take(self, task: Task | None) -> Task | None:
        self._foreign_polls = 0
        self._exchange.signs_of_life += 1
        if task is None:
            self._counters.polls_empty += 1
        elif len(task.raw) > self.max_body_bytes:
            raise InvalidTask(self._too_large(len(task.raw)), task.eval_id)
        else:
            self._counters.pulled += 1
        if self._exchange.link.reason is not LinkReason.CONNECTED:
            self._exchange.set_link(LinkReason.CONNECTED)
        return task

    def _too_large(self, size: int) -> str:
        limit = f"{self.max_body_bytes >> 20} MiB"
        return f"the task has {size:,} bytes, more than routing.maxBodyMebibytes allows ({limit})"

    def _take_foreign(self, error: ForeignAnswer, *, refused_key: bool = False) -> None:
        self._counters.polls_failed += 1
        self._foreign_polls += 1
        if error.cause is not None:
            self._counters.count_lost_pull(error.cause)
        if refused_key:
            self._exchange.key_refused(str(error))
        else:
            self._exchange.foreign(f"answered {error}")

    def _take_invalid(self, error: InvalidTask) -> None:
        """The queue popped it. With an id it is reported as failed; without one it is lost."""
        self._counters.pulled += 1
        self._counters.invalid += 1
        if error.eval_id is None:
            self._counters.count_lost_pull(LossCause.UNREADABLE)
        self._exchange.foreign(f"handed out an invalid task: {error}")


class QueueClients:
    """One client per URL. `own` is the queue that the router polls."""

    def __init__(self, url: str, make: Callable[[str], QueueClient]) -> None:
        self._make = make
        self.own = make(url)
        self._clients = {url: self.own}

    def of(self, url: str) -> QueueClient:
        client = self._clients.get(url)
        if client is None:
            client = self._clients[url] = self._make(url)
        return client

    def apply(self, max_body_bytes: int, key: str | None) -> None:
        """Take what has changed. The key is that of the own queue."""
        for client in self._clients.values():
            client.max_body_bytes = max_body_bytes
        self.own.set_key(key)

    def keep_only(self, in_use: set[QueueClient]) -> None:
        """Drop the clients of other queues that no task in flight came from."""
        for client in [c for c in self._clients.values() if c is not self.own and c not in in_use]:
            client.backoff.close()
            del self._clients[client.url]

    def close(self) -> None:
        for client in self._clients.values():
            client.backoff.close()
