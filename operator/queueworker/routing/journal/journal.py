"""The journal of the tasks in flight, kept in Redis so that a router's death loses nothing; and the stream of events.

A router puts entries and events into a buffer (`Journal`), and one stream of batches takes them to Redis
(`BatchWriter`). `scripts` describes the keys.

Everything that one instance writes goes through that stream, in order; each batch is a script that first checks the
lease. A batch that is late (its connection hung, and another has been written since) is refused by its number.
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
from queueworker.routing.journal.lease import Instance, Lease
from queueworker.routing.journal.redis_client import Client, connect
from queueworker.routing.journal.redis_link import RedisLink
from queueworker.routing.journal.takeover import Takeover
from queueworker.routing.journal.takeover_room import TakeoverRoom
from queueworker.routing.journal.write_buffer import Unwritten, WriteBuffer, WriteWaits
from queueworker.routing.limits import TIMES, JournalTimes, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queueworker.routing.counters import Counters
    from queueworker.routing.journal.failed_tasks import FailedTask
    from queueworker.routing.memory_budget import MemoryAccount
    from queueworker.routing.wire.outcome import Event

NOTHING: Mapping[str, bytes] = {}


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
        self.link = RedisLink(redis_url, counters, self._link_changed, waits=lambda: self._buffer.unsettled)
        self._waits = WriteWaits(self._buffer, self.link)
        room = TakeoverRoom(limits.max_takeover_bytes, memory)
        self.lease = Lease(
            *(self._redis, Instance(f"queueworker:{{{group}}}:", worker_id), self.link, room),
            times=times,
            clock=clock,
            on_new=self._buffer.write_all_again,
            on_fenced=self._start_over,
        )
        self.takeover = Takeover(self._redis, self.lease, room, self._buffer, times=times, on_recovered=on_recovered)
        self._writer = BatchWriter(
            *(self._redis, self._buffer, self._waits, self.lease, self.link, counters),
            times=times,
            on_written=self._bound_memory,
            on_room=on_room,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    # --- what a router asks

    @property
    def writable(self) -> bool:
        return self.link.journal.ok

    @property
    def has_room(self) -> bool:
        """Whether new tasks may be pulled: while Redis is there, none of their events is dropped for lack of room."""
        return not self._buffer.events.full or not self.link.events.ok

    @property
    def buffered_events(self) -> int:
        return len(self._buffer.events)

    def __contains__(self, eval_id: str) -> bool:
        """Whether the journal holds an entry of that id, or will."""
        return eval_id in self._buffer.entries

    # --- what a router tells; nothing here waits, but `durable`

    def put(self, eval_id: str, entry: bytes) -> None:
        """Write the entry soon. A later one for the same id takes its place."""
        self._buffer.put(eval_id, entry)

    async def durable(self, eval_id: str | None = None) -> None:
        """Return when the id's entry, or everything, is written; at once while Redis does not answer."""
        if not self._closed:
            await self._waits.until_written(eval_id)

    def finish(self, eval_id: str, event: Event | None = None, failed: FailedTask | None = None) -> None:
        """Publish the event, then forget the entry; keep a record of a failed task."""
        self._buffer.finish(eval_id, event, failed)
        self._bound_memory()

    def publish(self, event: Event) -> None:
        """Publish soon, in the order of the calls."""
        self._buffer.publish(event)
        self._bound_memory()

    # --- life

    def log_in(self, redis_url: str) -> None:
        """As the user of this URL, which is for the same Redis."""
        self._redis.log_in(redis_url)
        self.link.restored.set()

    async def start(self, inherited: Mapping[str, bytes] = NOTHING, disowned: tuple[str, ...] = ()) -> None:
        """Take the lease and what dead instances left; stop waiting for Redis after a moment, and go on trying.

        `inherited`: entries that a predecessor told us; what Redis has of these tasks is older. `disowned`: as in
        `Lease`.
        """
        for eval_id, entry in inherited.items():
            self._buffer.put(eval_id, entry)
        self.lease.disowned = disowned
        await self.lease.renew(take_over=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._times.operation):
                await self.takeover.read_if_any()
        if not self._closed:
            self._tasks = [
                asyncio.create_task(self._writer.run(), name="journal batches"),
                asyncio.create_task(self.lease.run(), name="journal heartbeats"),
                asyncio.create_task(self.takeover.run(), name="journal takeovers"),
            ]

    def inherit(self, unwritten: Unwritten) -> None:
        """Take what another journal could not write, before our own."""
        self._buffer.inherit(unwritten)
        self._bound_memory()

    def hand_over(self) -> dict[str, bytes]:
        """Give all entries to a journal on another Redis: they are removed here."""
        return self._buffer.give_away()

    async def close(self) -> Unwritten:
        """Write what is left, within a bounded time, and give the lease up, even when cancelled: otherwise no one can
        take over until it expires. Returns what never reached Redis.
        """
        if self._closed:
            return self._buffer.take_unwritten()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.flush):
                    if self._buffer.entries:
                        await self.lease.renew()  # a Redis that has forgotten the entries gets them again
                    await self._writer.flush()
        finally:
            self._closed = True
            await cancelled(*self._tasks)
            self._waits.end_all()
            await self.lease.leave()
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()
        return self._buffer.take_unwritten()

    def unsure(self) -> dict[str, bytes]:
        """Once closed: the entries, if Redis may not hold them all."""
        return {} if self.link.journal.ok and not self._buffer.pending else dict(self._buffer.entries)

    # --- what the parts tell

    def _start_over(self, taken: set[str]) -> None:
        lost = self._buffer.start_over(taken)
        self._waits.end_written()
        self._on_fenced(lost)

    def _link_changed(self) -> None:
        if not self.link.journal.ok:
            self._waits.end_all()
        self._bound_memory()
        self._on_link()

    def _bound_memory(self) -> None:
        """Tell the budget what waits. While Redis is away the oldest events are dropped above a bound, and what exceeds
        this router's part of the budget. While Redis is there, only `WriteBuffer.broke` drops one.
        """
        buffer, memory = self._buffer, self._memory
        memory.set_buffered(buffer.buffered_bytes)
        if not self.link.events.ok and (buffer.events.full or memory.excess):
            self._counters.events_dropped += buffer.drop_oldest(memory.excess)
            memory.set_buffered(buffer.buffered_bytes)
