"""The lease of one router's journal: it says that the router lives, and whose journal a batch may write to.

An instance whose lease ran out is dead to the others: one of them takes its entries over, and its batches are refused.
A router that learns that it was declared dead goes on as a new instance, with the entries that nobody has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from redis.exceptions import RedisError

from queueworker.routing.journal import failed_tasks, scripts
from queueworker.routing.journal.redis_client import Client, ForeignAnswer, is_list, names_another_server
from queueworker.routing.journal.redis_link import is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queueworker.routing.journal.redis_link import RedisLink
    from queueworker.routing.journal.takeover_room import TakeoverRoom
    from queueworker.routing.limits import JournalTimes

log = logging.getLogger(__name__)

NO_SLOTS: Mapping[str, int] = {}
NEVER = float("-inf")
MAX_DISOWNED = 16
"""So many predecessors on other Redis servers are remembered."""


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


class Fenced(NamedTuple):
    """The answer of a heartbeat: another instance has taken the journal over, with the entries of these ids."""

    taken: set[str]


class Heartbeat(NamedTuple):
    """The answer of a heartbeat that found the lease, or took one."""

    error: str
    """Redis has no memory for entries, is a replica, refuses its user a command, or has had a later heartbeat. Empty if
    all is well.
    """
    set_aside: list[str]
    """Instances whose journals were no hash."""
    rivals: int
    """Other live workers."""
    moved_bytes: int
    """Of entries of dead instances, into our journal."""
    begun_by: int
    """The heartbeat that found no lease, or no journal, of the instance and began anew."""
    eviction: str
    """If a lease was taken: how Redis evicts keys (its maxmemory-policy)."""
    rival_slots: Mapping[str, int]
    """Tasks that other live workers run, by the name of the executor."""


def read_heartbeat(answer: list[Any]) -> Heartbeat | Fenced:
    """What `scripts.LEASE` answers. Raises `ForeignAnswer`."""
    try:
        if answer[0] == b"FENCED":
            return Fenced({_text(field) for field in answer[1:]})
        status, set_aside, rivals, moved, begun_by, eviction, slots = answer
        return Heartbeat(
            error="" if status == b"OK" else status.decode(),
            set_aside=set_aside.decode().split(),
            rivals=int(rivals),
            moved_bytes=int(moved),
            begun_by=begun_by,
            eviction=eviction.decode(),
            rival_slots={_text(name): int(n) for name, n in zip(slots[::2], slots[1::2], strict=True)},
        )
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise ForeignAnswer from error


def _text(field: bytes) -> str:
    return field.decode(errors="replace")


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
        self.disowned: tuple[str, ...] = ()
        """Instances whose entries are not to be taken over: those of our predecessors on another Redis, which told us
        all that they had not ended. This Redis may hold a copy of their journals.
        """
        self._rival_slots: Mapping[str, int] = NO_SLOTS
        self._redis = redis
        self._script = redis.exclusive_script(scripts.LEASE, is_list)
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
    def held(self) -> bool:
        """Whether Redis has answered a heartbeat lately."""
        return self._clock() <= self.until

    @property
    def rival_slots(self) -> Mapping[str, int]:
        """Tasks that rivals ran at the last heartbeat, by the name of the executor; empty while that is not known."""
        return self._rival_slots if self.held else NO_SLOTS

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
        if self._may_be_fenced():  # looked at first: a heartbeat that hangs holds the lock
            async with self._renewing:
                if self._may_be_fenced():
                    await self._renew()

    def _may_be_fenced(self) -> bool:
        now = self._clock()
        return now > self.until and (self._link.journal.ok or now - self._asked_at > self._times.lease)

    async def refused(self, instance: Instance) -> None:
        """Redis refused a batch of that instance: take the lease anew, or find out who has our tasks.

        An instance that is not ours any more is no reason: the batch was on its way when it was renewed.
        """
        if instance is self.instance:
            self.until = NEVER
            await self.renew()

    def disowned_next(self, *, moving: bool) -> tuple[str, ...]:
        """What our successor disowns: us as well, if it is on another Redis and has read all that it took over."""
        known = moving and self._room.empty
        return (*self.disowned, self.instance.id)[-MAX_DISOWNED:] if known else self.disowned

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
            if isinstance(answer, Fenced):
                self._start_over(answer.taken)
                answer = await self._ask(take_over=take_over)
            if isinstance(answer, Heartbeat):
                self._take_answer(answer, asked)
                if names_another_server(answer.error):
                    await self._script.disconnect()
        except Exception as error:  # whatever it is: heartbeats must not end
            self._link.failed(error)
        finally:
            self._asked_at = self._clock()

    async def _ask(self, *, take_over: bool) -> Heartbeat | Fenced:
        room = self._room.bytes if take_over else 0
        instance, times = self.instance, self._times
        await self._script.connect(times.operation)
        instance.heartbeat_number += 1
        numbers = (instance.batch_number, instance.heartbeat_number)
        look_at_rights = int(not self._link.journal.ok)
        known = (instance.base, instance.id, int(times.lease * 1000), times.fenced, *numbers, room, look_at_rights)
        args = (*known, *self.disowned)
        try:
            answer = read_heartbeat(await self._script.run([], args, times.operation))
        except BaseException:
            if room:
                self._room.unanswered()
            raise
        if isinstance(answer, Heartbeat):
            self._room.answered(answer.moved_bytes)
        return answer

    def _start_over(self, taken: set[str]) -> None:
        """Another instance has our journal: go on under a new name, without the entries that it has.

        It has what was in our journal in Redis when it declared us dead, and our batches are refused since. So `taken`
        is the truth, also about entries of batches whose answers were lost. An entry that is not in it never reached
        Redis: nobody else knows of that task, and it stays ours.
        """
        log.warning("instance %s was declared dead and its tasks were taken over", self.instance.id)
        self.until = NEVER
        self.instance = self.instance.next()
        self._room.lost()
        self._on_fenced(taken)

    def _take_answer(self, answer: Heartbeat, asked: float) -> None:
        self.until = asked + self._times.lease
        self.rivals, self._rival_slots = answer.rivals, answer.rival_slots
        for instance in answer.set_aside:
            key = f"{self.instance.base}quarantine:{instance}"
            log.error("the journal of instance %s was no hash; it is set aside as the Redis key %s", instance, key)
        if answer.begun_by != self.instance.begun_by:
            # The answer of the heartbeat that took the lease may be lost: then a later one tells its number.
            self.instance.begun_by = answer.begun_by
            self._on_new()
        if answer.eviction:
            self._link.advise(_eviction_advice(answer.eviction))
        if answer.error:
            # There is no memory for entries: events and removals need none. Or it is a replica: it takes nothing.
            # Or the user may not run a command: what that means for events is for the batches to say.
            error = RedisError(answer.error)
            if is_refusal(error):
                self._link.lacks_rights(error)
            else:
                self._link.failed(error, publishes=not names_another_server(error))
        else:
            self._link.succeeded()


def _eviction_advice(policy: str) -> str:
    """A Redis that evicts keys may evict leases and journals: live routers then take over from each other."""
    if policy == "noeviction":
        return ""
    return f"may evict the journal (maxmemory-policy {policy}): set maxmemory-policy noeviction"
