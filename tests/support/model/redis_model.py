"""As much of a Redis as the journal needs, on a virtual clock: it runs the journal's own scripts, in real Lua.

fakeredis goes by the wall clock, in which a lease never runs out when the test's hour takes a second.
That the scripts do the same on a real Redis is what the component tests show.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from lupa import lua51
from redis import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

OPERATION_TIMEOUT_SECONDS = 2.0
NEED_MEMORY = {b"SET", b"HSET", b"HSETNX", b"SADD", b"ZADD", b"INCRBY"}
READ_ONLY = {
    *(b"GET", b"EXISTS", b"TYPE", b"SMEMBERS", b"HGET", b"HMGET", b"HKEYS", b"HLEN", b"HSTRLEN", b"HEXISTS"),
    *(b"ZCARD", b"ZRANGE", b"PUBLISH"),
}


def encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


class RedisModel:
    """One server. `mode` is up, refused or hang; `faults` are for the next commands, one each.

    Faults: `lost` (done, but the connection breaks before the answer), `broken` (not done, the
    connection breaks), `late` (done after the client has given up).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._scripts: dict[str, Any] = {}
        self._data: dict[bytes, Any] = {}
        self._expires: dict[bytes, float] = {}
        self.mode = "up"
        self.faults: deque[str] = deque()
        self.full = False
        self._wrote = False
        """The script has written something: memory is looked at before its first write only."""
        self.on_publish: Callable[[str, bytes], None] = lambda channel, payload: None
        self.subscribers: dict[asyncio.Queue[Any], set[bytes]] = {}
        """What each hears of: a channel that it has not subscribed to must not reach it."""
        lua_error = self._lua.eval(b"function(message) return {err = message} end")
        self._redis = self._lua.table_from({
            b"call": self._from_lua,
            b"pcall": self._protected,
            b"error_reply": lua_error,
        })  # fmt: skip

    # --- what a test does to it and looks at

    def empty(self) -> None:
        self._data.clear()
        self._expires.clear()

    def set_mode(self, mode: str) -> None:
        self.mode = mode
        if mode != "up":
            for queue in self.subscribers:
                queue.put_nowait(None)
            self.subscribers = {}

    def journals(self) -> dict[str, list[str]]:
        """The ids in each journal."""
        return {
            key.decode(): [field.decode() for field in value]
            for key, value in self._data.items()
            if b":journal:" in key and value
        }

    def journalled(self) -> set[str]:
        return {eval_id for ids in self.journals().values() for eval_id in ids}

    def publish(self, channel: bytes, payload: bytes) -> int:
        self.on_publish(channel.decode(), payload)
        hear = [queue for queue, channels in self.subscribers.items() if channel in channels]
        for queue in hear:
            queue.put_nowait({"type": "message", "channel": channel, "data": payload})
        return len(hear)

    # --- commands

    def command(self, name: bytes, *args: bytes) -> Any:
        """One by itself; `run` is for those of a script."""
        self._wrote = False
        return self.run(name, *args)

    def run(self, name: bytes, *args: bytes) -> Any:
        if self.full and name in NEED_MEMORY and not self._wrote:
            raise exceptions.ResponseError("OOM command not allowed when used memory > 'maxmemory'.")
        self._wrote = self._wrote or name not in READ_ONLY
        now = self._clock()
        for key in [k for k, at in self._expires.items() if at <= now]:
            self._data.pop(key, None)
            del self._expires[key]
        if name[:1] in b"HSZ" and name != b"SET" and isinstance(self._data.get(args[0]), bytes):
            raise exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        command: Callable[..., Any] = getattr(self, f"_{name.decode().lower()}")
        return command(*args)

    def _get(self, key: bytes) -> Any:
        return self._data.get(key)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        self._data[key] = value
        match options:
            case (b"PX", ms):
                self._expires[key] = self._clock() + int(ms) / 1000
            case (b"EX", seconds):
                self._expires[key] = self._clock() + int(seconds)
            case (b"KEEPTTL",):
                pass
            case ():
                self._expires.pop(key, None)
            case _:
                raise AssertionError(options)
        return b"OK"

    def _exists(self, *keys: bytes) -> int:
        return sum(key in self._data for key in keys)

    def _del(self, *keys: bytes) -> int:
        for key in keys:
            self._expires.pop(key, None)
        return sum(self._data.pop(key, None) is not None for key in keys)

    def _pexpire(self, key: bytes, ms: bytes) -> int:
        if key not in self._data:
            return 0
        self._expires[key] = self._clock() + int(ms) / 1000
        return 1

    def _expire(self, key: bytes, seconds: bytes) -> int:
        return self._pexpire(key, str(int(seconds) * 1000).encode())

    def _type(self, key: bytes) -> Any:
        value = self._data.get(key)
        kind = b"string" if isinstance(value, bytes) else b"hash"
        if isinstance(value, dict) and all(isinstance(held, int) for held in value.values()):
            kind = b"set"
        return self._lua.table_from({b"ok": kind if value else b"none"})

    def _sadd(self, key: bytes, member: bytes) -> int:
        return int(self._data.setdefault(key, {}).setdefault(member, len(self._data[key])) is not None)

    def _srem(self, key: bytes, member: bytes) -> int:
        return int(self._data.get(key, {}).pop(member, None) is not None)

    def _smembers(self, key: bytes) -> list[bytes]:
        return list(self._data.get(key, {}))

    def _hset(self, key: bytes, field: bytes, value: bytes) -> int:
        new = field not in self._data.setdefault(key, {})
        self._data[key][field] = value
        return int(new)

    def _hsetnx(self, key: bytes, field: bytes, value: bytes) -> int:
        return 0 if field in self._data.get(key, {}) else self._hset(key, field, value)

    def _hdel(self, key: bytes, field: bytes) -> int:
        return int(self._data.get(key, {}).pop(field, None) is not None)

    def _hstrlen(self, key: bytes, field: bytes) -> int:
        return len(self._data.get(key, {}).get(field, b""))

    def _hmget(self, key: bytes, *fields: bytes) -> list[Any]:
        return [self._data.get(key, {}).get(field, False) for field in fields]

    def _zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        return self._hset(key, member, score)

    def _zrem(self, key: bytes, member: bytes) -> int:
        return self._hdel(key, member)

    def _zcard(self, key: bytes) -> int:
        return self._hlen(key)

    def _zrange(self, key: bytes, *_: bytes) -> list[bytes]:
        """The newest member and its score, whatever is asked for."""
        members = self._data.get(key, {})
        newest: list[bytes] = sorted(members, key=lambda member: (float(members[member]), member))[-1:]
        return [part for member in newest for part in (member, members[member])]

    def _zpopmin(self, key: bytes) -> list[bytes]:
        members = self._data.get(key, {})
        if not members:
            return []
        oldest: bytes = min(members, key=lambda member: (float(members[member]), member))
        return [oldest, members.pop(oldest)]

    def _incrby(self, key: bytes, by: bytes) -> int:
        if b" " in (before := self._data.get(key, b"0")):
            raise exceptions.ResponseError("ERR value is not an integer or out of range")
        self._data[key] = str(int(before) + int(by)).encode()
        return int(self._data[key])

    def _decrby(self, key: bytes, by: bytes) -> int:
        return self._incrby(key, str(-int(by)).encode())

    def _hlen(self, key: bytes) -> int:
        return len(self._data.get(key, {}))

    def _hkeys(self, key: bytes) -> list[bytes]:
        return list(self._data.get(key, {}))

    def _hget(self, key: bytes, field: bytes) -> Any:
        return self._data.get(key, {}).get(field)

    def _publish(self, channel: bytes, payload: bytes) -> int:
        return self.publish(channel, payload)

    def _info(self, section: bytes) -> bytes:
        return b"# Memory\r\nmaxmemory_policy:noeviction\r\n"

    # --- Lua

    def eval(self, text: str, keys: list[Any], args: list[Any]) -> Any:
        self._wrote = False
        script = self._scripts.get(text)
        if script is None:
            script = self._lua.eval(f"function(KEYS, ARGV, redis)\n{text}\nend".encode())
            self._scripts[text] = script
        table = self._lua.table_from
        answer = script(table(list(map(encoded, keys))), table(list(map(encoded, args))), self._redis)
        return self._to_python(answer)

    def _from_lua(self, name: bytes, *args: Any) -> Any:
        answer = self.run(name.upper(), *map(encoded, args))
        if answer is None:
            return False
        if isinstance(answer, list):
            return self._lua.table_from(answer)
        return self._lua.table_from({b"ok": answer}) if answer == b"OK" else answer

    def _protected(self, name: bytes, *args: Any) -> Any:
        try:
            return self._from_lua(name, *args)
        except exceptions.ResponseError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _to_python(self, answer: Any) -> Any:
        if lua51.lua_type(answer) == "table":
            if answer[b"err"] is not None:
                raise exceptions.ResponseError(answer[b"err"].decode())
            return [self._to_python(answer[i]) for i in range(1, len(answer) + 1)]
        if answer is False:
            return None
        return int(answer) if isinstance(answer, float) else answer


