"""What an HTTP failure means, on real sockets: was the request provably never seen, or may it have been?"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import subprocess
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from devcluster.ports import free_ports
from queueworker.routing.http.transport import (
    Answer,
    Broken,
    HttpTransport,
    NotSent,
    TimedOut,
    TransportError,
    authorities,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

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


@asynccontextmanager
async def keeping_server(
    answers: int, *, then: str, closes_idle: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers so many requests on each connection, and then ends it: when the next is there, or at once."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(answers):
                await read(reader)
                writer.write(WHOLE)
            if not closes_idle:
                await read(reader)
        if then == "reset":
            writer.transport.abort()
        writer.close()

    async def read(reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2 if head.startswith(b"POST") else 0)
        seen.append(head)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/x", seen
    finally:
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
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"\x16\x03",
    ],
)
async def test_a_connection_that_ends_before_the_whole_answer_is_ambiguous(
    transport: HttpTransport, answer: bytes, then: str
) -> None:
    async with server(answer, then=then) as (url, seen):
        assert type(await failure(transport, url)) is Broken
        assert seen, "the request was there in full"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE, Answer(200, b"{}")),
    ],
)
async def test_an_answer_without_a_body_is_a_whole_one(
    transport: HttpTransport, answer: bytes, expected: Answer
) -> None:
    async with server(answer, then="close") as (url, _):
        assert await transport.post(url, b"{}", 5) == expected


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"])
async def test_an_answer_that_does_not_come_in_time_is_ambiguous(transport: HttpTransport, answer: bytes) -> None:
    async with server(answer, then="silent") as (url, seen):
        assert type(await failure(transport, url, 0.3)) is TimedOut
        assert seen


@pytest.mark.parametrize("then", ["reset", "close"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kept_connection_that_dies_with_a_request_is_ambiguous_and_the_request_is_not_repeated(
    transport: HttpTransport, method: str, then: str
) -> None:
    """libcurl would repeat it on a new connection, and the task would run twice."""
    async with keeping_server(answers=1, then=then) as (url, seen):
        ask = transport.get(url, 5) if method == "GET" else transport.post(url, b"{}", 5)
        assert await ask == Answer(200, b"{}")
        with pytest.raises(TransportError) as caught:
            await (transport.get(url, 5) if method == "GET" else transport.post(url, b"{}", 5))
        assert type(caught.value) is Broken
        await asyncio.sleep(0.1)
        assert [request.split()[0].decode() for request in seen] == [method] * 2


async def test_connections_that_peers_close_while_they_are_idle_are_not_used_again_and_not_kept(
    transport: HttpTransport,
) -> None:
    counts = []
    for _ in range(3):
        await asyncio.gather(*(ask_a_closing_server(transport) for _ in range(20)))
        await asyncio.sleep(1.1)  # libcurl closes them when it looks for dead ones, once a second
        await ask_a_closing_server(transport)
        counts.append(open_files())
    assert counts[2] <= counts[0]


async def ask_a_closing_server(transport: HttpTransport) -> None:
    async with keeping_server(answers=1, then="close", closes_idle=True) as (url, seen):
        assert (await transport.get(url, 5)).status == 200
        await asyncio.sleep(0.05)
        assert (await transport.get(url, 5)).status == 200
        assert len(seen) == 2


async def test_a_lookup_that_ends_after_its_request_was_given_up_leaves_no_file_open(transport: HttpTransport) -> None:
    """libcurl's own descriptor for lookups has then something to read while libcurl waits for nothing."""

    async def give_up_a_lookup(turns: int) -> None:
        asking = asyncio.ensure_future(transport.get("http://no-such-host.invalid/x", 5))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0.05)

    await give_up_a_lookup(2)
    before = open_files()
    for turns in range(12):
        await give_up_a_lookup(turns % 4)
    assert open_files() <= before + 1


