"""Cuts a router off from all its peers, which is how its death looks to them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError

from queueworker.routing.http.transport import Answer, HttpTransport, NotSent
from queueworker.routing.journal import redis_client
from queueworker.routing.router import Router
from tests.support.running import config, endpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from queueworker.routing.journal.redis_client import Client
    from tests.support.stubs import StubExecutor, StubQueue


class Plug:
    """Hand it to a router as `transport=` and its `connect` as `connect=`. While `pulled`, nothing is sent."""

    def __init__(self) -> None:
        self.pulled = False
        self._transport = HttpTransport()

    async def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Answer:
        self._check(url)
        return await self._transport.get(url, timeout, key, limit=limit)

    async def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Answer:
        self._check(url)
        return await self._transport.post(url, body, timeout, key, limit=limit, headers=headers)

    async def close(self) -> None:
        await self._transport.close()

    def connect(self, url: str, **options: Any) -> Client:
        """A Redis client whose commands do not get through while the plug is pulled."""
        client = redis_client.connect(url, **options)
        base = client.connection_pool.connection_class
        plug = self

        async def send_packed_command(connection: Any, *args: Any, **more: Any) -> None:
            if plug.pulled:
                await connection.disconnect(nowait=True)
                raise RedisConnectionError("the plug is pulled")
            await base.send_packed_command(connection, *args, **more)

        plugged = {"send_packed_command": send_packed_command}
        client.connection_pool.connection_class = type("Plugged", (base,), plugged)
        return client

    def _check(self, url: str) -> None:
        if self.pulled:
            raise NotSent(f"{url}: the plug is pulled")


@asynccontextmanager
async def plugged(
    queue: StubQueue, pool: Sequence[StubExecutor], redis_url: str, **spec: Any
) -> AsyncIterator[tuple[Router, Plug]]:
    """A router on a plug, ended without a drain at the end of the block."""
    plug = Plug()
    configured = config(queue, redis_url, **spec)
    router = Router(configured, endpoints(pool), worker_id="plugged", transport=plug, connect=plug.connect)
    run = asyncio.create_task(router.run())
    try:
        yield router, plug
    finally:
        run.cancel()
        await asyncio.wait([run])
