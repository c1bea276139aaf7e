"""What routers keep in Redis and publish there, as others see it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from redis.asyncio import Redis

from tests.support.running import BASE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.support.stubs import StubQueue


async def journals(redis_url: str) -> dict[str, set[str]]:
    """The ids in each group's journals."""
    found: dict[str, set[str]] = {}
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        for key in await redis.keys("queueworker:*:journal:*"):
            group = str(key).split("{")[1].split("}")[0]
            found.setdefault(group, set()).update(str(eval_id) for eval_id in await redis.hkeys(key))
    return found


async def journalled(redis_url: str) -> dict[str, Any]:
    """The entries in all journals by id, read as JSON."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        keys = await redis.keys("queueworker:*:journal:*")
        return {str(i): orjson.loads(entry) for key in keys for i, entry in (await redis.hgetall(key)).items()}


async def set_user(redis_url: str, name: str, *rules: str) -> None:
    """Give a user of the ACL these rules."""
    async with Redis.from_url(redis_url) as redis:
        await redis.execute_command("ACL", "SETUSER", name, *rules)  # type: ignore[no-untyped-call]


async def leave(redis_url: str, queue: StubQueue, entries: Mapping[str, bytes]) -> None:
    """Write the journal of an instance that died: entries by id. The queue waits for their reports.

    The instance is named last: a heartbeat forgets one without entries.
    """
    queue.known.update(entries)
    async with Redis.from_url(redis_url) as redis:
        for eval_id, entry in entries.items():
            await redis.hset(f"{BASE}journal:dead", eval_id, entry)
        await redis.sadd(f"{BASE}instances", "dead")


async def expire_leases(redis_url: str) -> None:
    """Every instance that is not heard of by the next heartbeat is dead to the others."""
    async with Redis.from_url(redis_url) as redis:
        for key in await redis.keys("queueworker:*:lease:*"):
            await redis.delete(key)


@asynccontextmanager
async def published(redis_url: str) -> AsyncIterator[list[tuple[str, Any]]]:
    """What is published on the event channels, in order: channel and payload, read as JSON."""
    seen: list[tuple[str, Any]] = []
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        await pubsub.psubscribe("evaluation:*")
        await pubsub.get_message(timeout=5)

        async def listen() -> None:
            async for message in pubsub.listen():
                seen.append((message["channel"].decode(), orjson.loads(message["data"])))

        listening = asyncio.create_task(listen())
        try:
            yield seen
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
