"""What an HTTP failure means, on real sockets: was the request provably never seen, or may it have been?"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from demo.control_plane.ports import free_ports
from queueworker.routing.transport import Answer, Broken, HttpTransport, NotSent, TimedOut, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def server(answer: bytes, *, then: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Reads a request, answers that, and then closes, resets or says nothing. Gives its URL and what it read."""
    seen: list[bytes] = []
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        seen.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()
        if then == "silent":
            await release.wait()
        if then == "reset":
            writer.transport.abort()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/x", seen
    finally:
        release.set()
        listening.close()


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport()
    yield made
    await made.close()


async def failure(transport: HttpTransport, url: str, timeout: float = 5.0) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.post(url, b'{"a": 1}', timeout)
    assert url in str(caught.value)
    return caught.value


async def test_a_whole_answer_comes_back_as_it_is(transport: HttpTransport) -> None:
    async with server(WHOLE, then="close") as (url, seen):
        assert await transport.post(url, b'{"a": 1}', 5, "k3y") == Answer(200, b"{}")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == b'{"a": 1}'
    assert b"x-api-key: k3y" in head.lower()
    assert b"content-type: application/json" in head.lower()


async def test_a_refused_connection_was_not_sent(transport: HttpTransport) -> None:
    (port,) = free_ports(1)
    error = await failure(transport, f"http://127.0.0.1:{port}/x")
    assert type(error) is NotSent
    assert "refused" in str(error).lower()


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/x", "http://", "no url"])
async def test_a_url_that_leads_nowhere_was_not_sent(transport: HttpTransport, url: str) -> None:
    assert type(await failure(transport, url)) is NotSent


async def test_a_peer_that_speaks_no_tls_was_not_sent_anything(transport: HttpTransport) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        assert type(await failure(transport, f"https://127.0.0.1:{port}/x")) is NotSent


@pytest.mark.parametrize("then", ["reset", "close"])
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", b"\x16\x03"]
)
async def test_a_connection_that_ends_before_the_whole_answer_is_ambiguous(
    transport: HttpTransport, answer: bytes, then: str
) -> None:
    async with server(answer, then=then) as (url, seen):
        assert type(await failure(transport, url)) is Broken
        assert seen, "the request was there in full"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"])
async def test_an_answer_that_does_not_come_in_time_is_ambiguous(transport: HttpTransport, answer: bytes) -> None:
    async with server(answer, then="silent") as (url, seen):
        assert type(await failure(transport, url, 0.3)) is TimedOut
        assert seen
