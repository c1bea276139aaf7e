"""Large answers to POST requests are received when the process has room for them. On real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queueworker.routing.http.transport import Answer, HttpTransport, TimedOut
from queueworker.routing.memory_budget import RESULT_COPIES
from tests.support.http_peer import Served, peer
from tests.support.memory import account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from queueworker.routing.memory_budget import MemoryAccount

import pytest

SIZE = 2_000_000
LIMIT = 4_000_000


@pytest.fixture
def memory() -> MemoryAccount:
    return account(3 * RESULT_COPIES * SIZE)


@pytest.fixture
async def transport(memory: MemoryAccount) -> AsyncIterator[HttpTransport]:
    made = HttpTransport(memory=memory)
    yield made
    await made.close()


async def serve(served: Served) -> None:
    """A head first, and then the body, as many servers do."""
    while True:
        await served.request()
        await served.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
        await served.answer(bytes(SIZE))


async def serve_in_chunks(served: Served) -> None:
    await served.request()
    await served.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await served.answer(b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, bytes(SIZE)))


def post(transport: HttpTransport, url: str, timeout: float = 10) -> asyncio.Task[Answer]:
    return asyncio.ensure_future(transport.post(f"{url}/execute", b"{}", timeout, limit=LIMIT))


@pytest.mark.parametrize("serves", [serve, serve_in_chunks])
async def test_what_does_not_fit_waits_and_is_whole_in_the_end(
    transport: HttpTransport, memory: MemoryAccount, serves: object
) -> None:
    async with peer(serves) as server:  # type: ignore[arg-type]
        memory.take_result(3 * SIZE)
        waiting = post(transport, server.url)
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        assert memory.held == 3 * RESULT_COPIES * SIZE, "nothing of it is held"
        memory.give_result(3 * SIZE)
        assert await waiting == Answer(200, bytes(SIZE))
    assert memory.held == 0


async def test_many_large_answers_are_received_a_few_at_a_time(transport: HttpTransport, memory: MemoryAccount) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, memory.held)
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(watch())
    async with peer(serve) as server:
        answers = await asyncio.gather(*(post(transport, server.url) for _ in range(20)))
    watching.cancel()
    assert answers == [Answer(200, bytes(SIZE))] * 20
    assert 0 < most <= memory.budget.max_bytes
    assert memory.held == 0


async def test_the_wait_for_room_does_not_count_as_the_peers_time(
    transport: HttpTransport, memory: MemoryAccount
) -> None:
    async with peer(serve) as server:
        memory.take_result(3 * SIZE)
        waiting = post(transport, server.url, timeout=1)
        await asyncio.wait([waiting], timeout=2.5)
        memory.give_result(3 * SIZE)
        assert await waiting == Answer(200, bytes(SIZE))


async def test_a_peer_that_falls_silent_in_the_middle_times_out_and_its_room_is_free(
    transport: HttpTransport, memory: MemoryAccount
) -> None:
    async def stop_halfway(served: Served) -> None:
        await served.request()
        await served.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE + bytes(SIZE // 2))
        await served.stay_silent()

    async with peer(stop_halfway) as server:
        waiting = post(transport, server.url, timeout=0.5)
        with pytest.raises(TimedOut):
            await waiting
    assert memory.held == 0


async def test_one_that_is_given_up_while_it_waits_leaves_nothing(
    transport: HttpTransport, memory: MemoryAccount
) -> None:
    async with peer(serve) as server:
        memory.take_result(3 * SIZE)
        waiting = post(transport, server.url)
        await asyncio.wait([waiting], timeout=0.2)
        waiting.cancel()
        await asyncio.wait([waiting])
        memory.give_result(3 * SIZE)
        assert await post(transport, server.url) == Answer(200, bytes(SIZE))
    assert memory.held == 0


async def test_small_answers_never_wait(transport: HttpTransport, memory: MemoryAccount) -> None:
    async def serve_small(served: Served) -> None:
        while True:
            await served.request()
            await served.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            await served.answer(bytes(1000))

    async with peer(serve_small) as server:
        memory.take_result(30 * SIZE)
        assert await post(transport, server.url) == Answer(200, bytes(1000))
