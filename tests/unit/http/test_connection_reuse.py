"""Connections are kept, and an answer is never taken for another request's, nor a request sent twice."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from queueworker.routing.http.transport import Broken, HttpTransport, TransportError
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
    open_files,
    peer,
    post,
    until,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_connection_is_used_for_one_request_after_another(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        for _ in range(5):
            assert await get(transport, server.url) == OK
            assert await post(transport, server.url) == OK
        assert server.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        for _ in range(3):
            answers = await asyncio.gather(*(post(transport, server.url) for _ in range(20)))
            assert answers == [OK] * 20
        assert server.connections == 20


async def test_a_connection_that_was_idle_for_four_seconds_is_not_used_again() -> None:
    clock = Clock()
    transport = HttpTransport(clock)
    async with peer(always_answering) as server:
        for idle, connections in ((3.9, 1), (3.9, 1), (4.0, 2)):
            assert await get(transport, server.url) == OK
            clock.now += idle
            assert await get(transport, server.url) == OK
            assert server.connections == connections
    await transport.close()


async def test_a_connection_that_is_a_minute_old_is_not_used_again() -> None:
    """Its peer may have moved to another address."""
    clock = Clock()
    transport = HttpTransport(clock)
    async with peer(always_answering) as server:
        for _ in range(20):
            assert await get(transport, server.url) == OK
            clock.now += 3
        assert server.connections == 1
        assert await get(transport, server.url) == OK
        assert server.connections == 2
    await transport.close()


async def test_connections_that_are_idle_for_too_long_are_closed_though_nobody_asks() -> None:
    clock = Clock()
    transport = HttpTransport(clock)
    ended = asyncio.Event()

    async def serve(served: Served) -> None:
        await served.request()
        await served.answer(WHOLE)
        assert not await served.reader.read()
        ended.set()

    async with peer(serve) as server:
        assert await get(transport, server.url) == OK
        clock.now += 4
        async with asyncio.timeout(5):
            await ended.wait()
    await transport.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        WHOLE + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
        WHOLE + b"HT",
        WHOLE + b"garbage",
        WHOLE + b"\x00",
    ],
)
async def test_a_connection_is_closed_after_an_answer_that_is_its_last_or_is_followed_by_something(
    transport: HttpTransport, answer: bytes
) -> None:
    async with peer(answering(answer, answer, then="silent")) as server:
        for connections in (1, 2, 3):
            assert await get(transport, server.url) == OK
            assert server.connections == connections


async def test_an_answer_of_http_1_0_may_keep_its_connection(transport: HttpTransport) -> None:
    answer = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}"
    async with peer(answering(answer, answer)) as server:
        assert await get(transport, server.url) == await get(transport, server.url) == OK
        assert server.connections == 1


async def test_an_answer_that_nobody_asked_for_is_not_the_next_requests(transport: HttpTransport) -> None:
    """Even if it is there before the loop's next turn."""

    def serve(connection: socket.socket) -> None:
        while connection.recv(4096):
            connection.sendall(WHOLE)
            time.sleep(0.005)
            connection.sendall(WHOLE.replace(b"{}", b"no"))

    with blocking_peer(serve) as url:
        for _ in range(20):
            assert await get(transport, url) == OK
            time.sleep(0.02)  # the loop is busy


async def test_a_connection_that_ended_while_the_loop_was_busy_is_not_written_to(transport: HttpTransport) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(WHOLE)

    with blocking_peer(serve) as url:
        for _ in range(20):
            assert await post(transport, url) == OK
            time.sleep(0.02)  # the loop is busy


@pytest.mark.parametrize("then", ["reset", "close"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kept_connection_that_dies_with_a_request_is_ambiguous_and_the_request_is_not_repeated(
    transport: HttpTransport, method: str, then: str
) -> None:
    async def serve(served: Served) -> None:
        await served.request()
        await served.answer(WHOLE)
        await served.request()
        if then == "reset":
            served.reset()

    async with peer(serve) as server:
        assert await (get if method == "GET" else post)(transport, server.url) == OK
        with pytest.raises(TransportError) as caught:
            await (get if method == "GET" else post)(transport, server.url)
        assert type(caught.value) is Broken
        await asyncio.sleep(0.1)
        assert [request.split()[0].decode() for request in server.requests] == [method] * 2


async def test_connections_that_peers_close_while_they_are_idle_are_not_used_again_and_not_kept(
    transport: HttpTransport,
) -> None:
    async def ask() -> None:
        async with peer(answering(WHOLE)) as server:
            assert await get(transport, server.url) == OK
            await asyncio.sleep(0.05)
            assert await get(transport, server.url) == OK
            assert len(server.requests) == 2

    await ask()
    before = open_files()
    for _ in range(3):
        await asyncio.gather(*(ask() for _ in range(20)))
    await until(lambda: open_files() <= before)


async def test_a_connection_whose_request_has_not_gone_to_its_end_is_closed_after_the_answer(
    transport: HttpTransport,
) -> None:
    """The rest of that request must not go before the next one."""

    async def refuse(served: Served) -> None:
        await served.reader.readuntil(b"\r\n\r\n")
        await served.answer(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        while await served.reader.read(65536):
            pass

    async with peer(refuse) as server:
        for connections in (1, 2):
            answer = await post(transport, server.url, bytes(16 << 20))
            assert answer.status == 413
            assert server.connections == connections


async def test_the_key_is_the_one_of_each_request(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        for key in ("first", None, "second", "", *(f"key {number}" for number in range(20))):
            await transport.get(server.url, 5, key, limit=LIMIT)
        assert server.connections == 1
    keys = [line for request in server.requests for line in request.decode().split("\r\n") if line.startswith("X-")]
    assert keys == [f"X-API-Key: {key}" for key in ("first", "second", *(f"key {number}" for number in range(20)))]


async def test_a_request_that_failed_leaves_its_connection_to_nobody(transport: HttpTransport) -> None:
    async with peer(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", then="silent")) as server:
        for connections in (1, 2):
            await failure(transport, server.url, 0.05)
            assert server.connections == connections
