"""Events that are too large for a batch: each goes to Redis by itself, on a connection of its own.

A script with tens of megabytes in it holds up Redis for everybody on it, and everything that its own
router has to write after it. A plain PUBLISH is read by Redis as it arrives, between others' commands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from queueworker.routing.backoff import exponential

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import ConnectionPool

    from queueworker.routing.large import Pieces
    from queueworker.routing.snapshot import Counters

# For one event: at a megabyte a second, one of some fifty megabytes gets through.
PUBLISH_TIMEOUT_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 2.0
# What the kernel takes at once of an event; others have their turn in between.
PART_BYTES = 256 * 1024
MAX_WAITING_BYTES = 256 * 1024 * 1024


class Bulk:
    """Publishes in the order of the calls, until Redis has taken it; then `done` is called.

    Above a bound the oldest are dropped, and counted, as small ones are.
    """

    def __init__(self, redis_url: str, counters: Counters) -> None:
        self._url = redis_url
        self._counters = counters
        self._waiting: deque[tuple[str, Pieces, Callable[[], None]]] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def publish(self, channel: str, payload: Pieces, done: Callable[[], None]) -> None:
        self._waiting.append((channel, payload, done))
        self._bytes += payload.size
        while self._bytes > MAX_WAITING_BYTES and len(self._waiting) > 1:
            self._counters.events_dropped += 1
            self._done()
        if self._task is None:
            self._task = asyncio.create_task(self._publish_all(), name="bulk events")

    async def flush(self) -> None:
        """Return when there is nothing more to publish."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Let go of what is not published: its entries are still in the journal."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _publish_all(self) -> None:
        redis: Redis = Redis.from_url(
            self._url,
            socket_timeout=PUBLISH_TIMEOUT_SECONDS,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        pool = redis.connection_pool
        failures = 0
        try:
            while self._waiting:
                first = self._waiting[0]
                try:
                    await _publish(pool, first[0].encode(), first[1])
                except (RedisError, OSError):
                    failures += 1
                    await asyncio.sleep(exponential(failures, 0.25, 5.0))
                    continue
                failures = 0
                self._counters.events_published += 1
                if self._waiting and self._waiting[0] is first:
                    self._done()
        finally:
            self._task = None
            with contextlib.suppress(RedisError, OSError):
                await redis.aclose()

    def _done(self) -> None:
        _, payload, done = self._waiting.popleft()
        self._bytes -= payload.size
        done()


async def _publish(pool: ConnectionPool, channel: bytes, payload: Pieces) -> None:
    """PUBLISH as Redis reads it, so that nothing has to be copied into one command."""
    head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n" % (len(channel), channel, payload.size)
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_packed_command([head])
        for piece in payload:
            for first in range(0, len(piece), PART_BYTES):
                await connection.send_packed_command([memoryview(piece)[first : first + PART_BYTES]])
        await connection.send_packed_command([b"\r\n"])
        await connection.read_response()
    finally:
        await pool.release(connection)
