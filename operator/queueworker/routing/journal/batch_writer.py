"""Takes what is in the buffer of a journal to Redis, one batch after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from queueworker.routing.aio import happens
from queueworker.routing.backoff import exponential
from queueworker.routing.journal import scripts
from queueworker.routing.journal.lease import Instance, Lease
from queueworker.routing.journal.redis_client import Client
from queueworker.routing.journal.redis_link import RedisLink
from queueworker.routing.journal.write_buffer import Batch, WriteBuffer, WriteWaits
from queueworker.routing.limits import JournalTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.counters import Counters


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
