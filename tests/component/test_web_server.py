"""The HTTP API over real sockets: documentation pages with no internet, a port that is taken, and its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import signal
import socket
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import uvloop

from queueworker.web.app import Mode, create_app
from queueworker.web.server import CannotListen, bind, listen, serve
from tests.support.web_source import FakeSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve(create_app(FakeSource(), Mode.OPERATOR), "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client,
    ):
        yield client


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_documentation_page_has_all_it_needs_from_us(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.status_code == 200
    wanted = re.findall(r"""(?:src|href|spec-url)=["']([^"']+)|url: ["']([^"']+)""", answer.text)
    assets = {urljoin(page, a or b) for a, b in wanted}
    assert len(assets) >= 3
    assert "/openapi.json" in assets
    assert not re.findall(r"https?://|url\(", answer.text)
    for asset in assets:
        assert urlsplit(asset).netloc == ""
        found = await client.get(asset)
        assert found.status_code == 200, asset
        assert len(found.content) > 100, asset


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_documentation_page_may_fetch_nothing_elsewhere(client: httpx.AsyncClient, page: str) -> None:
    """Its scripts could; the browser is told not to let them."""
    policy = (await client.get(page)).headers["content-security-policy"]
    sources = policy.removeprefix("default-src ").split()
    assert set(sources) == {"'self'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}


async def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            async with serve(create_app(FakeSource()), "127.0.0.1", port):
                pass
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: another process uses port {port}; end that process, or choose another "
        "port (PORT for the worker, --port for the operator)"
    )


async def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on no\.such\.host\.invalid:0: "):
        async with serve(create_app(FakeSource()), "no.such.host.invalid", 0):
            pass


@pytest.mark.parametrize("host", ["\udcff", "\u2028", "a..b", "x" * 300, "http://x"])
def test_a_host_that_is_no_name_at_all_is_named(host: str) -> None:
    with pytest.raises(CannotListen, match="cannot be looked up"):
        listen(host, 0)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        pytest.param(
            "::1", marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
        ),
    ],
)
async def test_it_listens_on_the_addresses_of_both_families(address: str) -> None:
    async with serve(create_app(FakeSource()), "::", 0) as port, httpx.AsyncClient(trust_env=False) as client:
        host = f"[{address}]" if ":" in address else address
        assert (await client.get(f"http://{host}:{port}/livez")).status_code == 200


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_it_listens_on_all_addresses_of_ipv4(code: int) -> None:
    def without_ipv6(host: str, port: int) -> socket.socket:
        if ":" in host:
            raise OSError(code, "no IPv6")
        return bind(host, port)

    with listen("::", 0, bind=without_ipv6) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


async def test_the_signals_stay_with_whoever_runs_the_loop() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    async with serve(create_app(FakeSource()), "127.0.0.1", 0):
        assert {n: signal.getsignal(n) for n in before} == before


async def test_it_answers_to_the_end_of_the_block_and_not_after() -> None:
    source = FakeSource()
    async with serve(create_app(source), "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/readyz"
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(url)).status_code == 200
            source.readiness = (False, "draining")
            await asyncio.sleep(0.05)
            assert (await client.get(url)).status_code == 503
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_client_that_stays_connected_does_not_hold_up_the_end() -> None:
    async with asyncio.timeout(5):
        async with serve(create_app(FakeSource()), "127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_connection_without_a_whole_request_is_closed() -> None:
    async with serve(create_app(FakeSource()), "127.0.0.1", 0, idle_seconds=1) as port:
        for begun in (b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()


@pytest.mark.parametrize("piece", [b"a" * 65_536, b"b: c\r\n" * 20_000])
async def test_a_head_above_the_limit_is_refused(piece: bytes) -> None:
    async with serve(create_app(FakeSource()), "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + piece)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"The head of a request may have 65536 bytes.")
        writer.close()


async def statuses(port: int, *requests: bytes) -> list[int]:
    """Of the answers to these, one after the other on one connection. Each answer's body is a JSON object."""
    found = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 ")
        found.append(int(head.split()[1]))
        await reader.readuntil(b"}")
    writer.close()
    return found


async def test_a_body_counts_for_no_head_nor_does_one_request_for_the_next() -> None:
    request = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with serve(create_app(FakeSource()), "127.0.0.1", 0) as port:
        assert await statuses(port, *[request] * 3) == [405] * 3


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
async def test_a_client_that_would_like_another_protocol_is_answered_in_ours_without_a_word(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    wish = f"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()
    async with serve(create_app(FakeSource()), "127.0.0.1", 0) as port:
        assert await statuses(port, *[wish] * 2) == [200] * 2
    assert caplog.messages == []


async def test_what_breaks_inside_the_block_comes_out_of_it() -> None:
    with pytest.raises(RuntimeError, match="the router broke"):
        async with serve(create_app(FakeSource()), "127.0.0.1", 0):
            raise RuntimeError("the router broke")


def test_a_client_that_leaves_before_it_has_its_answers_is_worth_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """uvloop raises a RuntimeError for it, and asyncio's own loop does not."""
    requests = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 50

    async def leave_early() -> None:
        async with serve(create_app(FakeSource(), Mode.OPERATOR), "127.0.0.1", 0) as port:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(requests)
                await reader.read(1)
                writer.transport.abort()

    uvloop.run(leave_early())
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
