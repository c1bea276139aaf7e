"""The one seam to Redis: how a client is made."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.connection import HiredisRespSerializer


def connect(url: str, **options: Any) -> Redis:
    """A client that packs commands with hiredis: redis-py packs in Python, an argument at a time."""
    redis: Redis = Redis.from_url(url, **options)
    base = redis.connection_pool.connection_class
    packer = HiredisRespSerializer()

    def pack_command(_: object, *args: Any) -> list[bytes]:
        return list(packer.pack(*args))

    redis.connection_pool.connection_class = type(f"Packed{base.__name__}", (base,), {"pack_command": pack_command})
    return redis
