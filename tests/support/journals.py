"""Journals for tests: on a Redis in this process, with what can happen on the way to it, and on a real one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import fakeredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from queueworker.routing.counters import Counters
from queueworker.routing.journal import scripts
from queueworker.routing.journal.journal import Journal
from queueworker.routing.limits import JournalTimes, Limits
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED, Event
from tests.support.memory import account

GROUP = "ns/legacy"
BASE = f"queueworker:{{{GROUP}}}:"
# No heartbeat comes by itself.
STILL = JournalTimes(heartbeat=3600.0, flush=0.5, first_retry=0.01, max_retry=0.02)
QUICK = JournalTimes(heartbeat=0.01, flush=0.5, first_retry=0.01, max_retry=0.02)

Call: TypeAlias = Callable[[], Awaitable[Any]]
# What happens to one call of a script.
Fault: TypeAlias = Callable[[Call], Awaitable[Any]]


async def pass_on(call: Call) -> Any:
    """Nothing happens to it."""
    return await call()


async def broken(_: Call) -> Any:
    """The connection breaks before Redis has the call."""
    raise RedisConnectionError("the connection was cut")


async def lost(call: Call) -> Any:
    """Redis does it, and the connection breaks before the answer."""
    await call()
    raise RedisConnectionError("the answer was lost")


@dataclass
class Late:
    """The connection breaks, and Redis does it later: when it is `arrive`d."""

    call: Call | None = None

    async def __call__(self, call: Call) -> Any:
        self.call = call
        raise RedisConnectionError("no answer in time")

    async def arrive(self) -> Any:
        assert self.call is not None
        return await self.call()


@dataclass
class Held:
    """A call that waits on its way there, or on its way back, until it is released; and that may be lost then."""

    answered: bool = False
    """It waits on the way back."""
    then: Fault | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, call: Call) -> Any:
        if not self.answered:
            self.reached.set()
            await self.released.wait()
            return await (call() if self.then is None else self.then(call))
        try:
            answer = await (call() if self.then is None else self.then(call))
        finally:
            self.reached.set()
            await self.released.wait()
        return answer


class FakeClient(fakeredis.FakeAsyncRedis):
    """`faults` are for the next calls of each script, by its text."""

    def __init__(self, server: fakeredis.FakeServer) -> None:
        super().__init__(server=server)
        self.fake_server = server
        self.faults: dict[str, deque[Fault]] = {}

    def exclusive_script(self, text: str, _is_answer: object = None) -> FakeScript:
        return FakeScript(self, text)


class FakeScript:
    def __init__(self, client: FakeClient, text: str) -> None:
        self._client = client
        self._script = client.register_script(text)
        self._faults = client.faults.setdefault(text, deque())

    async def connect(self, seconds: float) -> None:
        assert seconds > 0
        if not self._client.fake_server.connected:
            raise RedisConnectionError("nobody is there")

    async def disconnect(self) -> None: ...

    async def run(self, keys: list[str], args: list[Any], seconds: float) -> Any:
        assert seconds > 0

        async def call() -> Any:
            return await self._script(keys=keys, args=args)

        return await (self._faults.popleft()(call) if self._faults else call())


@dataclass
class Member:
    """A journal and what it told its router."""

    journal: Journal
    client: FakeClient
    counters: Counters
    recovered: dict[str, bytes] = field(default_factory=dict)
    lost: list[set[str]] = field(default_factory=list)
    """One for each time that it was declared dead."""
    room: int = 0

    @property
    def instance(self) -> str:
        return self.journal.lease.instance.id

    def batches(self, *faults: Fault) -> None:
        """What happens to the next batches, one after the other."""
        self.client.faults[scripts.BATCH].extend(faults)

    def heartbeats(self, *faults: Fault) -> None:
        self.client.faults[scripts.LEASE].extend(faults)

    def readings(self, *faults: Fault) -> None:
        self.client.faults[scripts.READ].extend(faults)

    async def put(self, *eval_ids: str, entry: bytes = b"pulled") -> None:
        """Durable entries."""
        for eval_id in eval_ids:
            self.journal.put(eval_id, entry)
        await self.journal.durable()


@dataclass
class Group:
    """Journals of one group on one Redis. `now` is their monotonic clock."""

    server: fakeredis.FakeServer = field(default_factory=fakeredis.FakeServer)
    members: list[Member] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.redis = fakeredis.FakeAsyncRedis(server=self.server)

    def make(self, worker: str, *, times: JournalTimes = STILL, limits: Limits | None = None) -> Member:
        client, counters = FakeClient(self.server), Counters()
        journal = Journal(
            *("redis://fake", GROUP, worker, counters),
            limits=limits or Limits(),
            memory=account(),
            clock=lambda: self.now,
            on_recovered=lambda found: member.recovered.update(found),
            on_fenced=lambda ids: member.lost.append(ids),
            on_link=lambda: None,
            on_room=lambda: setattr(member, "room", member.room + 1),
            connect=lambda *_, **__: client,  # type: ignore[arg-type]
            times=times,
        )
        member = Member(journal, client, counters)
        self.members.append(member)
        return member

    async def join(self, worker: str, *, times: JournalTimes = STILL, limits: Limits | None = None) -> Member:
        member = self.make(worker, times=times, limits=limits)
        await member.journal.start()
        return member

    async def held(self, member: Member | str) -> dict[bytes, bytes]:
        """What a journal holds in Redis."""
        instance = member if isinstance(member, str) else member.instance
        held: dict[bytes, bytes] = await self.redis.hgetall(f"{BASE}journal:{instance}")  # type: ignore[assignment]
        return held

    async def leave_dead(self, instance: str, entries: dict[bytes, bytes]) -> None:
        """The journal of an instance that died. The instance is named last: a heartbeat forgets one without entries."""
        await self.redis.hset(f"{BASE}journal:{instance}", mapping=entries)  # type: ignore[arg-type]
        await self.redis.sadd(f"{BASE}instances", instance)

    async def lease_runs_out(self, member: Member) -> None:
        await self.redis.delete(f"{BASE}lease:{member.instance}")
        self.now += 60

    async def declared_dead(self, member: Member) -> Member:
        """By another one, which has its entries then."""
        await self.lease_runs_out(member)
        return await self.join("successor")

    async def close(self) -> None:
        self.server.connected = True
        for member in self.members:
            await member.journal.close()


async def eventually(condition: Callable[[], Any]) -> None:
    """Return when the condition, which may be a coroutine function, holds."""
    async with asyncio.timeout(5):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.002)


def completed(payload: bytes) -> Event:
    return Event(CHANNEL_COMPLETED, payload)


# --- on a real Redis


@asynccontextmanager
async def journal(
    redis_url: str,
    limits: Limits | None = None,
    worker: str = "worker-1",
    on_recovered: Callable[[dict[str, bytes]], None] = lambda _: None,
    on_fenced: Callable[[set[str]], None] = lambda _: None,
) -> AsyncIterator[tuple[Journal, Counters]]:
    """A journal that lives for the block."""
    counters = Counters()
    made = Journal(
        *(redis_url, GROUP, worker, counters),
        limits=limits or Limits(),
        memory=account(),
        clock=time.monotonic,
        on_recovered=on_recovered,
        on_fenced=on_fenced,
        on_link=lambda: None,
        on_room=lambda: None,
    )
    await made.start()
    try:
        yield made, counters
    finally:
        await made.close()


@asynccontextmanager
async def subscriber(redis_url: str) -> AsyncIterator[list[bytes]]:
    """What is published of completed tasks, as it comes."""
    seen: list[bytes] = []
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(CHANNEL_COMPLETED)
        await pubsub.get_message(timeout=5)

        async def listen() -> None:
            async for message in pubsub.listen():
                if message["type"] == "message":
                    seen.append(message["data"])

        listening = asyncio.create_task(listen())
        yield seen
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def held(redis_url: str) -> dict[bytes, bytes]:
    """What the journals of `worker-1` hold."""
    found: dict[bytes, bytes] = {}
    async with Redis.from_url(redis_url) as redis:
        async for key in redis.scan_iter(f"{BASE}journal:worker-1:*".replace("{", "[{]")):
            found |= cast("dict[bytes, bytes]", await redis.hgetall(key))
    return found
