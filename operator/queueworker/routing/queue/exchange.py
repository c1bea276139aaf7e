"""The way to one queue: its address and key, the state of the link, and one backoff for all requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.routing.http.transport import Answer, Transport, TransportError
from queueworker.routing.queue.answers import read_depth
from queueworker.routing.queue.shared_backoff import SharedBackoff
from queueworker.routing.snapshot import Link, LinkReason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from queueworker.routing.limits import Limits

ASK_TIMEOUT_SECONDS = 5.0


class QueueExchange:
    """`on_turn` is called when a request may start again, `on_link` when the reason of `link` has changed."""

    def __init__(
        self,
        url: str,
        key: str | None,
        transport: Transport,
        limits: Limits,
        on_turn: Callable[[], None],
        on_link: Callable[[], None],
    ) -> None:
        self.url = url
        self.base = url.rstrip("/")
        self.link = Link()
        self.backoff = SharedBackoff(on_turn)
        self.key_changed = asyncio.Event()
        """Set, and replaced, when another key is used: what was refused is worth another try."""
        self.signs_of_life = 0
        """Answers that only the queue itself gives."""
        self._key = key
        self._transport = transport
        self._limits = limits
        self._on_link = on_link

    def set_key(self, key: str | None) -> None:
        if key != self._key:
            self._key = key
            self.key_changed.set()
            self.key_changed = asyncio.Event()
            self.backoff.retry_now()

    def get(self, url: str, timeout: float, limit: int) -> Awaitable[Answer]:
        """Raises `TransportError`."""
        return self._transport.get(url, timeout, self._key, limit=limit)

    def post(self, path: str, body: bytes, timeout: float) -> Awaitable[Answer]:
        """Raises `TransportError`."""
        limit = self._limits.max_small_body_bytes
        return self._transport.post(self.base + path, body, timeout, self._key, limit=limit)

    async def ask(self, path: str) -> Answer | None:
        """The answer to a GET that changes nothing; None when there is none."""
        try:
            return await self.get(self.base + path, ASK_TIMEOUT_SECONDS, self._limits.max_small_body_bytes)
        except TransportError:
            return None

    async def depth(self) -> int | None:
        """Tasks that wait in the queue, by its `/status`; None when the queue does not say."""
        answer = await self.ask("/status")
        depth = None if answer is None else read_depth(*answer)
        self.signs_of_life += depth is not None
        return depth

    # --- what became of a request

    def answered(self) -> None:
        """Somebody answered, so the queue's address can be reached."""
        if not self.backoff.healthy:
            self.backoff.succeeded()

    def unreachable(self, epoch: int, error: TransportError) -> None:
        self.backoff.failed(epoch)
        self.set_link(LinkReason.CONNECTION_FAILED, f"queue cannot be reached at {error}")

    def key_refused(self, what: str) -> None:
        how = "refused" if self._key else "not given"
        self.set_link(LinkReason.AUTHENTICATION_FAILED, f"queue {self.url} answered {what}: the API key was {how}")

    def foreign(self, what: str) -> None:
        self.set_link(LinkReason.INVALID_ANSWER, f"queue {self.url} {what}")

    def set_link(self, reason: LinkReason, message: str = "") -> None:
        if reason is not self.link.reason or message != self.link.message:
            changed = reason is not self.link.reason
            self.link = Link(reason, message)
            if changed:
                self._on_link()
