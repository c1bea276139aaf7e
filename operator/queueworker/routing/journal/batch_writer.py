"""The stream of batches to Redis: one after the other, each under the lease, and again until Redis has taken it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from queueworker.routing.backoff import exponential
from queueworker.routing.journal import scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.counters import Counters
    from queueworker.routing.journal.lease import Instance, Lease
    from queueworker.routing.journal.redis_client import Client
    from queueworker.routing.journal.redis_link import RedisLink
    from queueworker.routing.journal.times import JournalTimes
    from queueworker.routing.journal.write_buffer import Batch, WriteBuffer

OK = b"OK"
REFUSED = frozenset({b"FENCED", b"NOLEASE", b"STALE"})


class BatchWriter:
    """Writes what is in the buffer.

    `on_written` is called after each batch, `on_room` when a full buffer of events has room again.
    """

    def __init__(
        self,
        redis: Client,
        buffer: WriteBuffer,
        lease: Lease,
        link: RedisLink,
        counters: Counters,
        *,
        times: JournalTimes,
        on_written: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        self.wake = asyncio.Event()
        """To be set when something is in the buffer."""
        self._script = redis.exclusive_script(scripts.BATCH)
        self._buffer = buffer
        self._lease = lease
        self._link = link
        self._counters = counters
        self._times = times
        self._on_written = on_written
        self._on_room = on_room
        self._waiters: list[tuple[str | None, asyncio.Future[None]]] = []
        """Futures of those who wait for an id's entry, or for everything, to be written."""
        self._writing = False
        self._flushing = False
        self._refusals = 0
        """Batches refused in a row."""

    async def run(self) -> None:
        """Write, until cancelled.

        What gathers while one batch is on its way is the next: small when little happens, large when much does.
        """
        while True:
            await self.wake.wait()
            self.wake.clear()
            if self._buffer.pending:
                self._writing = True
                try:
                    written = await self._write()
                finally:
                    self._writing = False
                if self._buffer.pending:
                    self.wake.set()
                if not written:
                    await self._back_off()
                    continue
            self.release_written()

    async def wait_until_written(self, eval_id: str | None) -> None:
        """Return when the id's entry, or everything in the buffer, is written; at once while Redis does not answer."""
        if self._link.worth_waiting:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((eval_id, future))
            self.wake.set()
            await future

    async def flush(self) -> None:
        """Return when everything is written. It may never be: the caller bounds the wait."""
        self._flushing = True
        self._link.restored.set()
        while self._writing or self._buffer.pending:
            if not self._link.journal.ok:
                await asyncio.sleep(self._times.flush / 30)
            await self.wait_until_written(None)

    def release_written(self) -> None:
        """Those who wait for an entry do not wait for the rest: under load there may always be some."""
        waiters, self._waiters = self._waiters, []
        unwritten, pending = self._buffer.unwritten, self._buffer.pending
        for waiter in waiters:
            eval_id, future = waiter
            if pending and (eval_id is None or eval_id in unwritten):
                self._waiters.append(waiter)
            elif not future.done():
                future.set_result(None)

    def release_all(self) -> None:
        """Redis does not answer, and nobody is to wait for it."""
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if not future.done():
                future.set_result(None)

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
            answer = await self._script.run(instance.batch_keys, args, self._times.transfer(batch.size))
        except BaseException as error:
            # Redis has done all of it, or nothing. It is written again, so events may be published twice.
            self._buffer.put_back(batch)
            if not isinstance(error, Exception):
                raise
            self._link.failed(error, batch=True)
            return False
        written = await self._take_answer(answer, batch, instance)
        self._on_written()
        if full and not self._buffer.events.full:
            self._on_room()
        return written

    async def _take_answer(self, answer: bytes, batch: Batch, instance: Instance) -> bool:
        """As `_write`. `instance` may have been renewed since: then another has the entries that were written."""
        if answer in REFUSED:
            # FENCED: another instance took our journal over.
            # NOLEASE: the lease ran out and nobody noticed, or Redis was restarted and has forgotten everything.
            # STALE: a batch with a higher number was written, or the lease was taken anew while this was on its way.
            # In all three cases nothing of the batch was done.
            self._buffer.put_back(batch)
            await self._lease.refused(instance)
            self._refusals += 1
            return self._link.journal.ok and self._refusals == 1
        self._refusals = 0
        self._counters.events_published += len(batch.events)
        if answer == OK:
            self._buffer.written(batch)
            self._link.succeeded(batch=True)
            return True
        # The text of an error: Redis is out of memory. The events are published and the removals are done; entries or
        # failed-task records are not, or the batch's number is not.
        self._buffer.written_but_entries(batch)
        self._link.failed(ResponseError(answer.decode()), batch=True, publishes=True)
        return False

    async def _back_off(self) -> None:
        """Wait before Redis is tried again, or until a heartbeat has reached it; when closing, there is little time."""
        if self._flushing:
            await asyncio.sleep(self._times.first_retry)
            return
        self._link.restored.clear()
        delay = exponential(self._link.failures, self._times.first_retry, self._times.max_retry)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):  # not wait_for, which may swallow a cancellation (before Python 3.12)
                await self._link.restored.wait()