async def test_an_answer_that_nobody_asked_for_is_not_the_next_requests(transport: HttpTransport) -> None:
    """Even if it is there before the loop's next turn."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            with connection, contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    connection.sendall(WHOLE)
                    time.sleep(0.005)
                    connection.sendall(WHOLE.replace(b"{}", b"no"))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        for _ in range(20):
            assert (await transport.get(url, 5)).body == b"{}"
            time.sleep(0.02)  # the loop is busy
        listening.shutdown(socket.SHUT_RDWR)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_request_that_is_given_up_closes_its_connection_and_no_other(transport: HttpTransport) -> None:
    async with server(b"", then="silent") as (silent, seen), keeping_server(answers=9, then="close") as (url, _):
        given_up = asyncio.ensure_future(transport.post(silent, b"{}", 30))
        other = asyncio.ensure_future(transport.get(url, 30))
        while not seen:
            await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await other).status == 200
        assert (await transport.get(url, 5)).status == 200


async def test_a_request_whose_coroutine_is_closed_is_given_up_too(transport: HttpTransport) -> None:
    async with keeping_server(answers=9, then="close") as (url, seen):
        abandoned = cast("Coroutine[None, None, Answer]", transport.get(url, 5))
        abandoned.send(None)
        abandoned.close()
        assert (await transport.get(url, 5)).status == 200
        assert len(seen) == 1


async def test_requests_end_and_others_go_on_when_a_callback_of_libcurl_has_failed(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for want of memory in the kernel. libcurl goes on with no transfer then, nor ends one in time."""

    def register(_file: int, _events: int) -> None:
        monkeypatch.undo()
        raise OSError(errno.ENOMEM, "no memory")

    async with server(b"", then="silent") as (silent, seen), keeping_server(answers=9, then="close") as (url, _):
        under_way = asyncio.ensure_future(failure(transport, silent))
        while not seen:
            await asyncio.sleep(0.01)
        assert transport._transfers is not None
        monkeypatch.setattr(transport._transfers._selector, "register", register)
        async with asyncio.timeout(3):
            assert type(await failure(transport, url)) is NotSent
            assert type(await under_way) is Broken
        assert (await transport.get(url, 5)).status == 200


async def test_a_client_that_is_closed_sends_nothing_and_may_be_closed_again(transport: HttpTransport) -> None:
    async with keeping_server(answers=9, then="close") as (url, seen):
        assert (await transport.get(url, 5)).status == 200
        looking_up = asyncio.ensure_future(transport.get("http://no-such-host.invalid/x", 5))
        await asyncio.sleep(0)
        await transport.close()
        for _ in range(20):
            assert type(await failure(transport, url)) is NotSent
        await transport.close()
        await asyncio.wait([looking_up])
        assert len(seen) == 1


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


async def test_the_key_is_the_one_of_each_request_and_one_that_no_header_can_carry_is_not_sent(
    transport: HttpTransport,
) -> None:
    async with keeping_server(answers=9, then="close") as (url, seen):
        for key in ("first", None, "second"):
            await transport.get(url, 5, key)
        with pytest.raises(NotSent, match="API key"):
            await transport.get(url, 5, "k\r\nX-Other: 1")
        await transport.get(url, 5, "third")
    keys = [line for request in seen for line in request.decode().split("\r\n") if line.startswith("X-")]
    assert len(seen) == 4
    assert keys == ["X-API-Key: first", "X-API-Key: second", "X-API-Key: third"]


async def test_https_peers_are_held_to_the_authorities_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
    whose = "-days 1 -subj /CN=queue -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *make.split(), *whose.split()]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async with keeping_server(answers=9, then="close", tls=context) as (url, seen):
        stranger = HttpTransport()
        error = await failure(stranger, url)
        await stranger.close()
        assert type(error) is NotSent
        assert "certificate" in str(error)
        assert not seen

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        authorities.cache_clear()
        try:
            trusting = HttpTransport()
            assert await trusting.get(url, 5) == Answer(200, b"{}")
            await trusting.close()
        finally:
            authorities.cache_clear()
