"""Bodies of megabytes come and go whole, and in parts between which others have their turn. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from queueworker.routing.http.large import Pieces
from queueworker.routing.http.transfers import TURN_BYTES
from queueworker.routing.http.transport import HttpTransport, TimedOut, _Handle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = bytes(range(32, 96)) * 300_000
# What libcurl gives, and takes, of a body at once.
RECEIVED_AT_ONCE = 16 * 1024
SENT_AT_ONCE = 64 * 1024


@dataclass
class Echo:
    """Its URL, and how often somebody connected."""

    url: str = ""
    connections: int = 0


@asynccontextmanager
async def echo(*, stops_after: int | None = None) -> AsyncIterator[Echo]:
    """Answers each POST with its body, or the beginning of it and then nothing more."""
    made = Echo()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
                writer.write(body[:stops_after])
                await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    try:
        yield made
    finally:
        listening.close()


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made, failed = HttpTransport(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    yield made
    await made.close()
    await asyncio.sleep(0)
    assert not failed


def in_pieces(body: bytes, *firsts: int) -> Pieces:
    ends = (*firsts[1:], len(body))
    return Pieces(memoryview(body)[a:b] for a, b in zip(firsts, ends, strict=True))


@pytest.mark.parametrize("body", [LARGE, in_pieces(LARGE, 0, 1, 70_000, 70_000, 70_001, 9_000_000)])
async def test_they_come_and_go_whole(transport: HttpTransport, body: bytes | Pieces) -> None:
    async with echo() as server:
        for _ in range(2):
            assert (await transport.post(server.url, body, 30)).body == LARGE


async def test_connections_that_have_had_them_are_used_again(transport: HttpTransport) -> None:
    async with echo() as server:
        for _ in range(3):
            bodies = await asyncio.gather(*(transport.post(server.url, in_pieces(LARGE, 0), 30) for _ in range(3)))
            assert all(body == LARGE for _, body in bodies)
        assert server.connections == 3


async def test_two_of_them_leave_every_turn_of_the_loop_to_others_after_a_part_of_each(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = 0
    received, sent = Counter[int](), Counter[int]()
    receive, reader = _Handle._receive, _Handle._reader

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count_turns)

    def counting_receive(handle: _Handle, part: bytes) -> int | None:
        answer = receive(handle, part)
        received[turn] += len(part) if answer is None else 0
        return answer

    def counting_reader(handle: _Handle, body: Pieces) -> object:
        read = reader(handle, body)

        def counting(most: int) -> bytes | int:
            part = read(most)
            sent[turn] += len(part) if isinstance(part, bytes) else 0
            return part

        return counting

    monkeypatch.setattr(_Handle, "_receive", counting_receive)
    monkeypatch.setattr(_Handle, "_reader", counting_reader)
    loop = asyncio.get_running_loop()
    count_turns()
    async with echo() as server:
        await asyncio.gather(*(transport.post(server.url, in_pieces(LARGE, 0), 30) for _ in range(2)))
    assert received.total() == sent.total() == 2 * len(LARGE)
    assert max(received.values()) <= 2 * (TURN_BYTES + RECEIVED_AT_ONCE)
    assert max(sent.values()) <= 2 * (TURN_BYTES + SENT_AT_ONCE)


@pytest.mark.parametrize("turns", [1, 5, 50, 51, 52, 53])
async def test_one_of_two_may_be_given_up_between_two_parts(transport: HttpTransport, turns: int) -> None:
    async with echo() as server:
        given_up, other = (asyncio.ensure_future(transport.post(server.url, in_pieces(LARGE, 0), 30)) for _ in range(2))
        for _ in range(turns):
            await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await other).body == LARGE


async def test_one_that_does_not_come_to_its_end_in_time_is_ambiguous(transport: HttpTransport) -> None:
    async with echo(stops_after=9_000_000) as server:
        with pytest.raises(TimedOut):
            await transport.post(server.url, in_pieces(LARGE, 0), 1)


async def test_a_client_may_be_closed_between_two_parts(transport: HttpTransport) -> None:
    async with echo() as server:
        under_way = asyncio.ensure_future(transport.post(server.url, in_pieces(LARGE, 0), 30))
        for _ in range(50):
            await asyncio.sleep(0)
        await transport.close()
        with pytest.raises(asyncio.CancelledError):
            await under_way
