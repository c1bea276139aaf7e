"""The one seam to Redis: how a client is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Redis
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Connection
    from redis.commands.core import AsyncScript


class Client(Redis):
    """redis-py's, and scripts that have a connection of their own."""

    def exclusive_script(self, text: str, timeout: float) -> ExclusiveScript:
        """For one caller at a time, who has the answer or an error within so many seconds."""
        return ExclusiveScript(self, text, timeout)


class ExclusiveScript:
    """redis-py looks for a connection before each command, measures it, and bounds each write by a task of its own.

    A script that is called a thousand times a second does without: two thirds of the CPU of a call.
    Raises what redis-py raises.
    """

    def __init__(self, redis: Redis, text: str, timeout: float) -> None:
        self._redis = redis
        self._script: AsyncScript = redis.register_script(text)
        self._timeout = timeout
        self._connection: Connection | None = None

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._call(keys, args)
                except NoScriptError:  # Redis was restarted
                    await self._redis.script_load(self._script.script)
                    return await self._call(keys, args)
        except TimeoutError:
            raise RedisTimeoutError(f"no answer within {self._timeout:g} s") from None

    async def _call(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        connection = self._connection
        if connection is None:
            connection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            self._connection = connection
            connection.socket_timeout = None  # the call has one
        elif connection.is_connected and await connection.can_read():
            await connection.disconnect()  # Redis has closed it, or has said what nobody asked for
        await connection.send_command("EVALSHA", self._script.sha, len(keys), *keys, *args, check_health=False)
        return await connection.read_response()


def connect(url: str, **options: Any) -> Client:
    """A client that packs commands with hiredis: redis-py packs in Python, an argument at a time.

    A connection that was reset just before a write is a ConnectionError, too: uvloop raises a bare RuntimeError then.
    With notices of maintenance, which Redis Enterprise gives, redis-py would use connections that Redis has closed.
    """
    no_notices = MaintNotificationsConfig(enabled=False)
    redis = cast("Client", Client.from_url(url, maint_notifications_config=no_notices, **options))
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
