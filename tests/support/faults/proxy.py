"""A fault proxy in the test's own loop, between two real processes.

`Proxy` forwards bytes of any protocol, and can refuse, black-hole, cut and delay connections. `HttpProxy` also
knows where a request and its answer begin and end, so that a fault (see `http_faults`) can act on one exchange:
before the peer has the request, or after the peer has acted on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST
_MAX_HEAD = 1 << 20
# Loopback addresses of this process alone: no other process can take a port that a proxy has closed for a while.
_NETWORK = f"127.{64 + os.getpid() // 254 % 128}.{1 + os.getpid() % 254}"
_hosts = itertools.cycle(range(1, 255))


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a host that died would: RST, not FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Proxy:
    """Forwards connections to `upstream` (host, port), which may change while it runs."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.host = f"{_NETWORK}.{next(_hosts)}"
        self.port = 0
        self.latency = 0.0
        """Seconds by which everything is delayed, in each direction."""
        self._server: asyncio.Server | None = None
        self._hole: list[socket.socket] = []
        self._swallowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._busy: set[asyncio.StreamWriter] = set()
        """Both ends of connections with a request under way, as far as that is known."""

    @property
    def netloc(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    # --- faults of connections

    async def refuse(self, *, finish: bool = False) -> None:
        """Connections that are open are reset, and new ones refused, until `restore`.

        `finish`: requests that the peer has already are answered first, so that nothing is ambiguous.
        """
        self._close()
        self._leaving = finish
        self.cut()
        while finish and self._busy:
            await asyncio.sleep(0.01)

    async def drop_connects(self, *, finish: bool = False) -> None:
        """As `refuse`, but new connections get no answer to their SYN."""
        await self.refuse(finish=finish)
        # The backlog is full, so the kernel drops further connection attempts.
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(0)
        self._hole = [listener]
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self.host, self.port))
            self._hole.append(filler)

    def swallow(self) -> None:
        """A black hole: connections are accepted and stay open, and nothing passes, until `restore`."""
        self._swallowing.set()

    def cut(self) -> None:
        """Reset the connections that are open now, on both sides."""
        for writer in self._writers - (self._busy if self._leaving else set()):
            reset(writer)

    async def restore(self) -> None:
        """Back to normal. What a black hole swallowed stays lost: its connections are reset."""
        self._leaving = False
        for sock in self._hole:
            sock.close()
        self._hole.clear()
        if self._swallowing.is_set():
            self._swallowing.clear()
            self.cut()
        if self._server is None:
            await self.start()

    # --- life

    async def start(self) -> Self:
        if not self.port:
            (self.port,) = free_ports(1)
        self._server = await asyncio.start_server(
            self._accepted, self.host, self.port, reuse_address=True, limit=_MAX_HEAD, backlog=1024
        )
        return self

    async def stop(self) -> None:
        for sock in self._hole:
            sock.close()
        self._leaving = False
        self._close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- inside

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self._swallowing.is_set():
                await asyncio.Event().wait()
            try:
                upstream_reader, upstream = await asyncio.open_connection(*self.upstream, limit=_MAX_HEAD)
            except OSError:
                reset(
                    writer
                )  # Nobody listens there. A proxy has accepted already, so this is the nearest to a refusal.
                return
            self._writers.add(upstream)
            await self._serve(reader, writer, upstream_reader, upstream)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        there = asyncio.create_task(self._pump(reader, upstream))
        back = asyncio.create_task(self._pump(upstream_reader, writer))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._pass()
            writer.write(data)
            await writer.drain()

    async def _pass(self) -> None:
        """Wait for `latency`; in a black hole for ever, until `restore` resets the connection."""
        if self.latency:
            await asyncio.sleep(self.latency)
        if self._swallowing.is_set():
            await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer, as it was on the wire."""

    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        """Of a request."""
        return self.head.split(b" ", 2)[1].decode()

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.head.split(b" ", 2)[1])

    @property
    def raw(self) -> bytes:
        return self.head + self.body


@dataclass(slots=True)
class Exchange:
    """One request that is not forwarded yet, and the connection back to its client."""

    request: Message
    writer: asyncio.StreamWriter
    earlier: int
    """Requests that the same connection has carried before."""
    send: Callable[[Message], Awaitable[Message]] = field(repr=False)

    async def forward(self) -> Message:
        """Let the peer act on the request; returns its answer, which the client has not got yet."""
        return await self.send(self.request)

    async def reply(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        reset(self.writer)


if TYPE_CHECKING:
    Fault = Callable[[Exchange], Awaitable[None]]


class HttpProxy(Proxy):
    """A proxy that applies a fault to chosen exchanges, one fault at a time. All others pass."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(upstream)
        self.seen: Counter[str] = Counter()
        """Requests by path, spoilt or not."""
        self.spoilt: list[Message] = []
        """The requests that a fault was applied to, in order."""
        self.answers: list[Message] = []
        """The peer's answers to those of them that were forwarded."""
        self.broken: list[str] = []
        """Errors of a fault itself: defects of the test."""
        self._fault: Fault | None = None
        self._path = ""
        self._left: int | None = None
        self._chosen: Callable[[Message], bool] | None = None
        self._first_spoilt = asyncio.Event()

    def spoil(
        self, fault: Fault, path: str = "", times: int | None = None, chosen: Callable[[Message], bool] | None = None
    ) -> None:
        """Apply the fault to requests whose path contains `path`: to the next so many, or to all until `heal`.

        `chosen`: only to those for which it is true; `seen` counts the request already.
        """
        self._fault, self._path, self._left, self._chosen = fault, path, times, chosen
        self._first_spoilt = asyncio.Event()

    def heal(self) -> None:
        self._fault = None

    async def struck(self) -> None:
        """Return when the fault was applied to a request."""
        await self._first_spoilt.wait()

    def _due(self, request: Message) -> Fault | None:
        if self._fault is None or self._path not in request.path or self._left == 0:
            return None
        if self._chosen is not None and not self._chosen(request):
            return None
        if self._left is not None:
            self._left -= 1
        self.spoilt.append(request)
        self._first_spoilt.set()
        return self._fault

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        async def send(request: Message) -> Message:
            upstream.write(request.raw)
            await upstream.drain()
            return await _read(upstream_reader)

        async def send_and_keep(request: Message) -> Message:
            self.answers.append(answer := await send(request))
            return answer

        for earlier in itertools.count():
            # When the peer dies, the connection to the client ends, also an idle one.
            asked = asyncio.ensure_future(_read(reader))
            died = asyncio.ensure_future(_gone(upstream_reader))
            try:
                await asyncio.wait({asked, died}, return_when=asyncio.FIRST_COMPLETED)
                if not asked.done():
                    return
                request = asked.result()
            finally:
                asked.cancel()
                died.cancel()
                await asyncio.gather(asked, died, return_exceptions=True)
            if self._leaving or writer.transport.is_closing():
                return  # It was cut while its request was being read, or before: the peer must not get this request.
            self._busy |= {writer, upstream}
            try:
                await self._exchange(Exchange(request, writer, earlier, send_and_keep), send, reader)
            finally:
                self._busy -= {writer, upstream}
            if self._leaving:
                return

    async def _exchange(
        self, exchange: Exchange, send: Callable[[Message], Awaitable[Message]], reader: asyncio.StreamReader
    ) -> None:
        request = exchange.request
        self.seen[request.path] += 1
        fault = self._due(request)
        await self._pass()
        if fault is None:
            answer = await self._send_watched(send, request, reader)
            await self._pass()
            await exchange.reply(answer.raw)
            return
        try:
            await fault(exchange)
        except (OSError, EOFError, asyncio.CancelledError):
            raise
        except Exception as error:
            self.broken.append(f"{fault}: {error!r}")
            raise

    async def _send_watched(
        self, send: Callable[[Message], Awaitable[Message]], request: Message, reader: asyncio.StreamReader
    ) -> Message:
        """The answer. When the client goes away meanwhile, the connection to the peer ends."""
        sent = asyncio.ensure_future(send(request))
        left = asyncio.ensure_future(_gone(reader))
        try:
            await asyncio.wait({sent, left}, return_when=asyncio.FIRST_COMPLETED)
            if not sent.done():
                raise EOFError
            return sent.result()
        finally:
            sent.cancel()
            left.cancel()
            await asyncio.gather(sent, left, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Message:
    """One message with a Content-Length or without a body: the platform's services send nothing else."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        assert not line.startswith(b"transfer-encoding:"), "the proxy reads no chunks"
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return Message(head, await reader.readexactly(length))


async def _gone(reader: asyncio.StreamReader) -> None:
    """Return when the stream has ended, without reading from it."""
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.05)
