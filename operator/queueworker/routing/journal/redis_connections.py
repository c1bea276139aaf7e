"""redis-py's connections, mended: faster packing, errors of uvloop, and connecting by happy eyeballs (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from aiohappyeyeballs import start_connection
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError

from queueworker.routing.http.lookups import Lookups, look_up

if TYPE_CHECKING:
    from collections.abc import Mapping

# How long an address may take before the next one is tried beside it.
HAPPY_EYEBALLS_SECONDS = 0.25

_packer = HiredisRespSerializer()


_lookups_of: WeakKeyDictionary[asyncio.AbstractEventLoop, Lookups] = WeakKeyDictionary()


def _lookups() -> Lookups:
    """Those of all connections of this loop: however many they are, a name server that is slow is asked once."""
    return _lookups_of.setdefault(asyncio.get_running_loop(), Lookups(look_up))


class _Mended:
    """redis-py packs commands in Python, an argument at a time; hiredis packs them in C."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return list(_packer.pack(*args))

    async def send_packed_command(self, *args: Any, **more: Any) -> None:
        """A connection that was reset just before a write is a ConnectionError: uvloop raises a bare RuntimeError."""
        try:
            await super().send_packed_command(*args, **more)  # type: ignore[misc]
        except RuntimeError as error:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise RedisConnectionError(str(error)) from error


class _ToAnyAddress(_Mended):
    """Tries all addresses of the host: the first one may swallow what is sent to it (IPv6 without a route)."""

    _connected: socket.socket | None = None

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):  # type: ignore[attr-defined]
            try:
                addresses = await _lookups().find(self.host, self.port)  # type: ignore[attr-defined]
            except ValueError as error:
                raise OSError(str(error)) from error
            self._connected = await start_connection(list(addresses), happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS)
        try:
            await super()._connect()  # type: ignore[misc]
        finally:
            self._connected = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())  # type: ignore[misc]
        host = arguments.pop("host")
        del arguments["port"]
        if "ssl" in arguments:
            arguments["server_hostname"] = host
        return arguments | {"sock": self._connected}


class MendedConnection(_ToAnyAddress, Connection): ...


class MendedSSLConnection(_ToAnyAddress, SSLConnection): ...


class MendedUnixConnection(_Mended, UnixDomainSocketConnection): ...


CONNECTIONS = {"redis": MendedConnection, "rediss": MendedSSLConnection, "unix": MendedUnixConnection}
