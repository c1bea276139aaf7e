"""A peer that does everything wrong, at random: no request arrives twice, and `NotSent` is never a lie."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from queueworker.routing.http.transport import Answer, Broken, HttpTransport, NotSent, TimedOut
from tests.support.http_peer import LIMIT, Served, peer

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 24
REQUESTS_OF_A_LANE = 30
LARGE_BYTES = 300_000


def answer(body: bytes, head: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class Hostile:
    """Every answer that it gives in full is the request's own path; whatever else it says must reach nobody."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.received: list[bytearray] = []
        """What came on each connection."""
        self.misdeeds: tuple[Callable[[Served, bytes], list[bytes] | None], ...] = (
            lambda _, path: [answer(path), answer(b"stranger")],
            lambda _, path: [answer(path)[:-1]],
            lambda _, path: [answer(path, b"HTTP/1.1 200 OK\r\nconnection: close")],
            lambda _, path: [answer(path, b"HTTP/1.0 200 OK")],
            lambda _, path: [answer(path), b"garbage"],
            lambda *_: [b"\x00garbage\r\n\r\n"],
            lambda *_: [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"],
            lambda *_: [],
        )

    async def serve(self, served: Served) -> None:
        received = bytearray()
        self.received.append(received)
        if self.rng.random() < 0.05:
            return served.reset() if self.rng.random() < 0.5 else None
        if self.rng.random() < 0.03:
            received += await served.reader.read(self.rng.randrange(1, 40))
            return served.reset()
        while True:
            head = await self.read(received, served.reader.readuntil(b"\r\n\r\n"))
            if b"content-length" in head.lower() and self.rng.random() < 0.95:  # else it answers before it has read
                length = int(re.findall(rb"content-length: (\d+)", head.lower())[0])
                await self.read(received, served.reader.readexactly(length))
            if not await self.answers(served, head.split()[1]):
                return None

    async def read(self, received: bytearray, reading: asyncio.Future[bytes] | object) -> bytes:
        try:
            part = await reading  # type: ignore[misc]
        except asyncio.IncompleteReadError as error:
            received += error.partial
            raise
        received += part
        return bytes(part)

    async def answers(self, served: Served, path: bytes) -> bool:
        """Whether the connection goes on."""
        kind = self.rng.random()
        if kind < 0.7:
            parts = answer(path)
            cut = self.rng.randrange(len(parts)) if self.rng.random() < 0.3 else 0
            for part in (parts[:cut], parts[cut:]):
                await served.answer(part)
                await asyncio.sleep(self.rng.choice((0, 0, 0, 0.001)))
            return True
        if kind < 0.8:  # closes when the next one may just be coming
            await served.answer(answer(path))
            await asyncio.sleep(self.rng.choice((0, 0, 0.0005, 0.001, 0.002)))
            if self.rng.random() < 0.5:
                served.reset()
            return False
        if kind < 0.82:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await served.stay_silent()
            return False
        await served.answer(b"".join(self.rng.choice(self.misdeeds)(served, path) or []))
        if self.rng.random() < 0.5:
            served.reset()
        return False


@pytest.mark.parametrize("seed", range(4))
async def test_no_request_arrives_twice_and_what_was_not_sent_never_arrived(seed: int) -> None:
    hostile, rng = Hostile(seed), random.Random(seed + 1000)
    outcomes: dict[str, Answer | Exception] = {}
    transport = HttpTransport()

    async def lane(number: int, base: str) -> None:
        for turn in range(REQUESTS_OF_A_LANE):
            path = f"/{number}-{turn}."
            body = bytes(LARGE_BYTES) if rng.random() < 0.05 else b"{}"
            asking = (
                transport.get(base + path, 0.3, limit=LIMIT)
                if rng.random() < 0.5
                else transport.post(base + path, body, 0.3, limit=LIMIT)
            )
            try:
                outcomes[path] = await asking
            except (NotSent, Broken) as error:
                outcomes[path] = error
            await asyncio.sleep(rng.choice((0, 0, 0.0005, 0.001, 0.002)))

    async with peer(hostile.serve) as server:
        await asyncio.gather(*(lane(number, server.url.removesuffix("/x")) for number in range(LANES)))
        await transport.close()
        await asyncio.sleep(0.1)

    arrived = Counter(
        path.decode() for received in hostile.received for path in re.findall(rb"(?:GET|POST) (/\d+-\d+\.) ", received)
    )
    assert len(outcomes) == LANES * REQUESTS_OF_A_LANE
    assert max(arrived.values()) == 1
    for path, outcome in outcomes.items():
        if isinstance(outcome, Answer):
            assert (outcome.body.decode(), arrived[path]) == (path, 1)
        elif isinstance(outcome, NotSent):
            assert not arrived[path]
    kinds = Counter(type(outcome) for outcome in outcomes.values())
    assert all(kinds[kind] for kind in (Answer, Broken, TimedOut)), kinds
