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
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.routing.aio import cancelled, happens
from queueworker.routing.backoff import exponential
from queueworker.routing.journal import scripts
from queueworker.routing.journal.lease import Instance, Lease, TakeoverRoom
from queueworker.routing.journal.redis_client import Client, connect
from queueworker.routing.journal.redis_link import RedisLink
from queueworker.routing.journal.takeover import Takeover
from queueworker.routing.journal.write_buffer import Batch, Unwritten, WriteBuffer, WriteWaits
from queueworker.routing.limits import TIMES, JournalTimes, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.counters import Counters
    from queueworker.routing.journal.failed_tasks import FailedTask
    from queueworker.routing.memory_budget import MemoryAccount
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

    async def start(self, disowned: tuple[str, ...] = ()) -> None:
        """Take the lease and what dead instances left; stop waiting for Redis after a moment, and go on trying.

        `disowned`: as in `Lease`.
        """
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


class BatchWriter:
    """Writes what is in the buffer.

    `on_written` is called after each batch, `on_room` when a full buffer of events has room again.
    """

    def __init__(
        self,
        redis: Client,
        buffer: WriteBuffer,
        waits: WriteWaits,
        lease: Lease,
        link: RedisLink,
        counters: Counters,
        *,
        times: JournalTimes,
        on_written: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        self._script = redis.exclusive_script(scripts.BATCH, scripts.is_batch_answer)
        self._buffer = buffer
        self._waits = waits
        self._lease = lease
        self._link = link
        self._counters = counters
        self._times = times
        self._on_written = on_written
        self._on_room = on_room
        self._writing = self._flushing = False
        self._refusals = self._timeouts = 0
        """Batches in a row that were refused, and that Redis did not answer in time."""

    async def run(self) -> None:
        """Write, until cancelled.

        What gathers while one batch is on its way is the next: small when little happens, large when much does.
        """
        while True:
            await self._buffer.wake.wait()
            self._buffer.wake.clear()
            if self._buffer.pending:
                self._writing = True
                try:
                    written = await self._write()
                finally:
                    self._writing = False
                if self._buffer.pending:
                    self._buffer.wake.set()
                if not written:
                    await self._back_off()
                    continue
            self._waits.end_written()

    async def flush(self) -> None:
        """Return when everything is written. It may never be: the caller bounds the wait."""
        self._flushing = True
        self._link.restored.set()
        while self._writing or self._buffer.pending:
            if not self._link.journal.ok:
                await asyncio.sleep(self._times.flush / 30)
            await self._waits.until_written(None)

    # --- one batch

    async def _write(self) -> bool:
        """Write one batch. Returns whether to go on at once; False means that Redis is to be left alone for a while."""
        try:
            await self._script.connect(self._times.operation)
        except Exception as error:  # whatever it is: this stream must not end, for every report waits for it
            self._link.failed(error)
            return False
        full = self._buffer.events.full
        # The keys and the number are those of the instance that the lease is for now. It may be renewed while the batch
        # is on its way.
        instance, batch = self._lease.instance, self._buffer.take()
        instance.batch_number += 1
        try:
            args = batch.arguments(instance.batch_number)
            answer = await self._script.run(instance.batch_keys, args, self._times.transfer(batch.size, self._timeouts))
        except BaseException as error:
            # Redis has done all of it, or nothing. It is written again, so events may be published twice.
            self._buffer.put_back(batch)
            if not isinstance(error, Exception):
                raise
            late = isinstance(error, RedisTimeoutError)
            self._timeouts += late
            self._link.failed(error, batch=True)
            self._counters.events_dropped += self._buffer.broke(batch, alone=self._lease.held and not late)
            return False
        written = await self._take_answer(answer, batch, instance)
        self._on_written()
        if full and not self._buffer.events.full:
            self._on_room()
        return written

    async def _take_answer(self, answer: bytes, batch: Batch, instance: Instance) -> bool:
        """As `_write`. `instance` may have been renewed since: then another has the entries that were written."""
        if answer in scripts.REFUSED:
            # Nothing of the batch was done. FENCED: another instance took our journal over. NOLEASE: the lease ran out
            # and nobody noticed, or Redis was restarted and has forgotten everything. STALE: a batch with a higher
            # number was written, or the lease was taken anew while this was on its way.
            self._buffer.put_back(batch)
            await self._lease.refused(instance)
            self._refusals += 1
            self._link.refused(answer, self._refusals)
            return self._link.journal.ok and self._refusals == 1
        self._refusals = self._timeouts = 0
        self._counters.events_published += len(batch.events)
        if answer == scripts.WRITTEN:
            self._buffer.written(batch)
            self._link.succeeded(batch=True)
            return True
        # Redis is out of memory. The events are published and the removals are done; entries or failed-task records are
        # not, or the batch's number is not.
        self._buffer.written_but_entries(batch)
        self._link.failed(ResponseError(answer.removeprefix(scripts.PARTLY).decode()), batch=True, publishes=True)
        return False

    async def _back_off(self) -> None:
        """Wait before Redis is tried again, or until a heartbeat has reached it; when closing, there is little time."""
        if self._flushing:
            await asyncio.sleep(self._times.first_retry)
            return
        self._link.restored.clear()
        delay = exponential(self._link.failures, self._times.first_retry, self._times.max_retry)
        await happens(self._link.restored, delay)
