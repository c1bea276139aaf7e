"""What is in flight, written to Redis, so that a router's death loses nothing; and the events, in the same stream.

Keys, all of one group (`{group}` is a hash tag: one slot in a cluster):

    queueworker:{group}:instances        set of the instances that may have left something
    queueworker:{group}:lease:<id>       the instance lives while this exists; its value numbers its batches
    queueworker:{group}:journal:<id>     hash: eval_id → entry; and 0xff, "part ", a name, ":" and an
                                         eval_id → a part of what that entry is about, if it is large
    queueworker:{group}:fenced:<id>      set: the instance was taken over, with these entries (and an empty one);
                                         whatever it still writes is refused
    queueworker:{group}:quarantine       hash: entries that could not be read, kept for a person
    queueworker:{group}:quarantine:<id>  a journal that was no hash
    queueworker:{group}:failed…          the record of failed tasks, see `failures`

Every instance has an id of its own, new at each start. Whoever renews its lease also looks for
instances without one and takes their journal over, some megabytes at a time: two cannot both get an entry.

Everything that one instance writes goes through one stream of batches, in order, each a script that
first checks the lease: entries, published events, and the removal of what is done. A batch that is
late (its connection hung, and another has been written since) is refused by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from queueworker.routing.aio import cancelled
from queueworker.routing.backoff import exponential
from queueworker.routing.http.large import Pieces
from queueworker.routing.journal import failed_tasks as failures
from queueworker.routing.journal import scripts
from queueworker.routing.journal.bulk import Bulk
from queueworker.routing.journal.failed_tasks import Backlog
from queueworker.routing.journal.redis_client import connect
from queueworker.routing.snapshot import Link, LinkReason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from queueworker.routing.counters import Counters
    from queueworker.routing.journal.failed_tasks import FailedTask
    from queueworker.routing.journal.redis_client import Client

log = logging.getLogger(__name__)

LEASE_SECONDS = 6.0
BEAT_SECONDS = 2.0
OPERATION_TIMEOUT_SECONDS = 2.0
FLUSH_SECONDS = 3.0
RECONNECT_FIRST_SECONDS = 0.25
RECONNECT_MOST_SECONDS = 5.0
FENCED_KEPT_SECONDS = 86_400
MAX_BUFFERED_BYTES = 64 * 1024 * 1024
# What an event takes beside its payload, in memory and in a batch.
EVENT_BYTES = 256
# Of entries in one batch, at most, of events, and of records of failed tasks (or one, when that is larger): a script
# holds up Redis for everybody.
MAX_BATCH_BYTES = 512 * 1024
# A larger event goes by itself, and its entry is forgotten after it.
MAX_BATCHED_EVENT_BYTES = 64 * 1024
# Of what dead instances left, in one beat: its answer has to come in time.
TAKE_BYTES = 8 * 1024 * 1024
# What the field of a part begins with. No eval_id does: JSON has no lone surrogates.
PART = "\udcffpart "


# Channel, payload, and what Redis holds and forgets with it.
Event: TypeAlias = "tuple[str, bytes, Sequence[str]]"


class Journal:
    """The journal and the event stream of one instance, on one Redis.

    While Redis is away nothing blocks: entries of what is in flight are kept and written when it is
    back, events are buffered (bounded), and `writable` is False.

    `on_recovered` gets the entries of a dead instance. `on_fenced` is called when this instance was
    declared dead itself, with the entries that no successor can have seen, because they never reached
    Redis: those are still ours to carry. `on_link` is called when a link changed, `on_room` when there is some again.
    """

    def __init__(
        self,
        redis_url: str,
        group: str,
        instance: str,
        counters: Counters,
        *,
        clock: Callable[[], float],
        on_recovered: Callable[[Journal, dict[str, bytes]], None],
        on_fenced: Callable[[Journal, dict[str, bytes]], None],
        on_link: Callable[[], None],
        on_room: Callable[[], None] = lambda: None,
        connect: Callable[..., Client] = connect,
    ) -> None:
        self.redis_url = redis_url
        self.instance = instance
        self.link = Link()
        self.events_link = Link()
        """As `link`, but for publishing: a Redis out of memory still publishes."""
        self.fenced = False
        self.peers = 0
        """Routers of the group that live, as of the last beat; instances of our own worker are none."""
        self._closed = False
        self.ready = asyncio.Event()
        """The first beat is done, well or not."""
        self._heir: Journal | None = None
        self._base = f"queueworker:{{{group}}}:"
        self._keys = [f"{self._base}{kind}:{instance}" for kind in ("lease", "fenced", "journal")]
        self._keys += failures.keys(self._base)
        self._counters = counters
        self._clock = clock
        self._on_recovered = on_recovered
        self._on_fenced = on_fenced
        self._on_link = on_link
        self._on_room = on_room
        self._redis = connect(
            redis_url,
            socket_timeout=OPERATION_TIMEOUT_SECONDS,
            socket_connect_timeout=OPERATION_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._batch_script = self._redis.exclusive_script(scripts.BATCH, OPERATION_TIMEOUT_SECONDS)
        self._beat_script = self._redis.register_script(scripts.BEAT)
        self._entries: dict[str, bytes | memoryview] = {}
        """What the journal should hold: entries and parts."""
        self._parts: dict[str, list[str]] = {}
        """Which of them are the parts of an entry."""
        self._sets: dict[str, None] = {}
        """Entries that are not written yet."""
        self._dels: dict[str, None] = {}
        self._stored: set[str] = set()
        """Entries that Redis holds, or may hold."""
        self._confirmed: set[str] = set()
        """Entries that Redis has said it holds."""
        self._events: deque[Event] = deque()
        self._event_bytes = 0
        self._records = Backlog()
        self._bulk = Bulk(redis_url, counters)
        self._number = 0
        self._written: list[tuple[str | None, asyncio.Future[None]]] = []
        """Who waits for an id's entry, or for all of them, to be written."""
        self._wake = asyncio.Event()
        self._try_now = asyncio.Event()
        self._flushing = False
        self._writing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0
        self._uncertain = False
        """A beat's answer was lost: it may have taken entries over that we have not seen."""
        self._more_to_take = False
        """Dead instances may have left more than one beat took over."""
        self._asking = asyncio.Lock()
        self.lease_until = float("-inf")
        """On the monotonic clock: past this, `ask` before doing anything that others would see."""
        self._beat_ended = float("-inf")
        """On the monotonic clock: when Redis was last asked for the lease, whatever came of it."""

    # --- for the router's hot path: nothing here waits, but `durable`

    @property
    def writable(self) -> bool:
        return self.link.ok

    @property
    def has_room(self) -> bool:
        """Whether there may be more tasks: while Redis is there, none of their events is dropped for want of it."""
        return self._bulk.waiting_bytes < MAX_BUFFERED_BYTES or not self.events_link.ok

    @property
    def buffered_events(self) -> int:
        return len(self._events) + len(self._bulk)

    def __contains__(self, eval_id: str) -> bool:
        """Whether the journal holds an entry of that id, or will."""
        return eval_id in self._entries

    def put(self, eval_id: str, entry: bytes, parts: Mapping[str, bytes | memoryview] | None = None) -> None:
        """Write the entry soon, and before it its parts, by name; a later one for the same id takes its place."""
        if parts:
            self._put_parts(eval_id, parts)
        self._entries[eval_id] = entry
        self._sets[eval_id] = None
        self._wake.set()

    def _put_parts(self, eval_id: str, parts: Mapping[str, bytes | memoryview]) -> None:
        for name, part in parts.items():
            key = f"{PART}{name}:{eval_id}"
            before = self._entries.get(key)
            if isinstance(before, memoryview) and isinstance(part, memoryview) and before.obj is part.obj:
                continue  # it is written once, with whichever entry needs it first
            self._entries[key] = part
            self._sets[key] = None
            if before is None:
                self._parts.setdefault(eval_id, []).append(key)
        self._sets.pop(eval_id, None)  # the entry comes after them

    def parts(self, eval_id: str) -> dict[str, bytes | memoryview]:
        """Those of the id's entry, by name."""
        return {_owner(key)[0]: self._entries[key] for key in self._parts.get(eval_id, ())}

    async def durable(self, eval_id: str | None = None) -> None:
        """Return when the id's entry, or all that was put, is written; at once while it cannot be: see `writable`."""
        reason = self.link.reason
        if self.fenced or self._closed or not (reason is LinkReason.CONNECTED or reason is LinkReason.UNKNOWN):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._written.append((eval_id, future))
        self._wake.set()
        await future

    def finish(
        self, eval_id: str, event: tuple[str, bytes | Pieces] | None = None, failed: FailedTask | None = None
    ) -> None:
        """Publish the event, then forget the entry; keep a record of a failed task."""
        entry = self._entries.get(eval_id)
        if event is None:
            self._remove(self._forget(eval_id, entry))
        elif isinstance(event[1], bytes) and len(event[1]) <= MAX_BATCHED_EVENT_BYTES:
            self.publish(event[0], event[1], self._forget(eval_id, entry))
        else:
            self._publish_large(eval_id, entry, *event)
        if failed is not None:
            self._records.add(failed)
        elif self._records:
            self._records.drop(eval_id)
        self._wake.set()

    def _publish_large(
        self, eval_id: str, entry: bytes | memoryview | None, channel: str, payload: bytes | Pieces
    ) -> None:
        def done() -> None:
            self._remove(self._forget(eval_id, entry))
            if not self._bulk.waiting_bytes:
                self._on_room()

        self._bulk.publish(channel, payload if isinstance(payload, Pieces) else Pieces((payload,)), done)
        if not self.events_link.ok:
            self._bulk.shed()

    def _forget(self, eval_id: str, entry: bytes | memoryview | None) -> Sequence[str]:
        """Unless another task of that id has taken the entry's place. Returns what Redis is to forget."""
        if entry is None or self._entries.get(eval_id) is not entry:
            return ()
        keys = (eval_id, *self._parts.pop(eval_id, ()))
        for key in keys:
            self._entries.pop(key, None)
            self._sets.pop(key, None)
        return [key for key in keys if key in self._stored]

    def _remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._dels[key] = None
        self._wake.set()

    def publish(self, channel: str, payload: bytes, forget: Sequence[str] = ()) -> None:
        """Publish soon, in the order of the calls. While Redis is away the oldest are dropped above a bound.

        While it is there nothing is: what gathers during one write is what the lanes finish in that time.
        """
        self._events.append(event := (channel, payload, forget))
        self._event_bytes += _size(event)
        while not self.events_link.ok and self._event_bytes > MAX_BUFFERED_BYTES and len(self._events) > 1:
            self._remove(self._take_event()[2])
            self._counters.events_dropped += 1
        self._wake.set()

    def _take_event(self) -> Event:
        event = self._events.popleft()
        self._event_bytes -= _size(event)
        return event

    async def ask(self) -> None:
        """Past `lease_until`, find out whether somebody took our tasks over while we were not running (frozen, say).

        While Redis cannot be asked nothing is known, and routing goes on, as `journal: Preferred` says. That
        it cannot be is known only of late: a process that was frozen knows nothing, whatever it knew before.
        """
        async with self._asking:
            now = self._clock()
            if now > self.lease_until and (self.link.ok or now - self._beat_ended > LEASE_SECONDS):
                await self._beat()

    # --- life

    async def start(self) -> None:
        """Take the lease and what dead instances left; give up waiting for Redis after a moment, and go on trying."""
        await self._beat()
        self.ready.set()
        if self._closed:
            return
        self._tasks = [
            asyncio.create_task(self._write_for_ever(), name=f"journal {self.instance}"),
            asyncio.create_task(self._beat_for_ever(), name=f"lease {self.instance}"),
        ]

    async def quarantine(self, eval_id: str | bytes, entry: bytes) -> None:
        """Set an unreadable entry aside for a person; `finish` then takes it out of the journal."""
        with contextlib.suppress(RedisError, OSError):
            await _wait(self._redis.hset(f"{self._base}quarantine", mapping={eval_id: entry}))
        log.error(
            "journal entry of %s cannot be read; it is set aside in the Redis hash %squarantine",
            eval_id,
            self._base,
        )

    @property
    def _unwritten(self) -> bool:
        return bool(self._writing or self._sets or self._dels or self._events or self._records)

    async def flush(self) -> None:
        """Wait until everything is written; for `FLUSH_SECONDS`, or less when another has our tasks by now."""
        self._flushing = True
        self._try_now.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self.durable()  # a batch that is on its way
                await self._bulk.flush()
                while self._unwritten and not (self.fenced or self._closed):
                    if not self.link.ok:
                        await asyncio.sleep(FLUSH_SECONDS / 30)
                    await self.durable()

    def bequeath(self, heir: Journal) -> None:
        """Events and records that this journal has not written yet, and will not, are the heir's to write."""
        while heir._heir is not None and (heir.fenced or heir._closed):
            heir = heir._heir
        self._heir = heir
        if self.fenced or self._closed:
            while self._events:
                channel, payload, _ = self._take_event()
                heir.publish(channel, payload)
            heir.inherit(self._records.take())

    def inherit(self, records: Backlog) -> None:
        """Before those of our own: they are older."""
        if records:
            self._records.put_back(records)
            self._wake.set()

    async def close(self) -> None:
        """Write what is left, if it can be, and give the lease up: a successor may take what remains at once.

        When it is cancelled it still lets go: a lease that lives on would keep what is left from everybody.
        """
        try:
            if self._entries:
                await self._beat()  # a Redis that has forgotten them in the meantime gets them again
            await self.flush()
        finally:
            self._closed = True
            await self._bulk.close()
            await cancelled(*self._tasks)
            self._release_waiters()
            if self._heir is not None:
                self.bequeath(self._heir)
            if not self.fenced:
                with contextlib.suppress(RedisError, OSError):
                    await _wait(self._redis.eval(scripts.LEAVE, 0, self._base, self.instance))
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()

    # --- the stream of batches

    async def _write_for_ever(self) -> None:
        """What gathers while one batch is on its way is the next: small when little happens, large when much does."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not (self._sets or self._dels or self._events or self._records):
                self._release_waiters()
                continue
            self._writing = True
            try:
                written = await self._write()
            finally:
                self._writing = False
            if not written:
                self._wake.set()
                await self._back_off()

    async def _back_off(self) -> None:
        """Before Redis is tried again, or until a beat has reached it; short for a flush, which has little time."""
        if self._flushing:
            await asyncio.sleep(RECONNECT_FIRST_SECONDS)
            return
        self._try_now.clear()
        delay = exponential(self._failures, RECONNECT_FIRST_SECONDS, RECONNECT_MOST_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):  # not wait_for, which may swallow a cancellation (before Python 3.12)
                await self._try_now.wait()

    async def _write(self) -> bool:
        """One batch. Returns whether Redis took it; if not, all of it is to be written again."""
        sets, self._sets = self._first_of(self._sets)
        events = self._first_events()
        dels, self._dels = self._dels, {}
        records = self._records.take(MAX_BATCH_BYTES)
        more = bool(self._sets or self._events or self._records)
        waiting, self._written = self._written, []
        self._number += 1
        args: list[Any] = [self._number, len(events)]
        gone = dict(dels)
        for channel, payload, keys in events:
            args += (channel, payload)
            for key in keys:
                if key not in self._entries:  # else another task of that id has taken the entry's place
                    gone[key] = None
        args.append(len(gone))
        args += map(_field, gone)
        args.append(len(sets))
        for eval_id in sets:
            entry = self._entries[eval_id]
            args += (_field(eval_id), entry if isinstance(entry, bytes) else bytes(entry))
        args += records.arguments()
        self._stored.update(sets)
        problem = ""
        try:
            answer = (await self._batch_script(self._keys, args)).decode()
        except Exception as error:  # whatever it is: this stream must not end, for every report waits for it
            problem = self._failed(error)
            answer = ""
        except asyncio.CancelledError:
            self._put_back(sets, dels, events)
            self._records.put_back(records)
            self._written = waiting + self._written
            raise
        if answer == "OK":
            self._counters.events_published += len(events)
            removed = gone.keys() - sets.keys()
            self._stored -= removed - self._sets.keys()
            self._confirmed -= removed
            self._confirmed.update(sets)
            self._succeeded()
        elif answer not in {"", "FENCED", "NOLEASE", "STALE"}:
            # the events and removals were done, entries were not, or could not have been: Redis is out of memory
            self._counters.events_published += len(events)
            events.clear()
            dels.clear()
            problem = self._failed(RedisError(answer), publishes=True)
        if answer == "OK":
            if more:
                # who has got what he waits for does not wait for the rest: under load there may always be some
                late = [(i, future) for i, future in waiting if i is None or i in self._sets]
                waiting = [(i, future) for i, future in waiting if not (i is None or i in self._sets)]
                self._written = late + self._written
                self._wake.set()
            _release(waiting)
            return True
        self._put_back(sets, dels, events)
        self._records.put_back(records)
        self._written = waiting + self._written
        if self._heir is not None:
            self.bequeath(self._heir)
        if answer in {"FENCED", "NOLEASE", "STALE"}:
            self.lease_until = float("-inf")
            await self._beat()
            self._wake.set()  # all of it is still to be written, under the lease that the beat renewed
            if not self.fenced:
                return self.link.ok
        if problem or self.fenced:
            self._release_waiters()
        return False

    def _first_of(self, sets: dict[str, None]) -> tuple[dict[str, None], dict[str, None]]:
        """What goes into one batch, and what has to wait for the next."""
        room = MAX_BATCH_BYTES
        for count, eval_id in enumerate(sets):
            room -= len(self._entries[eval_id])
            if room < 0 and count:
                ids = [*sets]
                return dict.fromkeys(ids[:count]), dict.fromkeys(ids[count:])
        return sets, {}

    def _first_events(self) -> deque[Event]:
        """As `_first_of`."""
        if self._event_bytes <= MAX_BATCH_BYTES:
            events, self._events, self._event_bytes = self._events, deque(), 0
            return events
        events, room = deque(), MAX_BATCH_BYTES
        while self._events and (room > 0 or not events):
            event = self._take_event()
            room -= _size(event)
            events.append(event)
        return events

    def _put_back(self, sets: Iterable[str], dels: Iterable[str], events: Iterable[Event]) -> None:
        self._sets = {eval_id: None for eval_id in [*sets, *self._sets] if eval_id in self._entries}
        self._dels = dict.fromkeys([*dels, *self._dels])
        for event in reversed([*events]):
            self._events.appendleft(event)
            self._event_bytes += _size(event)

    def _release_waiters(self) -> None:
        waiting, self._written = self._written, []
        _release(waiting)

    # --- the lease

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(0 if self._more_to_take else BEAT_SECONDS)
            self._more_to_take = False
            await self._beat()

    async def _beat(self) -> None:
        """Renew the lease; take over what dead instances left."""
        if not self.fenced:
            await self._ask_for_lease(self._clock())
            self._beat_ended = self._clock()

    async def _ask_for_lease(self, asked: float) -> None:
        try:
            room = 0 if self._uncertain else TAKE_BYTES
            settings = (int(LEASE_SECONDS * 1000), FENCED_KEPT_SECONDS, self._number, room)
            answer: list[Any] = await self._beat_script(args=[self._base, self.instance, *settings])
            pairs = dict(zip(answer[3::2], answer[4::2], strict=False))
            if self._uncertain and answer[0] != b"FENCED":
                pairs = await self._held_and_not_ours()
        except Exception as error:
            self._uncertain = True
            self._failed(error)
            return
        self._more_to_take = self._uncertain or sum(map(len, pairs.values())) >= TAKE_BYTES
        self._uncertain = False
        if self._closed:
            return  # what it has taken over just now is the next one's: it stays in Redis, under our name
        if answer[0] == b"FENCED":
            self._become_fenced({_text(field) for field in answer[1:]})
            return
        self.lease_until = asked + LEASE_SECONDS
        self.peers = int(answer[2])
        for instance in answer[1].decode().split():
            log.error(
                "the journal of instance %s was no hash; it is set aside as the Redis key %squarantine:%s",
                *(instance, self._base, instance),
            )
        if answer[0] == b"NEW":
            # the first beat; or Redis has forgotten us, and all that we had written with us
            self._sets = dict.fromkeys(sorted(self._entries, key=lambda key: not key.startswith(PART)))
            self._confirmed.clear()
            self._wake.set()
        if answer[0] in {b"OK", b"NEW"}:
            self._succeeded()
        else:
            self._failed(RedisError(answer[0].decode()), publishes=True)
        await self._take({field: entry for field, entry in pairs.items() if _text(field) not in self._entries})

    async def _held_and_not_ours(self) -> dict[bytes, bytes]:
        """What a beat took over whose answer was lost."""
        ours = set(self._stored)  # before: an entry may go while the answer is on its way
        held: list[bytes] = await _wait(self._redis.hkeys(self._keys[2]))
        fields = [field for field in held if _text(field) not in ours and _text(field) not in self._stored]
        entries = await _wait(self._redis.hmget(self._keys[2], fields)) if fields else []
        return {f: e for f, e in zip(fields, entries, strict=True) if e is not None and _text(f) not in self._stored}

    async def _take(self, found: dict[bytes, bytes]) -> None:
        """What was taken over. A field that is no text no queue has handed out: JSON is text."""
        entries, parts = {}, {}
        for field, entry in found.items():
            key = _text(field)
            if key.startswith(PART):
                parts[key] = entry
            elif key.encode(errors="replace") == field:
                entries[key] = entry
            else:  # it was no text
                await self.quarantine(field, entry)
                with contextlib.suppress(RedisError, OSError):
                    await _wait(self._redis.hdel(self._keys[2], field))
        taken = entries | parts
        self._entries.update(taken)
        self._stored.update(taken)
        self._confirmed.update(taken)
        for key in parts:
            self._parts.setdefault(_owner(key)[1], []).append(key)
        for eval_id in {_owner(key)[1] for key in parts} - self._entries.keys():
            keys = self._parts.pop(eval_id)  # they came to Redis, and their entry did not
            for key in keys:
                del self._entries[key]
            self._remove(keys)
        if entries:
            self._on_recovered(self, entries)

    def _become_fenced(self, taken: set[str]) -> None:
        """`taken`: what the successor found in our journal, and "" with it; empty when nobody knows."""
        if not self.fenced:
            self.fenced = True
            log.warning("instance %s was declared dead and its tasks were taken over", self.instance)
            self._release_waiters()
            seen = taken or self._confirmed
            ours = {i: e for i, e in self._entries.items() if isinstance(e, bytes) and not i.startswith(PART)}
            self._on_fenced(self, {i: e for i, e in ours.items() if i not in seen})

    # --- the link

    def _failed(self, error: Exception, *, publishes: bool = False) -> str:
        self._failures += 1
        self._counters.journal_errors += 1
        refused = isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError)
        reason = LinkReason.AUTHENTICATION_FAILED if refused else LinkReason.CONNECTION_FAILED
        message = f"Redis {_without_password(self.redis_url)}: {error or type(error).__name__}"
        self._set_links(Link(reason, message), Link(LinkReason.CONNECTED) if publishes else Link(reason, message))
        self._release_waiters()
        return message

    def _succeeded(self) -> None:
        self._failures = 0
        if not self.link.ok:
            self._try_now.set()
            self._set_links(Link(LinkReason.CONNECTED), Link(LinkReason.CONNECTED))

    def _set_links(self, link: Link, events_link: Link) -> None:
        changed = (link.reason, events_link.reason) != (self.link.reason, self.events_link.reason)
        self.link, self.events_link = link, events_link
        if changed:
            self._on_link()


def _release(waiting: Iterable[tuple[str | None, asyncio.Future[None]]]) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_result(None)


def _size(event: Event) -> int:
    return len(event[1]) + EVENT_BYTES


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _field(key: str) -> str | bytes:
    return key.encode("utf-8", "surrogateescape") if key.startswith(PART) else key


def _owner(key: str) -> tuple[str, str]:
    """A part's name, and the id whose it is."""
    name, _, eval_id = key.removeprefix(PART).partition(":")
    return name, eval_id


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


async def _wait(answer: Awaitable[Any] | Any) -> Any:
    """redis-py's commands are typed as sync or async at once."""
    return await answer
