"""One connection, and on it one exchange after another."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, cast

from queueworker.routing.http.answer import Answer, AnswerReader, BadAnswer, Oversized
from queueworker.routing.http.errors import Broken, NotSent, TimedOut, TooLarge, TransportError, cause

if TYPE_CHECKING:
    import socket

    from queueworker.routing.memory_budget import Claim, MemoryAccount

# Shorter than what servers commonly keep an idle connection for (uvicorn 5 s), so that the peer rarely closes one in
# the moment that we write to it: that would be ambiguous.
MAX_IDLE_SECONDS = 4.0
# A peer that has moved to another address is found by then, though the old one may live on.
MAX_AGE_SECONDS = 60.0
# Of a request's body: given to the transport at once, when it has room.
SLICE_BYTES = 256 * 1024
# Of an answer: what is larger is received once the process has room for it, if it is to be accounted for.
UNCLAIMED_BYTES = 64 * 1024


class Connection(asyncio.Protocol):
    """Over TCP or TLS. An exchange ends with an `Answer` or with the error to raise.

    `NotSent` is exact because over TCP a request is written to the socket directly: the result tells whether the
    kernel has taken a byte of it. What it does not take at once goes through the transport. More than 15 attributes:
    the state of the connection, and that of the exchange on it.
    """

    __slots__ = (
        "_claim", "_future", "_loop", "_memory", "_paused", "_peek", "_reader", "_socket", "_transport", "_unsent",
        "_url", "_waits_since", "_written", "closed", "deadline", "idle_since", "opened",
    )  # fmt: skip

    def __init__(self, connected: socket.socket, now: float, *, tls: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = None if tls else connected
        self._peek = select.poll()
        self._peek.register(connected, select.POLLIN)
        self._reader = AnswerReader()
        self._future: asyncio.Future[Answer | TransportError] | None = None
        self._url = ""
        self._unsent = memoryview(b"")
        """What is left of the request's body for when the transport has room."""
        self._written = False
        """Whether some of the request went through the transport."""
        self._paused = False
        self._memory: MemoryAccount | None = None
        self._claim: Claim | None = None
        """Room for the answer, if it is large."""
        self._waits_since = 0.0
        self.closed = False
        self.deadline = 0.0
        """Of the exchange under way, on the clock of whoever started it; likewise the two below."""
        self.idle_since = self.opened = now

    def exchange(
        self, url: str, head: bytes, body: bytes, deadline: float, limit: int, memory: MemoryAccount | None = None
    ) -> asyncio.Future[Answer | TransportError]:
        """Send a request, once. `head` is small; it may hold the body already. Raises `NotSent`.

        With `memory`, a large answer is received when there is room for it. That wait does not count as its time.
        """
        self._url, self.deadline, self._written, self._memory = url, deadline, False, memory
        self._reader.begin(limit)
        taken = 0 if self._socket is None else self._write_directly(self._socket, head)
        future = self._future = self._loop.create_future()
        if taken < len(head):
            self._write(head[taken:])
        if body:
            self._unsent = memoryview(body)
            self._write_more()
        return future

    def release_room(self) -> None:
        """Give back the room that the answer had. To be called by who has got the answer, in the same step."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def usable(self, now: float) -> bool:
        """Whether another request may be written to it. Looks at the socket: the loop may not have told us yet."""
        return not self.closed and not self.outdated(now) and not self.has_news()

    def outdated(self, now: float) -> bool:
        return now - self.idle_since >= MAX_IDLE_SECONDS or now - self.opened >= MAX_AGE_SECONDS

    def has_news(self) -> bool:
        """Whether the peer has sent something or closed the connection, and the loop has not told us yet."""
        return bool(self._peek.poll(0))

    @property
    def waits_for_room(self) -> bool:
        """Whether the peer has more to say, and we do not read it yet."""
        return self._claim is not None and not self._claim.granted

    def time_out(self) -> None:
        self._fail(TimedOut(f"{self._url}: timed out before the whole answer came"))

    def abort(self, reason: str = "the request was given up") -> None:
        """Close it now, whatever is under way."""
        self._fail(Broken(f"{self._url}: {reason}"))

    # --- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._future is None:
            self.abort()  # Nobody asked for it, and it must not become the next request's answer.
            return
        try:
            answer = self._reader.feed(data)
        except (BadAnswer, Oversized) as error:
            self._fail(self._translated(error))
        else:
            if answer is not None:
                self._end(answer)
            elif self._memory is not None and self._claim is None and self._reader.received > UNCLAIMED_BYTES:
                self._claim_room(self._memory)

    def eof_received(self) -> None:
        """The peer has closed its side: that is the end of a body without a length."""
        if self._future is not None and self._ended_in_order():
            try:
                self._end(self._reader.end())
            except BadAnswer as error:
                self._fail(self._translated(error))
        self._fail(Broken(f"{self._url}: the connection was cut before the whole answer came"))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail(Broken(f"{self._url}: {cause(error)} before the whole answer came"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_more()

    # ---

    def _claim_room(self, memory: MemoryAccount) -> None:
        self._claim = memory.claim(self._reader.expected_bytes, self._go_on_reading)
        if not self._claim.granted:
            self._waits_since = self._loop.time()
            self._transport.pause_reading()

    def _go_on_reading(self) -> None:
        self.deadline += self._loop.time() - self._waits_since
        self._transport.resume_reading()

    def _ended_in_order(self) -> bool:
        """Over TLS the peer says so itself: anybody could have cut the connection. Both loops call it an end."""
        tls = self._transport.get_extra_info("ssl_object")
        try:
            return tls is None or not tls.read(1)
        except ssl.SSLError:
            return False

    def _write_directly(self, tcp: socket.socket, head: bytes) -> int:
        """Give the socket as many bytes as it takes. Raises `NotSent` if it cannot be written to any more."""
        try:
            return tcp.send(head)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._close()
            raise NotSent(f"{self._url}: {cause(error)}") from error

    def _write(self, data: bytes | memoryview) -> None:
        self._written = True
        self._transport.write(data)

    def _write_more(self) -> None:
        while self._unsent and not self._paused and not self.closed:
            part, self._unsent = self._unsent[:SLICE_BYTES], self._unsent[SLICE_BYTES:]
            self._write(part)

    def _end(self, answer: Answer) -> None:
        future, self._future = self._future, None
        if not self._reader.keep_alive or (self._written and not self._all_written()):
            self._close()
        if future is not None and not future.done():
            future.set_result(answer)

    def _all_written(self) -> bool:
        """An answer may come before the whole request has gone; the rest of it must not go before the next one."""
        return not self._unsent and not self._transport.get_write_buffer_size()

    def _fail(self, error: TransportError) -> None:
        future, self._future = self._future, None
        self._close()
        if future is not None and not future.done():
            future.set_result(error)

    def _close(self) -> None:
        self._unsent = memoryview(b"")
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def _translated(self, error: BadAnswer | Oversized) -> TransportError:
        if isinstance(error, BadAnswer):
            return Broken(f"{self._url}: {error}")
        limit = self._reader.limit
        size = "" if error.size is None else f" of {error.size} bytes"
        message = f"{self._url}: the answer's body{size} is above the limit of {limit} bytes"
        return TooLarge(message, error.status, error.size, limit)
