"""Events that are too large for a batch: each goes to Redis by itself, on a connection of its own.

A script with megabytes in it holds up Redis for everybody on it, and everything that its own router has
to write after it. A plain PUBLISH is read by Redis as it arrives, between others' commands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from queueworker.routing.backoff import exponential
from queueworker.routing.http.large import Pieces
from queueworker.routing.journal.redis_client import connect

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

    from queueworker.routing.counters import Counters
    from queueworker.routing.journal.redis_client import Client

# For one write: at a megabyte a second, one of some fifty megabytes gets through.
PUBLISH_TIMEOUT_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 2.0
# What the kernel takes at once of an event; others have their turn in between.
PART_BYTES = 256 * 1024
# Of events that are sent before the answer to the first of them is waited for; or one, when that is larger.
GROUP_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 256 * 1024 * 1024


class Event(NamedTuple):
    channel: str
    payload: Pieces
    done: Callable[[], None]


class Bulk:
    """Publishes in the order of the calls, until Redis has taken it or it was dropped; then `done` is called."""

    def __init__(self, redis_url: str, counters: Counters) -> None:
        self._url = redis_url
        self._counters = counters
        self._waiting: deque[Event] = deque()
        self.waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._redis: Client | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def publish(self, channel: str, payload: Pieces, done: Callable[[], None]) -> None:
        if self._redis is None:
            self._redis = connect(
                self._url,
                socket_timeout=PUBLISH_TIMEOUT_SECONDS,
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        self._waiting.append(Event(channel, payload, done))
        self.waiting_bytes += payload.size
        if self._task is None:
            self._task = asyncio.create_task(self._publish_all(self._redis.connection_pool), name="bulk events")

    def shed(self) -> None:
        """Drop the oldest above the bound, and count them: Redis is away."""
        while self.waiting_bytes > MAX_WAITING_BYTES and len(self._waiting) > 1:
            self._counters.events_dropped += 1
            self._done()

    async def flush(self) -> None:
        """Return when there is nothing more to publish."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Let go of what is not published: its entries are still in the journal."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._redis is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()

    async def _publish_all(self, pool: ConnectionPool) -> None:
        failures = 0
        try:
            while self._waiting:
                try:
                    await self._publish(pool, self._group())
                    failures = 0
                except (RedisError, OSError):
                    failures += 1
                    await asyncio.sleep(exponential(failures, 0.25, 5.0))
        finally:
            self._task = None

    def _group(self) -> list[Event]:
        """Those that are sent together."""
        group: list[Event] = []
        room = GROUP_BYTES
        for event in self._waiting:
            room -= event.payload.size
            if room < 0 and group:
                break
            group.append(event)
        return group

    async def _publish(self, pool: ConnectionPool, group: list[Event]) -> None:
        """Raises what redis-py raises. Those that Redis has answered for are done then, and no others."""
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            for event in group:
                await _send(connection, event)
            for event in group:
                await connection.read_response()
                self._counters.events_published += 1
                if self._waiting and self._waiting[0] is event:
                    self._done()
        except BaseException:
            await connection.disconnect(nowait=True)  # answers may be on their way
            raise
        finally:
            await pool.release(connection)

    def _done(self) -> None:
        event = self._waiting.popleft()
        self.waiting_bytes -= event.payload.size
        event.done()


async def _send(connection: Any, event: Event) -> None:
    """PUBLISH as Redis reads it, so that nothing has to be copied into one command."""
    channel = event.channel.encode()
    head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n" % (len(channel), channel, event.payload.size)
    if event.payload.size <= PART_BYTES:
        await connection.send_packed_command([head, *event.payload, b"\r\n"])
        return
    await connection.send_packed_command([head])
    for piece in event.payload:
        for first in range(0, len(piece), PART_BYTES):
            await connection.send_packed_command([memoryview(piece)[first : first + PART_BYTES]])
    await connection.send_packed_command([b"\r\n"])
