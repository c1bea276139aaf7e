"""How an answer's body ends, and what is done to none of them. On real sockets."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from queueworker.routing.http.transport import Answer, HttpTransport
from tests.support.http_peer import OK, WHOLE, Served, always_answering, answering, get, peer, post

LARGE = bytes(range(32, 96)) * 150_000
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", OK),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", OK),
        (b"HTTP/1.1 500 Oh\r\nconnection: close\r\n\r\noh no", Answer(500, b"oh no")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 200\r\nContent-Length:2\r\n\r\n{}", OK),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"")),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n", Answer(304, b"")),
        (CHUNKED + b"0\r\n\r\n", Answer(200, b"")),
        (CHUNKED + b"1\r\n{\r\n1;last\r\n}\r\n0\r\nTrailer: x\r\n\r\n", OK),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE, OK),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + WHOLE, OK),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", OK),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_ends_where_its_head_says(
    transport: HttpTransport, answer: bytes, expected: Answer, size: int
) -> None:
    """In whatever parts it comes."""

    async def serve(served: Served) -> None:
        await served.request()
        for begin in range(0, len(answer), size):
            await served.answer(answer[begin : begin + size])
            await asyncio.sleep(0)

    async with peer(serve) as server:
        assert await post(transport, server.url) == expected


@pytest.mark.parametrize("answer", [b"HTTP/1.1 204 No Content\r\n\r\n", CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", WHOLE])
async def test_an_answer_with_an_end_needs_no_closed_connection(transport: HttpTransport, answer: bytes) -> None:
    async with peer(answering(answer, answer, then="silent")) as server:
        assert await get(transport, server.url) == await get(transport, server.url)
        assert server.connections == 1


async def test_no_redirect_is_followed(transport: HttpTransport) -> None:
    async with peer(always_answering) as elsewhere:
        answer = b"HTTP/1.1 307 Elsewhere\r\ncontent-length: 0\r\nlocation: %b\r\n\r\n" % elsewhere.url.encode()
        async with peer(answering(answer)) as server:
            assert await post(transport, server.url) == Answer(307, b"")
        assert not elsewhere.connections


async def test_no_proxy_of_the_environment_is_used(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer(always_answering) as proxy, peer(always_answering) as server:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert await get(transport, server.url) == OK
        assert not proxy.connections


async def test_no_cookie_is_sent_back_and_an_encoding_is_declined_and_not_undone(transport: HttpTransport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"
    async with peer(answering(answer, answer)) as server:
        assert await get(transport, server.url) == await get(transport, server.url) == OK
    assert not any(b"cookie" in request.lower() for request in server.requests)
    assert all(b"\r\nAccept-Encoding: identity\r\n" in request for request in server.requests)


async def test_the_credentials_of_a_url_are_sent(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        assert await get(transport, server.url.replace("http://", "http://Aladdin:open%20sesame@")) == OK
    assert b"\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in server.requests[0]
    assert b"Aladdin" not in server.requests[0]


async def echo(served: Served) -> None:
    while True:
        _, _, body = (await served.request()).partition(b"\r\n\r\n")
        if body[:1] == b"c":
            pieces = (body[begin : begin + 50_000] for begin in range(0, len(body), 50_000))
            await served.answer(CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
            await served.answer(b"0\r\n\r\n")
        else:
            await served.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 1_000_000, len(LARGE)])
@pytest.mark.parametrize("how", [b"chunked", b"length "])
async def test_large_bodies_come_and_go_whole_and_their_connections_are_used_again(
    transport: HttpTransport, size: int, how: bytes
) -> None:
    body = (how + LARGE)[:size]
    async with peer(echo) as server:
        for _ in range(3):
            answers = [transport.post(server.url, body, 30, limit=len(LARGE)) for _ in range(3)]
            assert all(answer == (200, body) for answer in await asyncio.gather(*answers))
        assert server.connections == 3


async def test_a_large_body_is_not_copied_while_the_peer_does_not_read_it(transport: HttpTransport) -> None:
    async def serve(served: Served) -> None:
        await served.stay_silent()

    body = bytes(64 << 20)
    async with peer(serve) as server:
        tracemalloc.start()
        try:
            sending = asyncio.ensure_future(post(transport, server.url, body, 30))
            await asyncio.sleep(0.5)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        sending.cancel()
        await asyncio.wait([sending])


async def test_one_of_two_large_bodies_may_be_given_up_at_any_moment(transport: HttpTransport) -> None:
    async with peer(echo) as server:
        for turns in (1, 3, 10, 30, 100):
            given_up, other = (
                asyncio.ensure_future(transport.post(server.url, LARGE, 30, limit=len(LARGE))) for _ in range(2)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            assert (await other).body == LARGE