@dataclass
class Link:
    """What one router reaches. A dead router does nothing any more: none of its calls goes out or returns."""

    dead: bool = False
    cut_off: bool = False
    """From every Redis: its commands hang, and are never done."""
    hanging: list[asyncio.Future[None]] = field(default_factory=list)

    async def never(self) -> None:
        self.hanging.append(asyncio.get_running_loop().create_future())
        await self.hanging[-1]


@dataclass
class RedisClient:
    """A client of the model, as far as the journal and the completions use one."""

    server: RedisModel
    link: Link
    rng: Random
    closed: bool = False
    open: list[RedisClient] = field(default_factory=list)
    """All clients that were made and not closed, for the account at the end."""

    def __post_init__(self) -> None:
        self.open.append(self)

    def exclusive_script(self, text: str, _is_answer: object = None) -> ExclusiveScript:
        return ExclusiveScript(self, text)

    async def eval(self, text: str, keys: int, *args: Any) -> Any:
        assert keys == 0
        return await self._send(lambda: self.server.eval(text, [], list(args)))

    async def hset(self, key: str, mapping: dict[str, bytes]) -> int:
        ((name, value),) = mapping.items()
        return int(await self._send(lambda: self.server.command(b"HSET", key.encode(), name.encode(), value)))

    async def expire(self, key: str, seconds: int) -> int:
        return int(await self._send(lambda: self.server.command(b"EXPIRE", key.encode(), str(seconds).encode())))

    async def aclose(self) -> None:
        self.closed = True
        if self in self.open:
            self.open.remove(self)

    def pubsub(self) -> PubSub:
        return PubSub(self)

    async def reach(self, seconds: float) -> None:
        """The way to the server, which may take so long."""
        await asyncio.sleep(self.rng.choice((0, 0.0002, 0.001, 0.02)))
        if self.link.dead:
            await self.link.never()
        if self.link.cut_off or self.server.mode == "hang":
            await asyncio.sleep(seconds)
            raise exceptions.TimeoutError("Timeout reading from the model")
        if self.server.mode == "refused":
            raise exceptions.ConnectionError("Error 111 connecting to the model")

    async def _send(self, command: Callable[[], Any], seconds: float = OPERATION_TIMEOUT_SECONDS) -> Any:
        """One command, with the faults of the server and of the way to it."""
        server = self.server
        await self.reach(seconds)
        fault = server.faults.popleft() if server.faults else ""
        if fault == "broken":
            raise exceptions.ConnectionError("Connection closed by server.")
        if fault == "late":
            asyncio.get_running_loop().call_later(seconds + 1, self._late, command)
            await asyncio.sleep(seconds)
            raise exceptions.TimeoutError("Timeout reading from the model")
        answer = command()
        await asyncio.sleep(self.rng.choice((0, 0.0002, 0.001, 0.02)))
        if self.link.dead:
            await self.link.never()
        if fault == "lost":
            raise exceptions.ConnectionError("Connection closed by server.")
        return answer

    def _late(self, command: Callable[[], Any]) -> None:
        if self.server.mode == "up":
            with contextlib.suppress(exceptions.ResponseError):
                command()


