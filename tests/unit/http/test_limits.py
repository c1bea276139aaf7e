"""No answer is read without a bound. On real sockets."""

from __future__ import annotations

import asyncio

import pytest

from queueworker.routing.http.answer import MAX_ERROR_BODY_BYTES, MAX_HEAD_BYTES, MAX_INTERIM_ANSWERS
from queueworker.routing.http.transport import Answer, Broken, HttpTransport, TooLarge
from tests.support.http_peer import WHOLE, Served, answering, failure, get, peer

LIMIT = 100_000
CHUNKED = b"HTTP/1.1 %d OK\r\ntransfer-encoding: chunked\r\n\r\n"
LENGTH = b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n"
TO_THE_END = b"HTTP/1.1 %d OK\r\n\r\n"


def chunk(size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, bytes(size))


class Endless:
    """Sends a head and then the same bytes again and again, until it is stopped."""

    def __init__(self, head: bytes, again: bytes) -> None:
        self.head = head
        self.again = again
        self.sent = 0
        self.stopped = asyncio.Event()

    async def serve(self, served: Served) -> None:
        await served.request()
        try:
            await served.answer(self.head)
            while True:
                await served.answer(self.again)
                self.sent += len(self.again)
                await asyncio.sleep(0)
        finally:
            self.stopped.set()


@pytest.mark.parametrize("limit", [10, LIMIT])
@pytest.mark.parametrize("how", ["length", "chunked", "to the end"])
async def test_a_body_at_the_limit_is_taken(transport: HttpTransport, limit: int, how: str) -> None:
    answer = {
        "length": LENGTH % (200, limit) + bytes(limit),
        "chunked": CHUNKED % 200 + chunk(limit) + b"0\r\n\r\n",
        "to the end": TO_THE_END % 200 + bytes(limit),
    }[how]
    async with peer(answering(answer)) as server:
        assert await get(transport, server.url, limit=limit) == Answer(200, bytes(limit))


@pytest.mark.parametrize("status", [200, 201, 299])
@pytest.mark.parametrize("limit", [0, 10, LIMIT])
async def test_a_body_whose_length_is_above_the_limit_is_not_read(
    transport: HttpTransport, status: int, limit: int
) -> None:
    async with peer(answering(LENGTH % (status, limit + 1), then="silent")) as server:
        with pytest.raises(TooLarge) as caught:
            await get(transport, server.url, limit=limit)
        error = caught.value
        assert (error.status, error.size, error.limit) == (status, limit + 1, limit)
        assert str(error) == f"{server.url}: the answer's body of {limit + 1} bytes is above the limit of {limit} bytes"


@pytest.mark.parametrize("limit", [10, LIMIT])
async def test_a_small_body_above_the_limit_that_comes_at_once_is_too_large(
    transport: HttpTransport, limit: int
) -> None:
    async with peer(answering(LENGTH % (200, limit + 1) + bytes(limit + 1))) as server:
        with pytest.raises(TooLarge) as caught:
            await get(transport, server.url, limit=limit)
        assert caught.value.size == limit + 1


@pytest.mark.parametrize("head", [CHUNKED, TO_THE_END])
async def test_a_body_without_a_length_is_cut_at_the_limit(transport: HttpTransport, head: bytes) -> None:
    endless = Endless(head % 200, chunk(1000))
    async with peer(endless.serve) as server:
        with pytest.raises(TooLarge) as caught:
            await get(transport, server.url, limit=LIMIT)
        assert (caught.value.status, caught.value.size, caught.value.limit) == (200, None, LIMIT)
        async with asyncio.timeout(5):
            await endless.stopped.wait()


@pytest.mark.parametrize("limit", [10, 10 * LIMIT])
@pytest.mark.parametrize("head", [CHUNKED % 500, TO_THE_END % 404, LENGTH % (302, 1 << 40)])
async def test_the_body_of_an_error_is_cut_and_the_connection_closed(
    transport: HttpTransport, head: bytes, limit: int
) -> None:
    endless = Endless(head, chunk(1000))
    async with peer(endless.serve) as server:
        answer = await get(transport, server.url, limit=limit)
        assert answer.status in (500, 404, 302)
        assert len(answer.body) == min(limit, MAX_ERROR_BODY_BYTES)
        async with asyncio.timeout(5):
            await endless.stopped.wait()


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-header: 1\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nx-header: ", b"x" * 1000),
        (b"HTTP/1.1 200 ", b"x" * 1000),
        (b"", b"\r\n" * 1000),
        (CHUNKED % 200 + b"1;", b"x" * 1000),
        (CHUNKED % 200 + b"0\r\n", b"trailer: 1\r\n" * 100),
        (CHUNKED % 200, b"1;%b\r\nx\r\n" % (b"x" * 1000)),
    ],
)
async def test_a_head_or_a_framing_without_an_end_is_cut(transport: HttpTransport, head: bytes, again: bytes) -> None:
    endless = Endless(head, again)
    async with peer(endless.serve) as server:
        assert type(await failure(transport, server.url)) is Broken
        async with asyncio.timeout(5):
            await endless.stopped.wait()


async def test_a_head_at_the_limit_is_taken_and_one_above_it_is_not(transport: HttpTransport) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: "
    for size, taken in ((MAX_HEAD_BYTES, True), (MAX_HEAD_BYTES + 1, False)):
        whole = head + b"x" * (size - len(head)) + b"\r\n\r\n{}"

        async def serve(served: Served, whole: bytes = whole) -> None:
            await served.request()
            await served.answer(whole[:-1])
            await asyncio.sleep(0.05)
            await served.answer(whole[-1:])

        async with peer(serve) as server:
            if taken:
                assert (await get(transport, server.url)).status == 200
            else:
                assert type(await failure(transport, server.url)) is Broken


async def test_so_many_interim_answers_are_taken_and_no_more(transport: HttpTransport) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with peer(answering(interim * MAX_INTERIM_ANSWERS + WHOLE)) as server:
        assert (await get(transport, server.url)).status == 200
    async with peer(answering(interim * (MAX_INTERIM_ANSWERS + 1) + WHOLE)) as server:
        assert type(await failure(transport, server.url)) is Broken


async def test_a_body_in_the_smallest_chunks_is_read_in_linear_time(transport: HttpTransport) -> None:
    body = b"1\r\nx\r\n" * 500_000
    async with peer(answering(CHUNKED % 200 + body + b"0\r\n\r\n")) as server:
        answer = await get(transport, server.url, timeout=20, limit=500_000)
        assert answer == Answer(200, b"x" * 500_000)
