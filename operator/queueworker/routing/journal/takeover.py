"""Entries of dead instances, read once a heartbeat has moved them into our journal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from queueworker.routing.backoff import exponential
from queueworker.routing.journal import old_parts, scripts
from queueworker.routing.journal.redis_client import Client, answer_of, is_list

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.journal.lease import Instance, Lease
    from queueworker.routing.journal.old_parts import InParts
    from queueworker.routing.journal.takeover_room import TakeoverRoom
    from queueworker.routing.journal.write_buffer import WriteBuffer
    from queueworker.routing.limits import JournalTimes

log = logging.getLogger(__name__)


class Takeover:
    """Finds in our journal the entries that we did not write, and hands them to `on_recovered`.

    They stay where they are until they are read, so a lost answer, or a slow one, loses nothing. Reading takes its
    time, which heartbeats do not have.
    """

    def __init__(
        self,
        redis: Client,
        lease: Lease,
        room: TakeoverRoom,
        buffer: WriteBuffer,
        *,
        times: JournalTimes,
        on_recovered: Callable[[dict[str, bytes]], None],
    ) -> None:
        self._redis = redis
        self._script = redis.exclusive_script(scripts.READ, is_list)
        self._join_script = redis.exclusive_script(old_parts.JOIN)
        self._quarantine_key = f"{lease.instance.base}quarantine"
        self._lease = lease
        self._room = room
        self._buffer = buffer
        self._times = times
        self._on_recovered = on_recovered
        self._failures = 0
        self._ended = False

    async def run(self) -> None:
        """Read whatever heartbeats move, until cancelled."""
        while not self._ended:
            await self._room.unread.wait()
            if not await self.read():
                await asyncio.sleep(exponential(self._failures, self._times.first_retry, self._times.max_retry))

    def end(self) -> None:
        """Adopt nothing any more: whatever is not read yet is for others."""
        self._ended = True

    async def read_if_any(self) -> None:
        if self._room.unread.is_set():
            await self.read()

    async def read(self) -> bool:
        """Read what heartbeats have moved. Returns whether it was read; if not, it is to be read again."""
        instance = self._lease.instance
        try:
            found = await self._read(instance)
            # If the instance is another, a rival has our journal by now, and these entries.
            if instance is self._lease.instance and not self._ended:
                self._room.read()
                self._adopt(found)
        except Exception as error:  # whatever it is: takeovers must not end
            self._failures += 1
            if self._failures == 1:
                known = isinstance(error, RedisError | OSError)
                log.warning("entries of a dead instance are not read yet: %r", error, exc_info=not known)
            return False
        self._failures = 0
        return True

    def _adopt(self, found: dict[str, bytes]) -> None:
        new = self._buffer.adopt(found)
        if new:
            self._on_recovered(new)

    async def quarantine(self, eval_id: str | bytes, entry: bytes) -> None:
        """Set an entry that cannot be read aside, for a person to look at."""
        with contextlib.suppress(RedisError, OSError):
            await answer_of(self._redis.hset(self._quarantine_key, mapping={eval_id: entry}))
            await answer_of(self._redis.expire(self._quarantine_key, scripts.QUARANTINE_SECONDS))
        log.error(
            "journal entry of %s cannot be read; it is set aside in the Redis hash %s", eval_id, self._quarantine_key
        )

    async def _read(self, instance: Instance) -> dict[str, bytes]:
        found = await self._not_ours(instance)
        for parts in old_parts.split_off(found):
            await self._join(instance, parts, found)
        entries = {}
        for field, entry in found.items():
            eval_id = _text(field)
            if eval_id.encode() == field:
                entries[eval_id] = entry
            else:  # no queue handed this id out: JSON is text
                await self.quarantine(field, entry)
                await answer_of(self._redis.hdel(instance.journal_key, field))
        return entries

    async def _not_ours(self, instance: Instance) -> dict[bytes, bytes]:
        """Entries by field.

        While the answers are on their way we may write an entry, which is ours by then, or remove one, which has no
        value by then.
        """
        key, ours = [instance.journal_key], self._buffer.may_be_stored
        await self._script.connect(self._times.operation)
        held = await self._script.run(key, [], self._times.operation)
        sizes = {field: size for field, size in zip(held[::2], held[1::2], strict=True) if not ours(_text(field))}
        if not sizes:
            return {}
        entries = await self._script.run(key, [*sizes], self._times.transfer(sum(sizes.values())))
        found = zip(sizes, entries, strict=True)
        return {field: entry for field, entry in found if entry is not None and not ours(_text(field))}

    async def _join(self, instance: Instance, parts: InParts, found: dict[bytes, bytes]) -> None:
        """Write an entry in parts as one, and put it in its place in what was found."""
        joined = parts.join(found.get(parts.eval_id))
        args = [parts.eval_id, joined or b"", *parts.fields]
        await self._join_script.connect(self._times.operation)
        keys = [instance.lease_key, instance.journal_key]
        if not await self._join_script.run(keys, args, self._times.transfer(len(joined or b""))):
            raise RedisError("the lease was lost")
        if joined is not None:
            found[parts.eval_id] = joined


def _text(field: bytes) -> str:
    return field.decode(errors="replace")
