"""Requests that are given up, and the end of the client."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from queueworker.routing.http.transport import Answer, Broken, HttpTransport, NotSent
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
    post,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence


async def test_a_request_that_is_given_up_closes_its_connection_and_no_other(transport: HttpTransport) -> None:
    ended = asyncio.Event()

    async def serve(served: Served) -> None:
        await served.request()
        assert not await served.reader.read()
        ended.set()

    async with peer(serve) as silent, peer(always_answering) as server:
        given_up = asyncio.ensure_future(post(transport, silent.url))
        other = asyncio.ensure_future(get(transport, server.url))
        await until(lambda: bool(silent.requests))
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        async with asyncio.timeout(2):
            await ended.wait()
        assert await other == OK
        assert await get(transport, server.url) == OK


async def test_a_request_whose_coroutine_is_closed_is_given_up_too(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        abandoned = cast("Coroutine[None, None, Answer]", transport.get(server.url, 5, limit=100))
        abandoned.send(None)
        abandoned.close()
        assert await get(transport, server.url) == OK
        assert len(server.requests) == 1


async def test_a_request_that_is_given_up_just_when_its_answer_comes_leaves_nothing_behind(
    transport: HttpTransport,
) -> None:
    async with peer(always_answering) as server:
        assert await get(transport, server.url) == OK
        for turns in range(40):
            asking = asyncio.ensure_future(get(transport, server.url))
            for _ in range(turns % 10):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            assert await get(transport, server.url) == OK


async def test_a_client_that_is_closed_sends_nothing_and_may_be_closed_again(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        assert await get(transport, server.url) == OK
        await transport.close()
        for _ in range(20):
            error = await failure(transport, server.url)
            assert type(error) is NotSent
            assert "closed" in str(error)
        await transport.close()
        assert len(server.requests) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_request_that_is_connecting_when_the_client_is_closed_was_not_sent(
    transport: HttpTransport, turns: int
) -> None:
    """Or may have been, when it had just been connected."""
    async with peer(answering(b"", then="silent")) as server:
        asking = asyncio.ensure_future(failure(transport, server.url))
        for _ in range(turns):
            await asyncio.sleep(0)
        await transport.close()
        error = await asyncio.wait_for(asking, 2)
        assert type(error) is NotSent or (type(error) is Broken and turns > 1)


async def test_a_request_that_is_under_way_when_the_client_is_closed_is_ambiguous(transport: HttpTransport) -> None:
    async with peer(answering(b"", then="silent")) as server:
        asking = asyncio.ensure_future(failure(transport, server.url))
        await until(lambda: bool(server.requests))
        await transport.close()
        assert type(await asyncio.wait_for(asking, 2)) is Broken


async def test_a_client_closes_at_once_whatever_hangs() -> None:
    released = threading.Event()

    def hang(_host: str, _port: int) -> Sequence[Any]:
        released.wait(20)
        return []

    async def listen(served: Served) -> None:
        served.peer.requests.append(await served.reader.readexactly(1))
        await served.stay_silent()

    transport = HttpTransport(look_up=hang)
    async with peer(listen) as server, peer(answering(WHOLE, then="silent")) as idle:
        assert await get(transport, idle.url) == OK
        urls = ("http://hangs/x", server.url, server.url.replace("http", "https"))
        asking = [asyncio.ensure_future(failure(transport, url, 60)) for url in urls]
        sending = asyncio.ensure_future(post(transport, server.url, bytes(32 << 20), 60))
        await until(lambda: len(server.requests) == 3)
        begun = time.monotonic()
        await transport.close()
        await asyncio.wait([*asking, sending], timeout=5)
        assert time.monotonic() - begun < 3  # nothing has waited for its own timeout
        assert [type(task.result()) for task in asking] == [NotSent, Broken, NotSent]
        assert type(sending.exception()) is Broken
    released.set()


async def test_a_client_that_is_closed_leaves_no_file_open(transport: HttpTransport) -> None:
    async with peer(always_answering) as server:
        await asyncio.sleep(0)
        before = open_files()
        await asyncio.gather(*(get(transport, server.url) for _ in range(20)))
        await transport.close()
        await until(lambda: open_files() <= before)


async def test_the_clock_is_left_alone_while_nothing_is_under_way() -> None:
    readings = 0

    def clock() -> float:
        nonlocal readings
        readings += 1
        return time.monotonic()

    transport = HttpTransport(clock)
    async with peer(answering(WHOLE)) as server:
        assert await get(transport, server.url) == OK
        before = 0
        async with asyncio.timeout(15):
            while before != readings:  # until the sweep has seen that the peer has closed it
                before = readings
                await asyncio.sleep(1.2)
    await transport.close()
