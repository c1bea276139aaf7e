"""Peers are verified by their authorities and their names, and a connection that is cut ends no body."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from queueworker.routing.http.transport import Broken, HttpTransport, NotSent, tls_context
from tests.support.certificates import make_certificate
from tests.support.http_peer import (
    OK,
    WHOLE,
    Served,
    always_answering,
    answering,
    failure,
    get,
    open_files,
    peer,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def certificate(folder: Path, *names: str) -> ssl.SSLContext:
    """A server's, in cert.pem there, which is its own authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*make_certificate(folder, *names))
    return context


@pytest.fixture
def server_side(tmp_path: Path) -> ssl.SSLContext:
    return certificate(tmp_path, "IP:127.0.0.1", "DNS:localhost")


@pytest.fixture
def trusted(server_side: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """As the side of a server whose authority is in SSL_CERT_FILE."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    tls_context.cache_clear()
    yield server_side
    tls_context.cache_clear()


async def test_a_peer_of_an_unknown_authority_is_not_sent_anything(
    transport: HttpTransport, server_side: ssl.SSLContext
) -> None:
    async with peer(always_answering, tls=server_side) as server:
        error = await failure(transport, server.url)
        assert type(error) is NotSent
        assert "certificate verify failed" in str(error)
        assert not server.requests


async def test_a_peer_of_an_authority_in_ssl_cert_file_is_asked(
    transport: HttpTransport, trusted: ssl.SSLContext
) -> None:
    async with peer(always_answering, tls=trusted) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost"), server.url):
            assert await get(transport, url) == OK
        assert server.connections == 2


async def test_a_peer_of_an_authority_in_ssl_cert_dir_is_asked(
    transport: HttpTransport, server_side: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    (authorities / "cert.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    subprocess.run(["openssl", "rehash", str(authorities)], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_DIR", str(authorities))
    tls_context.cache_clear()
    try:
        async with peer(always_answering, tls=server_side) as server:
            assert await get(transport, server.url) == OK
    finally:
        tls_context.cache_clear()


async def test_a_peer_with_another_name_is_not_sent_anything(
    transport: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = certificate(tmp_path, "DNS:elsewhere", "IP:127.0.0.2")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    tls_context.cache_clear()
    try:
        async with peer(always_answering, tls=elsewhere) as server:
            for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
                error = await failure(transport, url)
                assert type(error) is NotSent
                assert "certificate verify failed" in str(error)
            assert not server.requests
    finally:
        tls_context.cache_clear()


async def test_large_bodies_come_and_go_over_tls(transport: HttpTransport, trusted: ssl.SSLContext) -> None:
    async def echo(served: Served) -> None:
        while True:
            _, _, body = (await served.request()).partition(b"\r\n\r\n")
            await served.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    body = bytes(range(256)) * 20_000
    async with peer(echo, tls=trusted) as server:
        for _ in range(3):
            assert (await transport.post(server.url, body, 20, limit=len(body))).body == body
        assert server.connections == 1


async def test_a_body_that_the_peer_ends_with_the_connection_is_whole_over_tls_too(
    transport: HttpTransport, trusted: ssl.SSLContext
) -> None:
    async with peer(answering(b"HTTP/1.1 200 OK\r\n\r\n{}"), tls=trusted) as server:
        assert await get(transport, server.url) == OK


def test_the_authorities_are_read_once() -> None:
    assert tls_context() is tls_context()


async def test_a_connection_that_is_cut_ends_no_body_over_tls(
    transport: HttpTransport, trusted: ssl.SSLContext
) -> None:
    """Without TLS' own end anybody on the way could have cut it."""

    def serve() -> None:
        raw, _ = listening.accept()
        with trusted.wrap_socket(raw, server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")
            socket.socket(fileno=connection.detach()).close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        error = await failure(transport, f"https://127.0.0.1:{listening.getsockname()[1]}/x")
        assert type(error) is Broken
        thread.join(5)


async def test_a_kept_connection_over_tls_that_its_peer_has_closed_is_not_written_to(
    transport: HttpTransport, trusted: ssl.SSLContext
) -> None:
    async with peer(answering(WHOLE), tls=trusted) as server:
        for asked in range(1, 4):
            assert await get(transport, server.url) == OK
            assert server.connections == asked
            await asyncio.sleep(0.05)


async def test_a_handshake_that_does_not_end_was_not_sent_anything_and_leaves_no_file_open(
    transport: HttpTransport,
) -> None:
    async def serve(served: Served) -> None:
        await served.stay_silent()

    before = open_files()
    async with peer(serve) as server:
        url = server.url.replace("http:", "https:")
        for _ in range(10):
            error = await failure(transport, url, 0.2)
            assert type(error) is NotSent
            assert "timed out" in str(error)
    await until(lambda: open_files() <= before + 3)  # the loop has its own
