"""The one seam to Redis: how a client is made."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError


def connect(url: str, **options: Any) -> Redis:
    """A client that packs commands with hiredis: redis-py packs in Python, an argument at a time.

    A connection that was reset just before a write is a ConnectionError, too: uvloop raises a bare RuntimeError then.
    """
    redis: Redis = Redis.from_url(url, **options)
    base = redis.connection_pool.connection_class
    packer = HiredisRespSerializer()

    def pack_command(_: object, *args: Any) -> list[bytes]:
        return list(packer.pack(*args))

    async def send_packed_command(connection: Any, *args: Any, **more: Any) -> None:
        try:
            await base.send_packed_command(connection, *args, **more)
        except RuntimeError as error:
            await connection.disconnect(nowait=True)
            raise RedisConnectionError(str(error)) from error

    mended = {"pack_command": pack_command, "send_packed_command": send_packed_command}
    redis.connection_pool.connection_class = type(f"Mended{base.__name__}", (base,), mended)
    return redis
