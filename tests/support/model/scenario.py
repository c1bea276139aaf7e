"""Routers in the modelled world, on a virtual clock: starts, kills, tells and stops them, and draws up the account."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any, Self

from queueworker.controller.status import Totals
from queueworker.controller.supervisor import RouterSupervisor
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Endpoint, RouterConfig
from queueworker.routing.limits import Limits
from queueworker.routing.polling import Hold
from queueworker.routing.router import Router
from tests.support.model.platform import ExecutorModel, Wire, World
from tests.support.model.redis_model import Link, RedisClient
from tests.support.model.virtual_time import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GROUP = "default/legacy"
EXECUTORS = 4
# Longer than any task, backoff and lease that is under way when all is well again.
HEALING_SECONDS = 400.0
STOPPING_SECONDS = 60.0


def endpoints(which: Iterable[int] = range(EXECUTORS)) -> list[Endpoint]:
    return [Endpoint(f"executor-{i}", f"http://executor-{i}") for i in sorted(which)]


class Errors(logging.Handler):
    """Keeps what the router itself calls an error, but for the alarm that nothing is pulled for a known reason."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = logging.Formatter().format(record)
        if not (": stalled: " in text and text.endswith(tuple(Hold))):
            self.seen.append(text)


class RecordedRouter(Router):
    """A router that can be killed: its task is known."""

    task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self.task = asyncio.current_task()
        await super().run()


@dataclass
class Running:
    """A process: the router of the object, its successors after moves, and how they reach the world."""

    link: Link
    clients: list[RedisClient]
    config: RouterConfig
    wires: list[Wire] = field(default_factory=list)
    routers: list[RecordedRouter] = field(default_factory=list)
    """All that this process has started; the last one is the current one."""
    ceiling: dict[str, int] = field(default_factory=dict)
    """What may be in flight above the capacity: what was there when it was lowered."""

    def __post_init__(self) -> None:
        self.supervisor: RouterSupervisor

    @property
    def router(self) -> RecordedRouter:
        return self.routers[-1]

    @property
    def wire(self) -> Wire:
        return self.wires[-1]

    def allowed(self, url: str) -> int:
        return max(self.ceiling.get(url, 0), self.config.spec.executors.concurrency or 1)

    def raise_ceiling(self) -> None:
        for executor in self.router.snapshot().executors:
            self.ceiling[executor.url] = max(self.ceiling.get(executor.url, 0), executor.in_flight)

    def settle_ceiling(self) -> None:
        for executor in self.router.snapshot().executors:
            self.ceiling[executor.url] = min(self.ceiling.get(executor.url, 0), executor.in_flight)

    @property
    def held(self) -> set[str]:
        """The tasks that it was handed and has not reported."""
        return set(self.router.in_flight)


