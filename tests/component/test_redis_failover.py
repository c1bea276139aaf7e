"""A Redis that fails over behind one address: the old primary lives on as a replica, with our connections to it."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from devcluster.redis_server import RedisServer
from queueworker.routing.journal.redis_client import connect
from tests.support.journals import subscriber
from tests.support.running import running
from tests.support.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.stubs import StubExecutor, StubQueue


class Service:
    """As a Service with a role label: new connections go to the server of now, old ones stay where they are."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self._pipes: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        for pipe in (self._pipe(reader, back), self._pipe(there, writer)):
            task = asyncio.create_task(pipe)
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()


@asynccontextmanager
async def service(port: int) -> AsyncIterator[Service]:
    made = Service(port)
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.close()


@pytest.mark.parametrize("policy", ["Required", "Preferred"])
async def test_after_a_failover_the_journal_and_the_events_go_to_the_new_primary(
    own_redis: RedisServer, queue: StubQueue, executor: StubExecutor, policy: str
) -> None:
    with RedisServer() as new:
        async with (
            service(own_redis.port) as redis,
            subscriber(new.url) as seen,
            running(queue, [executor], redis.url, routing={"journal": policy}) as router,
        ):
            queue.submit("before")
            await queue.reported(1)
            redis.target = new.port
            async with Redis(port=own_redis.port) as old:
                replicate: Any = old.execute_command
                await replicate("REPLICAOF", "127.0.0.1", "1")
            queue.submit("after")
            await queue.reported(2, 30)
            await until(lambda: any(b'"after"' in payload for payload in seen), 30)
            await until(lambda: router.snapshot().journal.ok, 30)
            assert router.snapshot().events_buffered == 0


async def test_a_name_whose_first_address_answers_nobody_is_reached_by_the_next(own_redis: RedisServer) -> None:
    """`localhost` is ::1 first where there is IPv6, and this Redis listens on 127.0.0.1 only."""
    redis = connect(f"redis://localhost:{own_redis.port}")
    try:
        ping: Any = redis.ping()
        assert await ping
    finally:
        await redis.aclose()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_redis_that_may_evict_the_journal_is_told_of(
    queue: StubQueue, executor: StubExecutor, policy: str
) -> None:
    wanted = "" if policy == "noeviction" else f"(maxmemory-policy {policy}): set maxmemory-policy noeviction"
    with RedisServer(0, "--maxmemory", "64mb", "--maxmemory-policy", policy) as redis:
        async with running(queue, [executor], redis.url) as router:
            await until(lambda: router.snapshot().journal.ok)
            await until(lambda: router.snapshot().journal.message.endswith(wanted))
            assert router.snapshot().journal.ok
