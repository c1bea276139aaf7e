"""Whatever happens to Redis and on the way to it: no task's entry is lost, and every event is published.

Several journals of one group on a virtual clock, each with a router that keeps what it is told: it puts entries,
finishes tasks when it may, and lets go of those that a successor has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queueworker.routing.counters import Counters
from queueworker.routing.journal.journal import Journal
from queueworker.routing.limits import Limits
from queueworker.routing.wire.outcome import Event
from tests.support.memory import account
from tests.support.model.redis_model import Link, RedisClient, RedisModel
from tests.support.model.virtual_time import VirtualLoop
from tests.support.properties import SEARCHING, examples

MOMENTS = (0.0, 0.0003, 0.002, 0.03, 0.5, 2.1, 7.0, 20.0)
FAULTS = ("broken", "lost", "late")
ACTIONS = (
    *("nothing", "begin again", *FAULTS, *FAULTS, "refused", "hang", "up", "full", "not full", "empty"),
    *("cut off", "reconnect", "freeze", "freeze", "freeze and fault", "kill", "kill", "join", "close"),
)


@dataclass
class Worker:
    """A journal and the tasks that its router has in flight."""

    world: World
    journal: Journal
    link: Link
    in_flight: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    """Tasks that ended here, whose events it is to publish."""

    def on_recovered(self, found: dict[str, bytes]) -> None:
        self.in_flight |= found.keys()

    def on_fenced(self, lost: set[str]) -> None:
        assert lost <= self.in_flight
        self.in_flight -= lost

    def begin(self, eval_id: str) -> None:
        self.in_flight.add(eval_id)
        self.journal.put(eval_id, b"pulled")

    async def finish(self, eval_id: str) -> None:
        """As a router does: the outcome is durable before the report, and the lease is good."""
        if eval_id not in self.in_flight:
            return
        self.journal.put(eval_id, b"executed")
        await self.journal.durable(eval_id)
        if self.world.loop.time() > self.journal.lease.until:
            await self.journal.lease.verify()
        if eval_id in self.in_flight and not self.link.dead:
            self.in_flight.discard(eval_id)
            self.reported.add(eval_id)
            self.journal.finish(eval_id, Event("evaluation:completed", eval_id.encode()))


class World:
    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.rng = Random(seed)
        self.redis = RedisModel(self.loop.time)
        self.redis.on_publish = lambda _, payload: self.published.add(payload.decode())
        self.published: set[str] = set()
        self.begun: list[str] = []
        self.forgiven: set[str] = set()
        """Tasks that were in no Redis when their router was killed, or in a Redis that was emptied."""
        self.live: list[Worker] = []
        self.dead: list[Worker] = []
        self.limits = Limits(max_takeover_bytes=seed % 3 * 20 + 1, max_batch_bytes=(600, 60, 10**6)[seed % 3])
        self.join()
        self.join()

    def step(self, action: str, which: int, moment: float) -> None:
        worker = self.live[which % len(self.live)]
        self.work()
        match action:
            case "begin again" if worker.reported:
                self.begin(worker, sorted(worker.reported)[which % len(worker.reported)])
            case "broken" | "lost" | "late":
                self.redis.faults.append(action)
            case "refused" | "hang" | "up":
                self.redis.set_mode(action)
            case "full" | "not full":
                self.redis.full = action == "full"
            case "empty":
                self.forgiven |= self.redis.journalled() - self.in_flight()
                self.redis.empty()
            case "cut off" | "reconnect":
                worker.link.cut_off = action == "cut off"
            case "freeze" | "freeze and fault":
                self.freeze(worker)
                if action != "freeze":
                    self.redis.faults.append(FAULTS[which % 3])
            case "kill":
                self.kill(worker)
            case "join" if len(self.live) < 4:
                self.join()
            case "close":
                self.close(worker)
        self.loop.advance(moment)

    def work(self) -> None:
        """Some tasks begin, some go on, some end."""
        for _ in range(self.rng.choice((0, 1, 3))):
            worker = self.rng.choice(self.live)
            self.begin(worker, f"t{len(self.begun)}")
            worker = self.rng.choice(self.live)
            for eval_id in sorted(worker.in_flight)[:2]:
                if self.rng.random() < 0.5:
                    worker.journal.put(eval_id, b"executing")
                else:
                    self.loop.create_task(worker.finish(eval_id))

    def in_flight(self) -> set[str]:
        return set().union(*(worker.in_flight for worker in self.live))

    def begin(self, worker: Worker, eval_id: str) -> None:
        if eval_id not in self.in_flight():
            self.begun.append(eval_id)
            self.published.discard(eval_id)
            worker.begin(eval_id)

    def _worker_of(self, link: Link) -> Worker:
        return next(worker for worker in (*self.live, *self.dead) if worker.link is link)

    def join(self) -> Worker:
        link = Link()
        callbacks: dict[str, Any] = {
            "on_recovered": lambda found: self._worker_of(link).on_recovered(found),
            "on_fenced": lambda lost: self._worker_of(link).on_fenced(lost),
            "on_link": lambda: None,
            "on_room": lambda: None,
            "connect": lambda *_, **__: RedisClient(self.redis, link, self.rng),
        }
        name = f"worker-{len(self.live) + len(self.dead)}"
        journal = Journal(
            *("redis://model", "group", name, Counters()),
            limits=self.limits,
            memory=account(),
            clock=self.loop.time,
            **callbacks,
        )
        worker = Worker(self, journal, link)
        self.live.append(worker)
        self.loop.create_task(journal.start())
        return worker

    def freeze(self, worker: Worker) -> None:
        """Its lease runs out before it can renew it, and others may notice. Its router works on."""
        worker.link.cut_off = True
        self.loop.advance(6.0)
        self.work()
        self.loop.advance(3.0)
        worker.link.cut_off = False

    def kill(self, worker: Worker) -> None:
        worker.link.dead = True
        self._gone(worker)

    def close(self, worker: Worker) -> None:
        """What it could not write goes to the one that comes after it."""
        closing = self.loop.create_task(worker.journal.close())
        self.loop.advance(20.0)
        unwritten = closing.result()
        heir = next((other for other in self.live if other is not worker), None) or self.join()
        heir.journal.inherit(unwritten)
        heir.reported |= {event.payload.decode() for event in unwritten.events}
        self._gone(worker)

    def _gone(self, worker: Worker) -> None:
        self.live.remove(worker)
        self.dead.append(worker)
        if len(self.live) < 2:
            self.join()
        self.forgiven |= {*self.begun} - self.published - self.redis.journalled() - self.in_flight() - self.waiting()

    def waiting(self) -> set[str]:
        """Reported by a router that lives, which will publish it."""
        return set().union(*(worker.reported for worker in self.live))

    def heal_and_account(self) -> None:
        self.redis.set_mode("up")
        self.redis.full = False
        self.redis.faults.clear()
        for worker in self.live:
            worker.link.cut_off = False
        for _ in range(3):
            self.loop.advance(30.0)
            self.check_journals()
            for worker in self.live:
                for eval_id in sorted(worker.in_flight):
                    self.loop.create_task(worker.finish(eval_id))
        self.loop.advance(30.0)
        assert not self.loop.broken, self.loop.broken
        assert not self.in_flight()
        lost = {*self.begun} - self.published - self.forgiven
        assert not lost, f"{sorted(lost)} were lost"
        assert not self.redis.journals(), f"entries of tasks that are done: {self.redis.journals()}"
        for worker in self.live:
            journal = worker.journal
            assert (journal.writable, journal.buffered_events) == (True, 0)
            assert journal.lease.until > self.loop.time()

    def check_journals(self) -> None:
        """When nothing happens, Redis holds what is in flight."""
        held = self.redis.journals()
        for worker in self.live:
            journal = set(held.pop(f"queueworker:{{group}}:journal:{worker.journal.lease.instance.id}", []))
            assert journal == worker.in_flight, (
                f"{worker.journal.lease.instance.id} holds {journal}, not {worker.in_flight}"
            )
        assert not held, f"nobody took over {held}"

    def end(self) -> None:
        for worker in (*self.live, *self.dead):
            worker.link.dead = True
        with contextlib.suppress(BaseException):
            self.loop.cancel_all()
        asyncio.set_event_loop(None)
        self.loop.close()


steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 20), st.sampled_from(MOMENTS)), min_size=3, max_size=30
)


@given(st.integers(0, 2**16), steps)
@settings(max_examples=examples(20), deadline=None, derandomize=not SEARCHING, suppress_health_check=[*HealthCheck])
def test_no_entry_is_lost_and_every_event_is_published(seed: int, steps: list[tuple[str, int, float]]) -> None:
    logging.getLogger("queueworker").propagate = False
    world = World(seed)
    try:
        for step in steps:
            world.step(*step)
        world.heal_and_account()
    finally:
        world.end()
        logging.getLogger("queueworker").propagate = True