class Scenario:
    """`with Scenario() as s`: in the end all is healed and the account must be in order. `spec` is as in the object."""

    def __init__(self, seed: int = 0, **spec: Any) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.rng = Random(seed)
        self.limits = Limits()
        if seed % 2:
            self.limits = replace(self.limits, max_takeover_bytes=1)
        if seed % 3 == 1:
            self.limits = replace(self.limits, max_batch_bytes=600)
        """Some scenarios reach the journal's."""
        self.world = World(self.rng, self.loop.time)
        self.account = self.world.account
        self.errors = Errors()
        logging.getLogger("queueworker").addHandler(self.errors)
        self.live: list[Running] = []
        self.dead: list[Running] = []
        self.takeovers = 0
        """Each may mean that a task is executed, and reported, once more."""
        self.emptied: set[str] = set()
        """What a Redis held, or was about to, when it was emptied."""
        self.attempts = 1
        self.spec: dict[str, Any] = {
            "queue": {"url": "http://queue-a"},
            "executors": {},
            "routing": {},
            "events": {"redisURL": "redis://a"},
        }
        for part, value in spec.items():
            self.spec[part] = self.spec.get(part, {}) | value if isinstance(value, dict) else value
        self.endpoints = endpoints()
        for endpoint in self.endpoints:
            self.world.executors[endpoint.url] = ExecutorModel()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.heal_and_account()
        finally:
            self.close()

    # --- what happens

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def submit(self, *eval_ids: str, queue: str = "a") -> None:
        self.world.queues[f"http://queue-{queue}"].waiting.extend(eval_ids)

    def tasks_take(self, seconds: float) -> None:
        """On every executor."""
        for executor in self.world.executors.values():
            executor.seconds = seconds

    def config(self) -> RouterConfig:
        spec = QueueWorkerSpec.model_validate(self.spec)
        return RouterConfig(GROUP, spec, spec.events.effective_redis_url)

    def start(self) -> Running:
        """One more router, with the spec and the pool of now."""
        link = Link()
        clients: list[RedisClient] = []
        config = self.config()

        def connect(url: str, **_: Any) -> Any:
            return RedisClient(self.world.redis[url], link, self.rng, open=clients)

        running = Running(link, clients, config)

        def make(config: RouterConfig, endpoints: Sequence[Endpoint], **options: Any) -> RecordedRouter:
            wire = Wire(self.world, link, lambda: self.world.redis[config.redis_url])
            wire.members = {endpoint.url for endpoint in self.endpoints}
            wire.allowed = running.allowed
            running.wires.append(wire)
            tools: dict[str, Any] = {"transport": wire, "connect": connect, "clock": self.loop.time}
            rng = Random(self.rng.random())
            router = RecordedRouter(config, endpoints, rng=rng, limits=self.limits, **tools, **options)
            wire.journal_ok = lambda: router.snapshot().journal.ok
            running.routers.append(router)
            return router

        name = f"router-{len(self.live) + len(self.dead)}"
        running.supervisor = RouterSupervisor(name, lambda: None, Totals(), factory=make, clock=self.loop.time)
        self.live.append(running)
        self.drive(running)
        return running

    def drive(self, running: Running) -> None:
        """Tell a process the spec and the pool of now."""

        async def tell() -> None:
            for wire in running.wires:
                wire.members = {endpoint.url for endpoint in self.endpoints}
            running.supervisor.drive(running.config, self.endpoints)

        self.loop.run_until_complete(tell())

    def apply(self, **changed: Any) -> None:
        """Change the spec, and tell every router."""
        for part, value in changed.items():
            self.spec[part] = self.spec.get(part, {}) | value if isinstance(value, dict) else value
        config = self.config()
        self.attempts = max(self.attempts, config.spec.routing.retry.attempts)
        for running in self.live:
            running.raise_ceiling()
            running.config = config
            self.drive(running)
        self.loop.advance(0)

    def set_pool(self, which: Iterable[int]) -> None:
        self.endpoints = endpoints(which)
        for running in self.live:
            self.drive(running)

    def kill(self, running: Running) -> None:
        """As SIGKILL: nothing that it does reaches anybody any more."""
        running.link.dead = True
        elsewhere = set().union(*(other.held for other in self.live if other is not running))
        self.account.lost |= running.held - self.journalled() - elsewhere
        if running.router.snapshot().journal.ok:
            self.events_are_gone(self.emptied | self.account.unjournalled)
        else:
            self.events_are_gone(set(self.account.reported))
        self._gone(running)
        for router in running.routers:
            if router.task is not None:
                router.task.cancel()

    def events_are_gone(self, of: set[str]) -> None:
        """What nobody could write when its router ended."""
        account, journalled = self.account, self.journalled()
        account.lost |= {i for i in of if account.reported[i] and not account.published[i] and i not in journalled}

    def empty_redis(self, url: str) -> None:
        held = set().union(*(running.held for running in self.live))
        journalled = self.world.redis[url].journalled()
        self.account.lost |= journalled - held
        self.emptied |= journalled | held
        self.world.redis[url].empty()

    def stop(self, running: Running, *, final: bool = False, moment: float = 0.0) -> None:
        """Stop it as the operator does, and wait until it has."""
        unwell = running.link.cut_off or any(r.mode != "up" or r.full or r.faults for r in self.world.redis.values())
        stop = self.loop.create_task(running.supervisor.stop(final=final))
        self.loop.advance(moment)
        self.loop.advance(STOPPING_SECONDS)
        if unwell:
            self.events_are_gone(set(self.account.reported))
            held = set().union(*(other.held for other in self.live if other is not running))
            self.account.lost |= self.known() - self.journalled() - held
        must = self.account.must
        ended = all(router.task is None or router.task.done() for router in running.routers)
        must(stop.done() and ended, "a stopped router runs on")
        must(not running.clients, f"a stopped router left {len(running.clients)} Redis clients open")
        self._gone(running)

    def _gone(self, running: Running) -> None:
        self.takeovers += 1
        self.live.remove(running)
        self.dead.append(running)

    def journalled(self) -> set[str]:
        return set().union(*(redis.journalled() for redis in self.world.redis.values()))

    def known(self) -> set[str]:
        """What the queues wait to hear of."""
        return set().union(*(queue.known for queue in self.world.queues.values()))

    # --- what must hold

    def check(self) -> None:
        """Always."""
        assert not self.loop.broken, self.loop.broken
        assert not self.errors.seen, "\n".join(self.errors.seen)
        assert not self.account.violations, "\n".join(self.account.violations)
        for running in self.live:
            running.settle_ceiling()
            check_pool(running)
        for eval_id, count in self.account.executed.items():
            allowed = self.account.handed[eval_id] + self.takeovers
            if self.attempts > 1:
                allowed += self.account.ambiguous[eval_id]
            assert count <= allowed, f"{eval_id} was executed {count} times, {allowed} are allowed"

    def heal(self) -> None:
        """All peers are well again, and routers look for what is left on each Redis."""
        world = self.world
        for queue in world.queues.values():
            queue.mode = "up"
            queue.faults.clear()
        for redis in world.redis.values():
            redis.set_mode("up")
            redis.faults.clear()
            redis.full = False
        for executor in world.executors.values():
            executor.mode = "ok"
        if any(running.link.cut_off for running in self.live):
            self.takeovers += 1
        for running in self.live:
            running.link.cut_off = False
        self.set_pool(range(EXECUTORS))
        for name in "ba":
            self.apply(
                suspend=False,
                migration={"celeryPercent": 50},
                queue={"url": f"http://queue-{name}"},
                events={"redisURL": f"redis://{name}"},
            )
            self.loop.advance(HEALING_SECONDS)

    def heal_and_account(self) -> None:
        """In the end."""
        self.heal()
        self.draw_up_account()

    def draw_up_account(self) -> None:
        """What must hold once all is well and every task had the time to end."""
        self.check()
        account = self.account
        assert not any(queue.waiting for queue in self.world.queues.values()), "tasks wait, and nobody pulls them"
        unreported = self.known() - account.lost
        assert not unreported, f"{sorted(unreported)} were never reported"
        for eval_id, count in account.reported.items():
            assert 1 <= count <= account.handed[eval_id], f"{eval_id} was reported {count} times"
        for eval_id, count in account.second_reports.items():
            allowed = self.takeovers + account.unanswered_reports[eval_id] + account.handed[eval_id] - 1
            if eval_id not in account.forgotten:
                assert count <= allowed, f"{eval_id} was reported {count} times more than the queue wanted"
        unpublished = {i for i in account.reported if not account.published[i]} - account.lost
        assert not unpublished, f"{sorted(unpublished)} were never published"
        for url, redis in self.world.redis.items():
            assert not redis.journals(), f"{url} holds entries of tasks that are done: {redis.journals()}"
        for running in self.live:
            check_at_rest(running)

    def close(self) -> None:
        logging.getLogger("queueworker").removeHandler(self.errors)
        for running in (*self.live, *self.dead):
            running.link.dead = True
        with contextlib.suppress(BaseException):
            self.loop.cancel_all()
        asyncio.set_event_loop(None)
        self.loop.close()


def check_pool(running: Running) -> None:
    """The pool's own books."""
    for executor in running.router.snapshot().executors:
        assert 0 <= executor.in_flight <= running.allowed(executor.url), f"{executor.in_flight} on {executor.name}"
        assert running.wire.in_flight[executor.url] <= executor.in_flight


def check_at_rest(running: Running) -> None:
    """Nothing is held by a router that has nothing to do."""
    snapshot = running.router.snapshot()
    assert snapshot.in_flight == 0, f"in flight in the end: {sorted(running.held)}"
    assert [e.in_flight for e in snapshot.executors] == [0] * EXECUTORS
    assert all(e.healthy for e in snapshot.executors)
    assert snapshot.journal.ok
    assert snapshot.queue.ok
    assert not snapshot.stalled
    assert snapshot.events_buffered == 0
    assert len(running.clients) <= 2, f"{len(running.clients)} Redis clients are open"
