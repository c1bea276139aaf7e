"""What happened in a case: acts that the services recorded, and events that a subscriber received."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path


class _Event(msgspec.Struct):
    """No more is read of a large one: the proxies are in this process and must not wait for it."""

    eval_id: str
    error: str = ""


_event = msgspec.json.Decoder(_Event)

TAKEN = ("completed", "failed")
"""A report that the queue took."""


@dataclass(frozen=True, slots=True)
class Act:
    """`what`: handed-out, completed, failed or unknown (the queue), started or refused (an executor).

    `at` is in seconds on the machine's monotonic clock.
    """

    at: float
    what: str
    eval_id: str
    by: str


class Ledger:
    """The acts that the services append to the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._acts: list[Act] = []

    @property
    def acts(self) -> list[Act]:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read += len(whole)
            self._acts += [Act(**orjson.loads(line)) for line in whole.splitlines()]
        return self._acts

    def ids(self, *what: str) -> set[str]:
        return {act.eval_id for act in self.acts if act.what in what}

    def by_id(self, *what: str) -> dict[str, list[Act]]:
        found: dict[str, list[Act]] = defaultdict(list)
        for act in self.acts:
            if act.what in what:
                found[act.eval_id].append(act)
        return found

    def reports(self) -> int:
        """Reports that reached the queue, of known and of unknown ids."""
        return sum(act.what in {*TAKEN, "unknown"} for act in self.acts)


class Events:
    """A subscriber of the outcome channels, like the storage worker. It subscribes again after an outage."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self.seen: list[tuple[str, str]] = []
        """Channel (without `evaluation:`) and eval_id, in the order of arrival."""
        self.errors: dict[str, str] = {}
        """By eval_id, of `evaluation:failed`."""
        self._subscribed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def subscribed(self) -> None:
        """Return when it is subscribed: after a restart of Redis, before the router may publish again."""
        await self._subscribed.wait()

    def by_id(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for channel, eval_id in self.seen:
            found[eval_id].append(channel)
        return found

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen())
        await self.subscribed()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with Redis.from_url(self._url) as redis, redis.pubsub() as pubsub:
                    await pubsub.psubscribe("evaluation:*")
                    async for message in pubsub.listen():
                        if message["type"] == "psubscribe":
                            self._subscribed.set()
                        else:
                            self._take(message["channel"].decode().removeprefix("evaluation:"), message["data"])
            self._subscribed.clear()
            await asyncio.sleep(0.02)

    def _take(self, channel: str, data: bytes) -> None:
        event = _event.decode(data)
        self.seen.append((channel, event.eval_id))
        if channel == "failed":
            self.errors[event.eval_id] = event.error


class Timeline:
    """When the fault ended, and how long routing took to recover."""

    def __init__(self) -> None:
        self.ended_at: float | None = None

    def end(self) -> None:
        self.ended_at = time.monotonic()

    def recovery(self, acts: Iterable[Act], of: Collection[str] = ()) -> float | None:
        """Seconds from the fault's end to the next report that the queue took, or to the last one of these ids.

        None when there was none.
        """
        assert self.ended_at is not None, "the case made no fault"
        after = [act for act in acts if act.what in TAKEN and act.at > self.ended_at]
        theirs = [act.at for act in after if act.eval_id in of]
        if theirs:
            return max(theirs) - self.ended_at
        return min(act.at for act in after) - self.ended_at if after else None