class ExclusiveScript:
    """A script on a connection that is kept until something breaks. That Redis hangs shows only when it is called."""

    def __init__(self, client: RedisClient, text: str) -> None:
        self._client = client
        self._text = text
        self._connected = False

    async def connect(self, seconds: float) -> None:
        if not self._connected or self._client.server.mode == "refused":
            self._connected = False
            await self._client.reach(seconds)
            self._connected = True

    async def disconnect(self) -> None:
        self._connected = False

    async def run(self, keys: list[str], args: list[Any], seconds: float) -> Any:
        assert self._connected, "to be called after `connect`"
        self._connected = False
        client = self._client
        try:
            answer = await client._send(lambda: client.server.eval(self._text, keys, args), seconds)
        except exceptions.ResponseError:
            self._connected = True
            raise
        self._connected = True
        return answer


class PubSub:
    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.server.subscribers.pop(self._queue, None)

    async def subscribe(self, *channels: str) -> None:
        """As Redis: each channel is confirmed, with the number of channels until then."""

        def take() -> None:
            self._client.server.subscribers[self._queue] = {channel.encode() for channel in channels}
            for number, channel in enumerate(channels, 1):
                self._queue.put_nowait({"type": "subscribe", "channel": channel.encode(), "data": number})

        await self._client._send(take)

    async def ping(self) -> None:
        await self._client._send(lambda: self._queue.put_nowait({"type": "pong", "channel": None, "data": b""}))

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(timeout):
                message: dict[str, Any] | None = await self._queue.get()
        except TimeoutError:
            return None
        if message is None:
            raise exceptions.ConnectionError("Connection closed by server.")
        if self._client.link.dead:
            await self._client.link.never()
        return message
