"""An HTTP server that does byte by byte what a test says, over TCP or TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queueworker.routing.http.transport import Answer, HttpTransport, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

LIMIT = 1 << 20
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
OK = Answer(200, b"{}")


@dataclass
class Peer:
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    """Those that it has read to their end."""


@dataclass
class Served:
    """One of the peer's connections."""

    peer: Peer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Reads the next one. Raises EOFError or OSError when there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        request = head + await self.reader.readexactly(length)
        self.peer.requests.append(request)
        return request

    async def answer(self, answer: bytes) -> None:
        self.writer.write(answer)
        await self.writer.drain()

    def reset(self) -> None:
        self.writer.transport.abort()

    async def stay_silent(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def peer(serve: Callable[[Served], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Serves each connection with `serve`, and closes it after that."""
    made, serving = Peer(), set[asyncio.Task[None]]()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        try:
            with contextlib.suppress(EOFError, OSError):
                await serve(Served(made, reader, writer))
        finally:
            writer.close()

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(run(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    listening = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    try:
        yield made
    finally:
        listening.close()
        for task in tuple(serving):
            task.cancel()
        if serving:
            await asyncio.wait(serving)


@contextmanager
def blocking_peer(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server in a thread, for what has to happen while the loop is busy. Gives its URL."""

    def run() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            with connection, contextlib.suppress(OSError):
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        listening.shutdown(socket.SHUT_RDWR)


def answering(*answers: bytes, then: str = "close") -> Callable[[Served], Awaitable[None]]:
    """Answers one request after another on each connection, and then ends it in the way that `then` names."""

    async def serve(served: Served) -> None:
        for answer in answers:
            await served.request()
            await served.answer(answer)
        if then == "reset":
            served.reset()
        if then == "silent":
            await served.stay_silent()

    return serve


async def always_answering(served: Served) -> None:
    while True:
        await served.request()
        await served.answer(WHOLE)


async def get(transport: HttpTransport, url: str, timeout: float = 5, limit: int = LIMIT) -> Answer:
    return await transport.get(url, timeout, limit=limit)


async def post(transport: HttpTransport, url: str, body: bytes = b'{"a": 1}', timeout: float = 5) -> Answer:
    return await transport.post(url, body, timeout, limit=LIMIT)


async def failure(transport: HttpTransport, url: str, timeout: float = 5.0) -> TransportError:
    """Of a POST. The message begins with the URL."""
    with pytest.raises(TransportError) as caught:
        await post(transport, url, timeout=timeout)
    assert str(caught.value).startswith(url)
    return caught.value


async def until(condition: Callable[[], bool], timeout: float = 5) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
