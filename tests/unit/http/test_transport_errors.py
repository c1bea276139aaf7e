"""What a failure means, on real sockets: was the request provably never seen, or may it have been?"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from devcluster.ports import free_ports
from queueworker.routing.http.transport import Answer, Broken, HttpTransport, NotSent, TimedOut
from tests.support.http_peer import (
    LIMIT,
    OK,
    WHOLE,
    Served,
    always_answering,
    answering,
    blocking_peer,
    failure,
    get,
    peer,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_a_whole_answer_comes_back_as_it_is(transport: HttpTransport) -> None:
    async with peer(answering(WHOLE)) as server:
        assert await transport.post(server.url, b'{"a": 1}', 5, "k3y", limit=LIMIT) == Answer(200, b"{}")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"a": 1}'
    assert head.startswith(b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-API-Key: k3y\r\n" in head
    assert b"\r\nContent-Type: application/json\r\n" in head


async def test_the_path_and_the_query_are_sent_as_the_url_has_them(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        base = server.url.removesuffix("/x")
        for path in ("/", "/a%20b/c?d=e&f", "//double", ""):
            assert await get(transport, f"{base}{path}") == OK
    assert [request.split()[1] for request in server.requests] == [b"/", b"/a%20b/c?d=e&f", b"//double", b"/"]


async def test_a_refused_connection_was_not_sent(transport: HttpTransport) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/x"
    error = await failure(transport, url)
    assert type(error) is NotSent
    assert str(error) == f"{url}: Connection refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://no-such-host.invalid/x",
        "http://",
        "no url",
        "ftp://127.0.0.1/x",
        "http:///x/y",
        "http://127.0.0.1:port/x",
        "http://127.0.0.1:70000/x",
        "http://127.0.0.1?query/x",
        "http://[::1/x",
        f"http://{'a' * 64}.invalid/x",
        "http://exécutor/x",
    ],
)
async def test_a_url_that_leads_nowhere_was_not_sent(transport: HttpTransport, url: str) -> None:
    assert type(await failure(transport, url)) is NotSent


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX-Other: 1", "/é", "/a#fragment", "/a\tb"])
async def test_a_path_that_no_request_can_carry_was_not_sent(transport: HttpTransport, path: str) -> None:
    async with peer(always_answering) as server:
        with pytest.raises(NotSent, match="character"):
            await get(transport, server.url + path)
        assert server.connections == 0


@pytest.mark.parametrize("key", ["k\r\nX-Other: 1", "kéy", "k\x00"])
async def test_a_key_that_no_header_can_carry_was_not_sent(transport: HttpTransport, key: str) -> None:
    async with peer(always_answering) as server:
        with pytest.raises(NotSent, match="API key"):
            await transport.get(server.url, 5, key, limit=LIMIT)
        assert server.connections == 0


async def test_a_peer_that_speaks_no_tls_was_not_sent_anything(transport: HttpTransport) -> None:
    async def serve(served: Served) -> None:
        await served.reader.read(1)
        await served.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with peer(serve) as server:
        assert type(await failure(transport, server.url.replace("http:", "https:"))) is NotSent


async def test_a_connection_that_is_not_there_in_time_was_not_sent_anything(transport: HttpTransport) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        error = await failure(transport, f"http://127.0.0.1:{full.getsockname()[1]}/x", 0.3)
        assert type(error) is NotSent
        assert "timed out" in str(error)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close(_connection: socket.socket) -> None:
    pass


def speak(connection: socket.socket) -> None:
    connection.sendall(WHOLE)


@pytest.mark.parametrize("serve", [reset, close, speak])
async def test_a_peer_that_ends_a_new_connection_or_speaks_first_was_not_sent_anything(
    serve: Callable[[socket.socket], None],
) -> None:
    """As a proxy does whose own peer is away. What it says before it was asked is no answer."""

    def busy_clock() -> float:
        time.sleep(0.02)  # the loop is busy
        return time.monotonic()

    with blocking_peer(serve) as url:
        transport = HttpTransport(clock=busy_clock)
        for _ in range(5):
            assert type(await failure(transport, url)) is NotSent
        await transport.close()


@pytest.mark.parametrize("then", ["reset", "close"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        b"\x16\x03",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_connection_that_ends_before_the_whole_answer_is_ambiguous(
    transport: HttpTransport, answer: bytes, then: str
) -> None:
    async with peer(answering(answer, then=then)) as server:
        assert type(await failure(transport, server.url)) is Broken
        assert len(server.requests) == 1, "the request was there in full"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n{"]
)
async def test_an_answer_that_does_not_come_in_time_is_ambiguous(transport: HttpTransport, answer: bytes) -> None:
    async with peer(answering(answer, then="silent")) as server:
        begun = time.monotonic()
        error = await failure(transport, server.url, 0.3)
        assert time.monotonic() - begun >= 0.3
        assert type(error) is TimedOut
        assert "timed out" in str(error)
        assert len(server.requests) == 1


async def test_a_short_timeout_ends_in_time_beside_long_ones(transport: HttpTransport) -> None:
    async with peer(answering(b"", then="silent")) as server:
        long = [asyncio.ensure_future(failure(transport, server.url, 30)) for _ in range(3)]
        await until(lambda: len(server.requests) == 3)
        for timeout in (0.2, 0.05):
            begun = time.monotonic()
            assert type(await failure(transport, server.url, timeout)) is TimedOut
            assert timeout <= time.monotonic() - begun < timeout + 0.8  # the sweep is not only once a second
        assert not any(task.done() for task in long)
        await transport.close()
        assert {type(await task) for task in long} == {Broken}


async def test_the_timeout_is_for_the_whole_exchange_however_often_something_comes(transport: HttpTransport) -> None:
    async def drip(served: Served) -> None:
        await served.request()
        await served.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1000):
            await served.answer(b"x")
            await asyncio.sleep(0.01)

    async with peer(drip) as server:
        assert type(await failure(transport, server.url, 0.3)) is TimedOut


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"\r\n" + WHOLE,
        b"<html>",
    ],
)
async def test_what_is_no_http_answer_is_ambiguous_at_once(transport: HttpTransport, answer: bytes) -> None:
    async with peer(answering(answer, then="silent")) as server:
        error = await failure(transport, server.url)
        assert type(error) is Broken
        assert len(server.requests) == 1
