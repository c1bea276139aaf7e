"""Names and addresses: whoever does not answer holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from queueworker.routing.http.connection_pool import ConnectionPool, Origin
from queueworker.routing.http.lookups import MAX_LOOKUPS, Lookups
from queueworker.routing.http.transport import HttpTransport, NotSent
from tests.support.http_peer import OK, WHOLE, always_answering, answering, failure, get, open_files, peer, post, until

if TYPE_CHECKING:
    from collections.abc import Sequence

# As `socket.getaddrinfo` answers.
STREAM = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")


def named(url: str, name: str) -> str:
    return url.replace("127.0.0.1", name)


def local(_host: str, port: int) -> Sequence[Any]:
    return [(*STREAM, ("127.0.0.1", port))]


class HangingNames:
    """Those that begin with `slow` are not found until they are released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def __call__(self, host: str, port: int) -> Sequence[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.released.wait(20)
        return local(host, port)


async def test_lookups_that_hang_hold_nobody_else_up() -> None:
    names = HangingNames()
    transport = HttpTransport(look_up=names)
    async with peer(always_answering) as server:
        slow = [asyncio.ensure_future(get(transport, named(server.url, f"slow-{i}"))) for i in range(MAX_LOOKUPS - 1)]
        await until(lambda: len(names.asked) == MAX_LOOKUPS - 1)
        async with asyncio.timeout(4):
            assert await get(transport, named(server.url, "fast")) == OK
            assert await get(transport, server.url) == OK
        names.released.set()
        assert await asyncio.gather(*slow) == [OK] * len(slow)
    await transport.close()


async def test_a_bounded_number_of_names_is_looked_up_at_a_time() -> None:
    names = HangingNames()
    transport = HttpTransport(look_up=names)
    async with peer(always_answering) as server:
        asking = [asyncio.ensure_future(get(transport, named(server.url, f"slow-{i}"))) for i in range(MAX_LOOKUPS + 9)]
        await until(lambda: len(names.asked) == MAX_LOOKUPS)
        await asyncio.sleep(0.05)
        assert len(names.asked) == MAX_LOOKUPS
        names.released.set()
        assert await asyncio.gather(*asking) == [OK] * len(asking)
        assert len(names.asked) == MAX_LOOKUPS + 9
    await transport.close()


async def test_requests_that_need_a_name_at_the_same_time_share_its_lookup_and_later_ones_look_again() -> None:
    names = HangingNames()
    transport = HttpTransport(look_up=names)
    async with peer(answering(WHOLE)) as server:
        url = named(server.url, "queue")
        await asyncio.gather(*(get(transport, url) for _ in range(20)))
        assert len(names.asked) == 1
        for asked in (2, 3):
            await until(lambda: server.connections == len(server.requests))
            await asyncio.sleep(0.05)
            await get(transport, url)
            assert len(names.asked) == asked
    await transport.close()


async def test_a_name_that_moves_is_followed_with_the_next_connection() -> None:
    ports: list[int] = []
    transport = HttpTransport(look_up=lambda _host, _port: local("", ports[-1]))
    async with peer(answering(WHOLE)) as old, peer(answering(WHOLE)) as new:
        for server in (old, new):
            ports.append(int(server.url.split(":")[2].split("/")[0]))
            assert await get(transport, "http://queue/x") == OK
            assert len(server.requests) == 1
            await asyncio.sleep(0.05)
    await transport.close()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_a_name_that_is_not_found_was_not_sent_anything(error: Exception) -> None:
    def fail(_host: str, _port: int) -> Sequence[Any]:
        raise error

    transport = HttpTransport(look_up=fail)
    failed = await failure(transport, "http://queue/x")
    assert type(failed) is NotSent
    assert str(failed) in ("http://queue/x: Name or service not known", "http://queue/x: label too long")
    await transport.close()


def swallowing(stack: ExitStack) -> int:
    """The port of an address that does not answer: its backlog is full."""
    full = stack.enter_context(socket.socket())
    full.bind(("127.0.0.2", 0))
    full.listen(0)
    for _ in range(2):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())
    return int(full.getsockname()[1])


@pytest.mark.parametrize("first", ["swallows", "refuses"])
async def test_the_next_address_is_tried_when_the_first_one_does_not_answer(first: str) -> None:
    with ExitStack() as stack:
        bad = ("127.0.0.2", swallowing(stack)) if first == "swallows" else ("127.0.0.2", 1)

        def both(_host: str, port: int) -> Sequence[Any]:
            return [(*STREAM, bad), (*STREAM, ("127.0.0.1", port))]

        transport = HttpTransport(look_up=both)
        async with peer(always_answering) as server:
            before = open_files()
            begun = time.monotonic()
            assert await post(transport, named(server.url, "queue")) == OK
            assert time.monotonic() - begun < 4  # of the five seconds that connecting may take
            assert len(server.requests) == 1
            await until(lambda: open_files() <= before + 2)
        await transport.close()


async def test_an_ipv6_address_is_connected_to(transport: HttpTransport) -> None:
    try:
        listening = await asyncio.start_server(lambda _reader, writer: writer.close(), "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    port = listening.sockets[0].getsockname()[1]
    error = await failure(transport, f"http://[::1]:{port}/x")
    assert "refused" not in str(error)
    listening.close()


async def test_the_zone_of_an_ipv6_address_is_used_and_not_sent(transport: HttpTransport) -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(WHOLE)
        writer.close()

    try:
        listening = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    port = listening.sockets[0].getsockname()[1]
    assert await get(transport, f"http://[::1%251]:{port}/x") == OK
    assert f"Host: [::1]:{port}\r\n".encode() in heads[0]
    listening.close()


async def test_a_connection_that_nobody_waits_for_any_more_is_closed(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        before = open_files()
        for turns in range(60):
            asking = asyncio.ensure_future(post(transport, server.url))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        assert await get(transport, server.url) == OK
        await transport.close()
        await until(lambda: open_files() <= before)


async def test_connects_that_are_given_up_harm_no_other_connection(transport: HttpTransport) -> None:
    """A descriptor that is closed twice would be another connection's by then."""
    async with peer(always_answering) as server:
        busy = True

        async def others() -> None:
            while busy:
                fresh = HttpTransport()
                assert await post(fresh, server.url) == OK
                await fresh.close()

        working = [asyncio.ensure_future(others()) for _ in range(4)]
        for turn in range(300):
            asking = asyncio.ensure_future(post(transport, f"{server.url}/{turn}"))
            await asyncio.sleep(0.0001 * (turn % 20))
            asking.cancel()
            await asyncio.wait([asking])
        busy = False
        await asyncio.gather(*working)


async def test_a_pool_is_not_empty_before_its_connection_is_in_use() -> None:
    """A sweep that comes in between drops an empty pool, and with it the deadlines of its exchanges."""
    async with peer(always_answering) as served:
        origin = Origin(served.url.rpartition("/")[0])
        pool = ConnectionPool(origin, Lookups(local), time.monotonic, ssl.create_default_context)
        connecting = asyncio.create_task(pool.connect(served.url, 5))
        await asyncio.sleep(0)
        empty = []
        while not connecting.done():
            empty.append(pool.empty)
            await asyncio.sleep(0)
        (await connecting).abort()
    assert empty
    assert not any(empty)
