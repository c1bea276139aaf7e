"""What is to be written to Redis next, what Redis holds of it, and who waits for that. Knows neither clock nor Redis.

Entries, their removals, events and failed-task records leave the buffer in batches, one at a time. A batch is taken,
and then either `written`, `written_but_entries` or `put_back`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from queueworker.routing.journal.event_buffer import BufferedEvent, EventBuffer
from queueworker.routing.journal.failed_tasks import Backlog, FailedTask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.routing.journal.redis_link import RedisLink
    from queueworker.routing.limits import Limits
    from queueworker.routing.wire.outcome import Event

log = logging.getLogger(__name__)

# In one batch, beside those that go with an event. Redis removes some million fields a second.
MAX_REMOVALS = 10_000
MAX_BREAKS = 20


@dataclass(slots=True, eq=False)
class Batch:
    """What one script writes, in its order: events, removals, entries, failed-task records."""

    events: deque[BufferedEvent]
    removals: list[str]
    entries: dict[str, bytes]
    failed_tasks: Backlog
    size: int
    """About how many bytes it has."""

    def arguments(self, number: int) -> list[object]:
        """As `scripts.BATCH` reads them."""
        args: list[object] = [number, len(self.events)]
        for event, _ in self.events:
            args += event
        args.append(len(self.removals))
        args += self.removals
        args.append(len(self.entries))
        for pair in self.entries.items():
            args += pair
        args += self.failed_tasks.arguments()
        return args


@dataclass(frozen=True, slots=True)
class Unwritten:
    """Events, the oldest first, and failed-task records that never reached Redis: another journal may inherit them."""

    events: tuple[Event, ...]
    failed_tasks: Backlog

    def __bool__(self) -> bool:
        return bool(self.events or self.failed_tasks)


class WriteBuffer:
    """`entries` is what the journal should hold: one for each task in flight. Where the id of a task is:

        after …                          entries  unwritten  batch under way  _stored  _removals
        `put`                               x         x                         (x)
        `take`                              x                       x           (x)
        `written`                           x                                    x
        `put_back` (the answer is lost)     x         x                          x
        `finish`, nothing was sent
        `finish` with an event                                                   x     beside the event
        `finish` without                                                         x         x
        `written` of that batch

    (x): from an earlier entry of the same task. `start_over` puts all that is left in `entries` and `unwritten` only.
    """

    def __init__(self, limits: Limits) -> None:
        self.entries: dict[str, bytes] = {}
        self.unwritten: dict[str, bytes] = {}
        """Those entries that no batch has taken yet, as they are to be written."""
        self.wake = asyncio.Event()
        """Set when there is something to write."""
        self.events = EventBuffer(limits.max_buffered_event_bytes)
        self.failed_tasks = Backlog(limits)
        self._max_batch_bytes = limits.max_batch_bytes
        self._removals: dict[str, None] = {}
        """Ids that leave Redis with the next batch. None of them is in `entries`."""
        self._stored: set[str] = set()
        """Ids of which Redis holds an entry, or may hold one because an answer was lost."""
        self._handed_out_again: set[str] = set()
        """Ids that the queue handed out again after their task ended, while Redis may still hold its entry."""
        self._breaks = 0
        """Of batches with a large event, in a row, while heartbeats passed."""
        self._under_way: Batch | None = None
        """The batch that was taken last, while its answer is missing; None if the instance was renewed since."""

    @property
    def pending(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.unwritten or self.events or self._removals or self.failed_tasks)

    @property
    def unsettled(self) -> bool:
        """Whether there is anything to write, or on its way."""
        return self.pending or self._under_way is not None

    @property
    def buffered_bytes(self) -> int:
        """Of events and records that wait."""
        return self.events.bytes + self.failed_tasks.bytes

    def may_be_stored(self, eval_id: str) -> bool:
        """Whether Redis may hold an entry of that id that we wrote, or know of."""
        under_way = self._under_way
        return eval_id in self._stored or (under_way is not None and eval_id in under_way.entries)

    # --- what the router adds

    def put(self, eval_id: str, entry: bytes) -> None:
        """A later entry takes the place of an earlier one, also of one that is on its way out."""
        if eval_id not in self.entries and self.may_be_stored(eval_id):
            self._handed_out_again.add(eval_id)
        self.entries[eval_id] = self.unwritten[eval_id] = entry
        if self._removals:
            self._removals.pop(eval_id, None)
        self.wake.set()

    def publish(self, event: Event) -> None:
        self.events.add(event)
        self.wake.set()

    def finish(self, eval_id: str, event: Event | None, failed: FailedTask | None) -> None:
        """The entry goes with the event, or with the next batch if there is none."""
        known = self.entries.pop(eval_id, None) is not None
        self.unwritten.pop(eval_id, None)
        self._handed_out_again.discard(eval_id)
        removes = eval_id if known and self.may_be_stored(eval_id) else None
        if event is not None:
            self.events.add(event, removes)
        elif removes is not None:
            self._removals[removes] = None
        if failed is not None:
            self.failed_tasks.add(failed)
        elif self.failed_tasks:
            self.failed_tasks.drop(eval_id)
        self.wake.set()

    def adopt(self, found: dict[str, bytes]) -> dict[str, bytes]:
        """Entries of others that are in our journal in Redis. Returns those of tasks that are not in flight here."""
        self._stored.update(found)
        new = {eval_id: entry for eval_id, entry in found.items() if eval_id not in self.entries}
        self.entries.update(new)
        return new

    def drop_oldest(self, excess: int) -> int:
        """Drop events above the bound and so many bytes at least, then records of failed tasks; let the entries of the
        events go. Returns how many events were dropped.
        """
        left = self.buffered_bytes - excess
        dropped = self.events.drop_oldest(excess)
        self.failed_tasks.drop_oldest(self.buffered_bytes - left)
        self._removals.update(dict.fromkeys(self._removals_with(dropped)))
        return len(dropped)

    # --- batches

    def take(self) -> Batch:
        """The next batch. Of each kind it has at most `max_batch_bytes`, or one item that is larger."""
        before = self.events.bytes
        events = self.events.take(self._max_batch_bytes)
        removals = self._removals_with(events)
        if self._removals:
            removals += islice(self._removals, MAX_REMOVALS)
        entries, size = self._take_entries()
        failed_tasks = self.failed_tasks.take(self._max_batch_bytes)
        size += before - self.events.bytes + failed_tasks.bytes
        batch = self._under_way = Batch(events, removals, entries, failed_tasks, size)
        return batch

    def _removals_with(self, events: Iterable[BufferedEvent]) -> list[str]:
        """Ids that go with these events; not that of a task which the queue has handed out again: its entry is new."""
        held = self.entries
        return [eval_id for _, eval_id in events if eval_id is not None and eval_id not in held]

    def _take_entries(self) -> tuple[dict[str, bytes], int]:
        """And their bytes."""
        taken, size = self.unwritten, sum(map(len, self.unwritten.values()))
        if size <= self._max_batch_bytes:
            self.unwritten = {}
            return taken, size
        taken, size = {}, 0
        for eval_id, entry in self.unwritten.items():
            if taken and size + len(entry) > self._max_batch_bytes:
                break
            taken[eval_id] = entry
            size += len(entry)
        self.unwritten = dict(islice(self.unwritten.items(), len(taken), None))
        return taken, size

    def written(self, batch: Batch) -> None:
        """Redis has done all of it."""
        if self._under_way is batch:
            self._under_way = None
            self._removed(batch)
            self._stored.update(batch.entries)
            self._handed_out_again.difference_update(batch.entries)

    def written_but_entries(self, batch: Batch) -> None:
        """Redis has published the events and done the removals, but may have refused entries and records."""
        if self._under_way is batch:
            self._removed(batch)
        batch.events.clear()
        batch.removals.clear()
        self.put_back(batch)

    def put_back(self, batch: Batch) -> None:
        """Redis has not done it, or may not have: all of it is to be written, before what came since."""
        events = batch.events
        if self._under_way is batch:
            self._under_way = None
            self._stored.update(batch.entries)
        else:
            events = deque((event, None) for event, _ in events)
        held = self.entries
        self.unwritten = {i: held[i] for i in (*batch.entries, *self.unwritten) if i in held}
        self.events.put_back(events)
        self.failed_tasks.put_back(batch.failed_tasks)

    def broke(self, batch: Batch, *, alone: bool) -> int:
        """The batch that was put back broke off. `alone`: heartbeats pass meanwhile.

        Redis, or what stands before it, may take no request as large as the oldest event, and all others wait behind
        that one. So it is dropped after `MAX_BREAKS` breaks in a row. Returns how many events were dropped: 1 or 0.
        """
        large = any(len(event.payload) > self._max_batch_bytes for event, _ in batch.events)
        self._breaks = self._breaks + 1 if large and alone else 0
        if self._breaks < MAX_BREAKS:
            return 0
        self._breaks = 0
        dropped = self.events.take(1)
        self._removals.update(dict.fromkeys(self._removals_with(dropped)))
        for event, eval_id in dropped:
            what = (len(event.payload), eval_id or "unknown", MAX_BREAKS)
            log.error("an event of %d bytes (task %s) is dropped: Redis took it in none of %d tries", *what)
        return len(dropped)

    def _removed(self, batch: Batch) -> None:
        self._stored.difference_update(batch.removals)
        if self._removals:
            for eval_id in batch.removals:
                self._removals.pop(eval_id, None)

    # --- what never reached Redis

    def take_unwritten(self) -> Unwritten:
        """Everything but the entries."""
        events = self.events.take(self.events.bytes)
        return Unwritten(tuple(event for event, _ in events), self.failed_tasks.take())

    def inherit(self, unwritten: Unwritten) -> None:
        """Put it before what is ours, because it is older."""
        self.events.put_back((event, None) for event in unwritten.events)
        self.failed_tasks.put_back(unwritten.failed_tasks)
        self.wake.set()

    def give_away(self) -> dict[str, bytes]:
        """All entries, for a journal on another Redis: they are removed here."""
        entries = dict(self.entries)
        for eval_id in entries:
            self.finish(eval_id, None, None)
        return entries

    # --- another journal in Redis

    def write_all_again(self) -> None:
        """Redis may have lost our entries."""
        self.unwritten = dict(self.entries)
        self.wake.set()

    def start_over(self, taken: set[str]) -> set[str]:
        """Our entries go to a new, empty journal, without those that are taken. Returns which of ours those were.

        A batch that is under way was for the journal that we had: whatever comes of it, it changes nothing in the new
        one. All entries that are left are unwritten by now, and there is nothing to remove. A task that the queue has
        handed out again is ours: what was taken is its earlier copy.
        """
        lost = (self.entries.keys() & taken) - self._handed_out_again
        for eval_id in lost:
            del self.entries[eval_id]
        self._stored.clear()
        self._handed_out_again.clear()
        self._removals.clear()
        self.events.keep_entries()
        self._under_way = None
        self.write_all_again()
        return lost


class WriteWaits:
    """Those who wait for an id's entry, or for everything in the buffer, to be written."""

    def __init__(self, buffer: WriteBuffer, link: RedisLink) -> None:
        self._buffer = buffer
        self._link = link
        self._waiting: list[tuple[str | None, asyncio.Future[None]]] = []

    async def until_written(self, eval_id: str | None) -> None:
        """Return when the id's entry, or everything, is written; at once while Redis does not answer."""
        if self._link.worth_waiting:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((eval_id, future))
            self._buffer.wake.set()
            await future

    def end_written(self) -> None:
        """Those who wait for an entry do not wait for the rest: under load there may always be some."""
        waiting, self._waiting = self._waiting, []
        unwritten, pending = self._buffer.unwritten, self._buffer.pending
        for waiter in waiting:
            eval_id, future = waiter
            if pending and (eval_id is None or eval_id in unwritten):
                self._waiting.append(waiter)
            elif not future.done():
                future.set_result(None)

    def end_all(self) -> None:
        """Redis does not answer, and nobody is to wait for it."""
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_result(None)
