"""What a dead router left: where each of its tasks was, so that a case can say what may happen to them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Redis

from tests.support.faults.ledger import TAKEN
from tests.support.faults.redis_proxy import RedisProxy, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.support.faults.redis_proxy import Point
    from tests.support.faults.rig import Rig
    from tests.support.worker_processes import WorkerProcess

WINDOW = "tasks that the router had pulled and not yet written to the journal"
AMBIGUOUS = "tasks that were executing when the router died: `recovery` is Retry"
QUIET_SECONDS = 1.0
"""After a death: time for the queue and the executors to act on what was sent to them."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a dead router left, by id."""

    unjournaled: frozenset[str] = frozenset()
    """Handed out to it, and in no journal: lost with it."""
    journal: Mapping[str, str] = field(default_factory=dict)
    """State by id, as Redis holds it."""
    taken: frozenset[str] = frozenset()
    """In the journal, although the queue has their reports."""
    unheard: frozenset[str] = frozenset()
    """Reported and in no journal, and their events were not received: those died with the router."""

    def in_state(self, *states: str) -> frozenset[str]:
        return frozenset(eval_id for eval_id, state in self.journal.items() if state in states)

    def exceptions(self, *, without_journal: bool = False) -> dict[str, Any]:
        """What the account has to allow. `without_journal`: the journal could not be written for a while before."""
        early = self.taken - self.in_state("executed")
        assert without_journal or not early, f"reported before the journal had their outcome: {sorted(early)}"
        again = self.in_state("executing", *(["pulled"] if without_journal else []))
        return {
            "unjournaled": self.unjournaled,
            "lost_why": WINDOW if self.unjournaled else "",
            "may_run_twice": again,
            "twice_why": AMBIGUOUS if again else "",
            "told_again": self.taken,
            "recovering": self.journal.keys(),
            "published_elsewhere": self.unheard if without_journal else frozenset(),
        }


@contextlib.asynccontextmanager
async def watched(rig: Rig) -> AsyncIterator[RedisProxy]:
    """A proxy to Redis for one router, which sees its journal."""
    async with RedisProxy(rig.redis.port) as proxy:
        yield proxy


async def kill_at(rig: Rig, worker: WorkerProcess, point: Point) -> None:
    """Wait until the point has killed the worker."""
    await rig.until(lambda: point.reached, f"the router {point.moment} it writes {point.write}")
    await rig.kill_worker(worker)


async def left_by(rig: Rig, *ways: RedisProxy) -> Left:
    """What dead routers left, each of which used one of these proxies. No router may be pulling now."""
    await asyncio.sleep(QUIET_SECONDS)
    journal = await in_journals(rig)
    written = journal.keys() | frozenset[str]().union(*(way.written for way in ways))
    taken = rig.ledger.ids(*TAKEN)
    return Left(
        unjournaled=frozenset(rig.ledger.ids("handed-out") - written - taken),
        journal=journal,
        taken=frozenset(journal.keys() & taken),
        unheard=frozenset(taken - journal.keys() - rig.events.by_id().keys()),
    )


async def in_journals(rig: Rig, group: str = "") -> dict[str, str]:
    """State by id, of the journals in Redis whose group begins so."""
    found = {}
    async with Redis.from_url(rig.redis.url) as redis:
        async for key in redis.scan_iter(f"queueworker:{{{group}*:journal:*", _type="HASH"):
            for eval_id, entry in cast("dict[bytes, bytes]", await redis.hgetall(key)).items():
                found[eval_id.decode()] = state_of(entry)
    return found
