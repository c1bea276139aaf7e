"""A proxy between one router and Redis that reads what the router writes, and acts between two moments of one write.

It knows the journal's scripts by their digests. So a test can kill a router exactly before Redis gets a write, or after
Redis took it and before the router hears of it, with nothing in the product that exists for the test.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import hiredis
import orjson

from queueworker.routing.journal.scripts import BATCH, LEASE, READ, WRITTEN
from tests.support.faults.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_DIGESTS = {hashlib.sha1(script.encode()).hexdigest().encode(): script for script in (BATCH, LEASE, READ)}


def _script_of(words: list[bytes]) -> str | None:
    """The script that a command runs: by its digest, or sent whole to a Redis that does not know it."""
    match words[0].upper():
        case b"EVALSHA":
            return _DIGESTS.get(words[1])
        case b"EVAL":
            return _DIGESTS.get(hashlib.sha1(words[1]).hexdigest().encode())
    return None


_READ_BYTES = 1 << 16


class Write(StrEnum):
    """A write of a router: an entry in one of its three states, the removal of an entry, its lease."""

    PULLED = "pulled"
    EXECUTING = "executing"
    EXECUTED = "executed"
    REMOVAL = "removal"
    HEARTBEAT = "heartbeat"
    """Renews the lease, and moves entries of the dead into the router's journal."""


class Moment(StrEnum):
    BEFORE = "before"
    """Redis never gets the write."""
    AFTER = "after"
    """Redis has done the write, and the router never hears of it."""


@dataclass(frozen=True)
class Batch:
    """One call of the journal's batch script: `sets` is eval_id → state."""

    removals: tuple[str, ...]
    sets: dict[str, str]

    def of(self, write: Write) -> frozenset[str]:
        """The ids that it writes so."""
        if write is Write.REMOVAL:
            return frozenset(self.removals)
        return frozenset(eval_id for eval_id, state in self.sets.items() if state == write.value)


def parse_batch(arguments: list[bytes]) -> Batch:
    """From the script's ARGV: number, then events, removals and entries, each after its count."""
    left = deque(arguments[1:])
    for _ in range(2 * int(left.popleft())):
        left.popleft()
    removals = tuple(left.popleft().decode() for _ in range(int(left.popleft())))
    sets = {}
    for _ in range(int(left.popleft())):
        eval_id, entry = left.popleft().decode(), left.popleft()
        sets[eval_id] = state_of(entry)
    return Batch(removals, sets)


@dataclass
class Point:
    """A moment of a write at which to act, once. `ids` are those of the write, when it is `reached`."""

    write: Write
    moment: Moment
    act: Callable[[], None]
    among: Collection[str] | None
    resets: bool
    reached: bool = False
    ids: frozenset[str] = frozenset()


@dataclass
class _Command:
    """A command that Redis has not answered yet."""

    batch: Batch | None = None
    heartbeat: bool = False
    fields: tuple[bytes, ...] = ()
    """Of the router's journal, to be read: these entries were taken over."""
    point: Point | None = None


class RedisProxy(Proxy):
    """One router's way to Redis on 127.0.0.1; `redis_url` is what the router is given."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port))
        self.held: dict[str, str] = {}
        """State by eval_id, as Redis holds this router's journal."""
        self.written: set[str] = set()
        """Ids of all entries that this router has ever written."""
        self._points: list[Point] = []

    @property
    def redis_url(self) -> str:
        return f"redis://{self.netloc}"

    def at(
        self,
        write: Write,
        moment: Moment,
        act: Callable[[], None],
        *,
        among: Collection[str] | None = None,
        resets: bool = True,
    ) -> Point:
        """Call `act` at that moment of the next such write, of one of these ids if some are given.

        A heartbeat counts AFTER only if it took something over. The connection is reset unless `resets` is false.
        """
        point = Point(write, moment, act, among, resets)
        self._points.append(point)
        return point

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        pending: deque[_Command] = deque()
        ways = [
            asyncio.create_task(self._commands(reader, upstream, pending)),
            asyncio.create_task(self._answers(upstream_reader, writer, pending)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _commands(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, pending: deque[_Command]
    ) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(_READ_BYTES):
            await self._pass()
            parser.feed(data)
            while (words := parser.gets()) is not False:
                command = self._recognise(words)
                if command.point is not None and command.point.moment is Moment.BEFORE:
                    self._reach(command.point)
                pending.append(command)
                server.write(hiredis.pack_command(tuple(words)))
            await server.drain()

    async def _answers(
        self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, pending: deque[_Command]
    ) -> None:
        parser = hiredis.Reader()
        while data := await server.read(_READ_BYTES):
            await self._pass()
            parser.feed(data)
            while (answer := parser.gets()) is not False:
                # A subscription gets more answers than commands were sent; no script is called there.
                self._answered(pending.popleft() if pending else _Command(), answer)
            writer.write(data)
            await writer.drain()

    def _recognise(self, words: list[bytes]) -> _Command:
        script = _script_of(words)
        if script is None:
            return _Command()
        arguments = words[3 + int(words[2]) :]
        if script is READ:
            return _Command(fields=tuple(arguments))
        batch = parse_batch(arguments) if script is BATCH else None
        for point in self._points:
            ids = batch.of(point.write) if batch is not None else frozenset()
            if point.among is not None:
                ids &= frozenset(point.among)
            if ids or (batch is None and point.write is Write.HEARTBEAT):
                point.ids = ids
                return _Command(batch, heartbeat=batch is None, point=point)
        return _Command(batch, heartbeat=batch is None)

    def _answered(self, command: _Command, answer: Any) -> None:
        if isinstance(answer, hiredis.ReplyError):  # NOSCRIPT: the script is sent and called again.
            return
        if command.batch is not None and answer == WRITTEN:
            for eval_id in command.batch.removals:
                self.held.pop(eval_id, None)
            self.held.update(command.batch.sets)
            self.written.update(command.batch.sets)
        point = command.point
        if command.fields:
            read = zip(command.fields, answer, strict=True)
            self.held.update({eval_id.decode(errors="replace"): state_of(entry) for eval_id, entry in read if entry})
        if command.heartbeat and answer[0] != b"FENCED" and not answer[3]:
            return  # It moved nothing.
        if point is not None:
            self._reach(point)

    def _reach(self, point: Point) -> None:
        """Act, once."""
        if point in self._points:
            self._points.remove(point)
            point.act()
            point.reached = True
        if point.resets:
            raise ConnectionResetError(f"killed {point.moment} {point.write}")


def state_of(entry: bytes) -> str:
    """Of a journal's entry."""
    try:
        return str(orjson.loads(entry)["state"])
    except (orjson.JSONDecodeError, TypeError, KeyError):  # It was damaged by a test.
        return "unreadable"
