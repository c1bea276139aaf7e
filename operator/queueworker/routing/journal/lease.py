"""The lease of one router's journal: it says that the router lives, and whose journal a batch may write to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis.exceptions import RedisError

from queueworker.routing.journal import failed_tasks, scripts
from queueworker.routing.journal.redis_client import names_another_server
from queueworker.routing.journal.redis_errors import is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queueworker.routing.journal.redis_client import Client
    from queueworker.routing.journal.redis_link import RedisLink
    from queueworker.routing.journal.times import JournalTimes
    from queueworker.routing.memory import MemoryAccount

log = logging.getLogger(__name__)

NO_SLOTS: Mapping[str, int] = {}
NEVER = float("-inf")


class Instance:
    """A name under which a router writes its journal. What is before the last colon is the same for one worker.

    `base` is the beginning of the group's keys.
    """

    def __init__(self, base: str, worker_id: str) -> None:
        self.base = base
        self.id = f"{worker_id}:{uuid4().hex[:12]}"
        self.lease_key, self.fenced_key, self.journal_key = (
            f"{base}{kind}:{self.id}" for kind in ("lease", "fenced", "journal")
        )
        self.batch_keys = [self.lease_key, self.fenced_key, self.journal_key, *failed_tasks.keys(base)]
        self.batch_number = 0
        """Of the last batch that was sent under this name."""
        self.heartbeat_number = 0
        """Of the last heartbeat that was sent under this name."""
        self.begun_by = 0
        """The heartbeat that took the lease, as far as we know."""

    def next(self) -> Instance:
        """Another instance of the same worker."""
        return Instance(self.base, self.id.rpartition(":")[0])


class TakeoverRoom:
    """How much a heartbeat may move from dead instances into our journal: one portion, until that one is read.

    None while the router may not pull either: what dead instances left is safe in Redis.
    """

    def __init__(self, max_bytes: int, memory: MemoryAccount) -> None:
        self.unread = asyncio.Event()
        """Our journal has entries that we have not read, or may have."""
        self.wanted = asyncio.Event()
        """There may be more to move: the next heartbeat is due at once."""
        self._max_bytes = max_bytes
        self._memory = memory
        self._uncertain = False
        self._filled = False

    @property
    def bytes(self) -> int:
        waits = self.unread.is_set() or self._uncertain or not self._memory.has_room
        return 0 if waits else self._max_bytes

    def uncertain(self) -> None:
        """A heartbeat that was to move something had no answer: it may still be on its way, until a later one had."""
        self._uncertain = True

    def moved(self, size: int) -> None:
        """A heartbeat was answered, and has moved so many bytes."""
        if size or self._uncertain:
            self._uncertain = False
            self._filled = size >= self._max_bytes
            self.unread.set()

    def lost(self) -> None:
        """Another instance has our journal, and what was moved there with it."""
        self._uncertain = False
        self.unread.clear()

    def read(self) -> None:
        """Everything that was moved is read."""
        self.unread.clear()
        if self._filled:
            self.wanted.set()


class Lease:
    """Renews the lease by heartbeats, and finds out whether another instance has taken our journal over.

    If so, the router goes on as another instance: `on_fenced` gets the ids of the entries that the other has.
    `on_new` is called when Redis had no lease of ours, and so may have no entries either.
    """

    def __init__(
        self,
        redis: Client,
        instance: Instance,
        link: RedisLink,
        room: TakeoverRoom,
        *,
        times: JournalTimes,
        clock: Callable[[], float],
        on_new: Callable[[], None],
        on_fenced: Callable[[set[str]], None],
    ) -> None:
        self.instance = instance
        self.until = NEVER
        """On the monotonic clock. After that another instance may have our tasks: `verify` first."""
        self.rivals = 0
        """Other live workers in the group at the last heartbeat; their entries are left alone."""
        self._rival_slots: Mapping[str, int] = NO_SLOTS
        self._redis = redis
        self._script = redis.exclusive_script(scripts.LEASE)
        self._link = link
        self._room = room
        self._times = times
        self._clock = clock
        self._on_new = on_new
        self._on_fenced = on_fenced
        self._renewing = asyncio.Lock()
        """One renewal at a time: each may change the instance."""
        self._asked_at = NEVER
        """On the monotonic clock: when Redis was last asked, whatever came of it."""

    async def run(self) -> None:
        """Heartbeats, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.rivals if self.rival_slots else self._times.heartbeat):
                    await self._room.wanted.wait()
            self._room.wanted.clear()
            await self.renew(take_over=True)

    @property
    def rival_slots(self) -> Mapping[str, int]:
        """Tasks that rivals ran at the last heartbeat, by the name of the executor; empty while that is not known."""
        return self._rival_slots if self._clock() <= self.until else NO_SLOTS

    async def renew(self, *, take_over: bool = False) -> None:
        """Renew the lease, or find out that it is lost. Raises nothing that Redis could cause.

        `take_over`: also move what dead instances left into our journal.
        """
        async with self._renewing:
            await self._renew(take_over=take_over)

    async def verify(self) -> None:
        """Past `until`, find out whether another instance took our tasks over while we were not running (frozen, say).

        While Redis cannot be asked nothing is known, and routing goes on, as `journal: Preferred` says. That Redis
        cannot be asked must be recent knowledge: a process that was frozen knows nothing, whatever it knew before.
        """
        async with self._renewing:
            now = self._clock()
            if now > self.until and (self._link.journal.ok or now - self._asked_at > self._times.lease):
                await self._renew()

    async def refused(self, instance: Instance) -> None:
        """Redis refused a batch of that instance: take the lease anew, or find out who has our tasks.

        An instance that is not ours any more is no reason: the batch was on its way when it was renewed.
        """
        if instance is self.instance:
            self.until = NEVER
            await self.renew()

    async def leave(self) -> None:
        """Give the lease up, so that a successor may take over at once what is left."""
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(self._times.operation):
                await self._redis.eval(scripts.LEAVE, 0, self.instance.base, self.instance.id)

    # --- renewing

    async def _renew(self, *, take_over: bool = False) -> None:
        asked = self._clock()
        try:
            answer = await self._ask(take_over=take_over)
            if answer[0] == b"FENCED":
                self._start_over(answer[1:])
                answer = await self._ask(take_over=take_over)
            self._take_answer(answer, asked)
            if names_another_server(answer[0].decode()):
                await self._script.disconnect()
        except Exception as error:  # whatever it is: heartbeats must not end
            self._link.failed(error)
        finally:
            self._asked_at = self._clock()

    async def _ask(self, *, take_over: bool) -> list[Any]:
        room = self._room.bytes if take_over else 0
        instance, times = self.instance, self._times
        await self._script.connect(times.operation)
        instance.heartbeat_number += 1
        numbers = (instance.batch_number, instance.heartbeat_number)
        args = (instance.base, instance.id, int(times.lease * 1000), times.fenced, *numbers, room)
        try:
            answer: list[Any] = await self._script.run([], args, times.operation)
        except BaseException:
            if room:
                self._room.uncertain()
            raise
        if answer[0] != b"FENCED":
            self._room.moved(int(answer[3]))
        return answer

    def _start_over(self, taken: list[bytes]) -> None:
        """Another instance has our journal: go on under a new name, without the entries that it has.

        It has what was in our journal in Redis when it declared us dead, and our batches are refused since. So `taken`
        is the truth, also about entries of batches whose answers were lost. An entry that is not in it never reached
        Redis: nobody else knows of that task, and it stays ours.
        """
        log.warning("instance %s was declared dead and its tasks were taken over", self.instance.id)
        self.until = NEVER
        self.instance = self.instance.next()
        self._room.lost()
        self._on_fenced({field.decode(errors="replace") for field in taken})

    def _take_answer(self, answer: list[Any], asked: float) -> None:
        status, set_aside, rivals, _, begun_by, policy, slots = answer
        self.until = asked + self._times.lease
        self.rivals = int(rivals)
        self._rival_slots = {
            name.decode(errors="replace"): int(number) for name, number in zip(slots[::2], slots[1::2], strict=True)
        }
        for instance in set_aside.decode().split():
            log.error(
                "the journal of instance %s was no hash; it is set aside as the Redis key %squarantine:%s",
                instance,
                self.instance.base,
                instance,
            )
        if begun_by != self.instance.begun_by:
            # It is not always the answer at hand that says so first: the answer of the heartbeat itself may be lost.
            self.instance.begun_by = begun_by
            self._on_new()
        if policy:
            self._link.advise(_eviction_advice(policy.decode()))
        if status == b"OK":
            self._link.succeeded()
        else:
            # There is no memory for entries: events and removals need none. Or it is a replica: it takes nothing.
            # Or the user may not run a command: what that means for events is for the batches to say.
            error = RedisError(status.decode())
            if is_refusal(error):
                self._link.lacks_rights(error)
            else:
                self._link.failed(error, publishes=not names_another_server(error))


def _eviction_advice(policy: str) -> str:
    """A Redis that evicts keys may evict leases and journals: live routers then take over from each other."""
    if policy == "noeviction":
        return ""
    return f"may evict the journal (maxmemory-policy {policy}): set maxmemory-policy noeviction"
