"""The journal of the tasks in flight, kept in Redis so that a router's death loses nothing; and the stream of events.

Keys, all of one group (`{group}` is a hash tag: one slot in a cluster):

    queueworker:{group}:instances        set of the instances that may have left something
    queueworker:{group}:lease:<id>       the instance lives while this exists; its value numbers its batches
    queueworker:{group}:heartbeat:<id>   numbers of the instance's last heartbeat and of that which took the lease
    queueworker:{group}:journal:<id>     hash: eval_id → entry
    queueworker:{group}:fenced:<id>      set: the instance was taken over, with the entries of these ids (and an empty
                                         one); whatever it still writes is refused
    queueworker:{group}:quarantine       hash: entries that could not be read, kept for a person
    queueworker:{group}:quarantine:<id>  a journal that was no hash
    queueworker:{group}:failed…          the record of failed tasks, see `failed_tasks`

Everything that one instance writes goes through one stream of batches, in order, each a script that first checks the
lease: events, removals of entries, new entries, records of failed tasks. A batch that is late (its connection hung, and
another has been written since) is refused by its number.

An instance whose lease ran out is dead to the others: one of them takes its entries over, and its batches are refused.
A router that learns that it was declared dead goes on as a new instance, with the entries that nobody has.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from queueworker.routing.aio import cancelled
from queueworker.routing.journal.batch_writer import BatchWriter
from queueworker.routing.journal.lease import Instance, Lease, TakeoverRoom
from queueworker.routing.journal.redis_client import connect
from queueworker.routing.journal.redis_link import RedisLink
from queueworker.routing.journal.takeover import Takeover
from queueworker.routing.journal.times import TIMES
from queueworker.routing.journal.write_buffer import Unwritten, WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queueworker.routing.counters import Counters
    from queueworker.routing.journal.failed_tasks import FailedTask
    from queueworker.routing.journal.redis_client import Client
    from queueworker.routing.journal.times import JournalTimes
    from queueworker.routing.limits import Limits
    from queueworker.routing.memory import MemoryAccount
    from queueworker.routing.snapshot import Link
    from queueworker.routing.wire.outcome import Event


class Journal:
    """The journal and the event stream of one router, on one Redis, for the router's whole life.

    While Redis is away nothing blocks: entries of what is in flight are kept and written when it is back, events are
    buffered (bounded), and `writable` is False.

    `on_recovered` gets the entries of a dead instance, which are in our journal by then. `on_fenced` gets the ids of
    the tasks that another router has taken over from us: nothing more may be done for them here. `on_link` is called
    when a link has changed, `on_room` when `has_room` is true again.
    """

    def __init__(
        self,
        redis_url: str,
        group: str,
        worker_id: str,
        counters: Counters,
        *,
        limits: Limits,
        memory: MemoryAccount,
        clock: Callable[[], float],
        on_recovered: Callable[[dict[str, bytes]], None],
        on_fenced: Callable[[set[str]], None],
        on_link: Callable[[], None],
        on_room: Callable[[], None],
        connect: Callable[..., Client] = connect,
        times: JournalTimes = TIMES,
    ) -> None:
        self._counters = counters
        self._memory = memory
        self._times = times
        self._on_fenced = on_fenced
        self._on_link = on_link
        self._redis = connect(
            redis_url,
            socket_timeout=times.operation,
            socket_connect_timeout=times.operation,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._buffer = WriteBuffer(limits)
        self._link = RedisLink(redis_url, counters, self._link_changed, waits=lambda: self._buffer.unsettled)
        room = TakeoverRoom(limits.max_takeover_bytes, memory)
        self._lease = Lease(
            self._redis,
            Instance(f"queueworker:{{{group}}}:", worker_id),
            self._link,
            room,
            times=times,
            clock=clock,
            on_new=self._write_all_again,
            on_fenced=self._start_over,
        )
        self._takeover = Takeover(self._redis, self._lease, room, self._buffer, times=times, on_recovered=on_recovered)
        self._writer = BatchWriter(
            self._redis,
            self._buffer,
            self._lease,
            self._link,
            counters,
            times=times,
            on_written=self._bound_memory,
            on_room=on_room,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    # --- what a router asks

    @property
    def link(self) -> Link:
        return self._link.journal

    @property
    def events_link(self) -> Link:
        """As `link`, but for publishing: a Redis that is out of memory still publishes."""
        return self._link.events

    @property
    def writable(self) -> bool:
        return self._link.journal.ok

    @property
    def has_room(self) -> bool:
        """Whether new tasks may be pulled: while Redis is there, none of their events is dropped for lack of room."""
        return not self._buffer.events.full or not self._link.events.ok

    @property
    def buffered_events(self) -> int:
        return len(self._buffer.events)

    @property
    def instance(self) -> str:
        """The name that the journal has in Redis now."""
        return self._lease.instance.id

    @property
    def rivals(self) -> int:
        """Other live workers in the group at the last heartbeat (our own instances are not counted)."""
        return self._lease.rivals

    @property
    def rival_slots(self) -> Mapping[str, int]:
        """Tasks that they ran at that time, by the name of the executor."""
        return self._lease.rival_slots

    @property
    def lease_until(self) -> float:
        """On the monotonic clock. After that `verify_lease` before anything that others would see."""
        return self._lease.until

    def __contains__(self, eval_id: str) -> bool:
        """Whether the journal holds an entry of that id, or will."""
        return eval_id in self._buffer.entries

    # --- what a router tells; nothing here waits, but `durable` and `verify_lease`

    def put(self, eval_id: str, entry: bytes) -> None:
        """Write the entry soon. A later one for the same id takes its place."""
        self._buffer.put(eval_id, entry)
        self._writer.wake.set()

    async def durable(self, eval_id: str | None = None) -> None:
        """Return when the id's entry, or everything, is written; at once while nothing can be: see `writable`."""
        if not self._closed:
            await self._writer.wait_until_written(eval_id)

    def finish(self, eval_id: str, event: Event | None = None, failed: FailedTask | None = None) -> None:
        """Publish the event, then forget the entry; keep a record of a failed task."""
        self._buffer.finish(eval_id, event, failed)
        self._bound_memory()
        self._writer.wake.set()

    def publish(self, event: Event) -> None:
        """Publish soon, in the order of the calls."""
        self._buffer.events.add(event)
        self._bound_memory()
        self._writer.wake.set()

    async def verify_lease(self) -> None:
        """Past `lease_until`, find out whether another router took our tasks over; `on_fenced` is called if so.

        Returns at once while Redis is known to be away: nothing is known then.
        """
        await self._lease.verify()

    async def quarantine(self, eval_id: str, entry: bytes) -> None:
        """Set an unreadable entry aside for a person; `finish` then takes it out of the journal."""
        await self._takeover.quarantine(eval_id, entry)

    # --- life

    def log_in(self, redis_url: str) -> None:
        """As the user of this URL, which is for the same Redis."""
        self._redis.log_in(redis_url)
        self._link.restored.set()

    async def start(self) -> None:
        """Take the lease and what dead instances left; stop waiting for Redis after a moment, and go on trying."""
        await self._lease.renew(take_over=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._times.operation):
                await self._takeover.read_if_any()
        if not self._closed:
            self._tasks = [
                asyncio.create_task(self._writer.run(), name="journal batches"),
                asyncio.create_task(self._lease.run(), name="journal heartbeats"),
                asyncio.create_task(self._takeover.run(), name="journal takeovers"),
            ]

    def inherit(self, unwritten: Unwritten) -> None:
        """Take what another journal could not write, before our own."""
        self._buffer.inherit(unwritten)
        self._bound_memory()
        self._writer.wake.set()

    def hand_over(self) -> dict[str, bytes]:
        """Give all entries to a journal on another Redis: they are removed here."""
        entries = dict(self._buffer.entries)
        for eval_id in entries:
            self._buffer.finish(eval_id, None, None)
        self._writer.wake.set()
        return entries

    async def close(self) -> Unwritten:
        """Write what is left, within a bounded time, and give the lease up. Returns what never reached Redis.

        Releases the lease even when cancelled; otherwise no one can take over until it expires.
        """
        if self._closed:
            return self._buffer.take_unwritten()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.flush):
                    if self._buffer.entries:
                        await self._lease.renew()  # a Redis that has forgotten the entries gets them again
                    await self._writer.flush()
        finally:
            self._closed = True
            await cancelled(*self._tasks)
            self._writer.release_all()
            await self._lease.leave()
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()
        return self._buffer.take_unwritten()

    # --- what the parts tell

    def _write_all_again(self) -> None:
        self._buffer.write_all_again()
        self._writer.wake.set()

    def _start_over(self, taken: set[str]) -> None:
        lost = self._buffer.start_over(taken)
        self._writer.release_written()
        self._writer.wake.set()
        self._on_fenced(lost)

    def _link_changed(self) -> None:
        if not self._link.journal.ok:
            self._writer.release_all()
        self._bound_memory()
        self._on_link()

    def _bound_memory(self) -> None:
        """Tell the budget what waits. While Redis is away the oldest events are dropped above a bound, and what exceeds
        this router's part of the budget. While Redis is there nothing is dropped.
        """
        buffer, memory = self._buffer, self._memory
        memory.set_buffered(buffer.buffered_bytes)
        if not self._link.events.ok and (buffer.events.full or memory.excess):
            self._counters.events_dropped += buffer.drop_oldest(memory.excess)
            memory.set_buffered(buffer.buffered_bytes)
