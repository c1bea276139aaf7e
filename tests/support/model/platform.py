"""Queues and executors as a router sees them through its transport, with faults on demand, and every task's account."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from queueworker.routing.http.transport import Answer, Broken, NotSent, TimedOut, TransportError
from tests.support.foreign_answers import FOREIGN
from tests.support.model.redis_model import Link, RedisModel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

EXECUTED_STATUS = {"ok": "completed", "failed": "failed"}
# A pull that was under way for longer than this may be given up at the end of a drain.
PULL_PATIENCE_SECONDS = 2.9
FOR_EVER = 1e6
UNKNOWN_ID = Answer(404, b'{"detail": "Task not found"}')
# What a gateway in front of a peer answers by itself; the request does not reach the peer.
GATEWAY = {name: Answer(answer.status, answer.body) for name, answer in FOREIGN.items()} | {
    "204-empty": Answer(204, b""),
    "501-empty": Answer(501, b""),
}
# Those of which a router cannot know whether the request reached an executor.
AMBIGUOUS = {name for name in GATEWAY if name[:3] in {"200", "204", "502", "504"}}
# What other JSON libraries write, and strict readers refuse or change.
ODDITIES = (
    b"",
    b', "note": "half an emoji: \\ud83d"',
    b', "score": NaN',
    b', "seed": 123456789012345678901234567890',
    b', "price": 1.10, "price": 1.10',
)


@dataclass
class QueueModel:
    """`mode` is up, refused, hang, or the status that it answers everything with. `faults` as for Redis, 413, and what
    a gateway answers: a name in `GATEWAY`, or `gateway` for any of them.
    """

    mode: str = "up"
    waiting: deque[str] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    faults: deque[str] = field(default_factory=deque)


# An asynchronous executor: it publishes the outcome; the event is lost; somebody kills the task there.
ASYNC = ("async", "async-lost", "async-killed")


@dataclass
class ExecutorModel:
    """`mode`: ok, failed, a status, a name in `GATEWAY` or `ASYNC`, `gateway` (any answer of it), or what else
    `World.execute` knows.
    """

    mode: str = "ok"
    seconds: float = 0.05
    has_logs: bool = True
    containers: dict[str, int | None] = field(default_factory=dict)
    """Exit codes of asynchronous tasks by eval_id; None while a task runs."""


@dataclass
class Account:
    """What happened to each id, and what was seen that must not be."""

    handed: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    forgotten: set[str] = field(default_factory=set)
    """By a queue that restarted."""
    lost: set[str] = field(default_factory=set)
    """In the documented window: the answer to the pull never came, or the router died before its first write."""
    unjournalled: set[str] = field(default_factory=set)
    """Reported while the router's Redis did not answer: until it is written, the event is in the router only."""
    executed: Counter[str] = field(default_factory=Counter)
    executed_late: set[str] = field(default_factory=set)
    """Tasks that an executor got after the queue had their report."""
    ambiguous: Counter[str] = field(default_factory=Counter)
    """Attempts that ended with no answer, a 5xx or no result, or whose outcome is published later."""
    published: Counter[str] = field(default_factory=Counter)
    second_reports: Counter[str] = field(default_factory=Counter)
    """Reports of an id that the queue did not know."""
    unanswered_reports: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def must(self, holds: object, text: str) -> None:
        if not holds:
            self.violations.append(text)


class World:
    def __init__(self, rng: Random, clock: Callable[[], float]) -> None:
        self.rng = rng
        self.clock = clock
        self.account = Account()
        self.queues: dict[str, QueueModel] = {"http://queue-a": QueueModel(), "http://queue-b": QueueModel()}
        self.executors: dict[str, ExecutorModel] = {}
        self.redis: dict[str, RedisModel] = {}
        for url in ("redis://a", "redis://b"):
            self.redis[url] = RedisModel(clock)
            self.redis[url].on_publish = self._published
        self._by_executor: set[str] = set()
        """Outcomes that an executor has published itself."""
        self._completed: set[str] = set()
        """Tasks that an executor has run to a good end."""

    def latency(self) -> float:
        return self.rng.choice((0, 0.0005, 0.005, 0.3))

    def written(self, message: dict[str, Any]) -> bytes:
        """The message as one of many JSON libraries writes it."""
        return orjson.dumps(message)[:-1] + self.rng.choice(ODDITIES) + b"}"

    def _published(self, channel: str, payload: bytes) -> None:
        data = json.loads(payload)
        eval_id, account = data["eval_id"], self.account
        if channel == "evaluation:running":
            return
        account.published[eval_id] += 1
        account.must(
            account.reported[eval_id] or eval_id in account.forgotten or eval_id in self._by_executor,
            f"{channel} of {eval_id} was published before the queue had its report",
        )
        if eval_id not in self._by_executor:
            orjson.loads(payload)

    # --- the queue

    async def next_task(self, queue: QueueModel, link: Link) -> Answer:
        if queue.mode != "up":
            return await self._unwell(queue.mode)
        fault = self._next_fault(queue)
        if fault in GATEWAY:
            return GATEWAY[fault]
        if fault == "broken":
            raise Broken("the connection broke before anything was popped")
        if not queue.waiting:
            return Answer(200, b"null")
        eval_id = queue.waiting.popleft()
        account = self.account
        account.handed[eval_id] += 1
        queue.known.add(eval_id)
        arrived = False
        started = self.clock()
        try:
            if fault == "lost":
                raise Broken("the answer was lost")
            await asyncio.sleep(self.latency())
            arrived = not link.dead
            return Answer(200, self.written({"eval_id": eval_id, "code": eval_id, "timeout": self.rng.choice((3, -5))}))
        except asyncio.CancelledError:
            patient = link.dead or self.clock() - started >= PULL_PATIENCE_SECONDS
            account.must(patient, f"the pull that popped {eval_id} was cancelled")
            raise
        finally:
            if not arrived:
                account.lost.add(eval_id)

    def _next_fault(self, queue: QueueModel) -> str:
        return self._gateway(queue.faults.popleft()) if queue.faults else ""

    def _gateway(self, fault: str) -> str:
        """A name in `GATEWAY` in place of `gateway`; anything else stays as it is."""
        return self.rng.choice(list(GATEWAY)) if fault == "gateway" else fault

    async def report(self, queue: QueueModel, eval_id: str, verb: str, link: Link) -> Answer:
        if queue.mode == "404":  # it says that it knows no such id: so it is
            self.account.forgotten.add(eval_id)
            queue.known.discard(eval_id)
            return UNKNOWN_ID
        if queue.mode != "up":
            return await self._unwell(queue.mode)
        fault = self._next_fault(queue)
        if fault in GATEWAY:
            return GATEWAY[fault]
        if fault == "broken":
            raise Broken("the connection broke before the report was taken")
        if fault == "413" and verb == "complete":
            return Answer(413, b"too large")
        account = self.account
        true = verb == "fail" or eval_id in self._completed
        account.must(true, f"{eval_id} was reported as complete, and no executor has completed it")
        if eval_id in queue.known:
            queue.known.discard(eval_id)
            account.reported[eval_id] += 1
            said = b"completed" if verb == "complete" else b"failed"
            answer = Answer(200, b'{"status": "%b"}' % said)
        else:
            account.second_reports[eval_id] += 1
            answer = (
                Answer(404, b'{"detail": "Task not found"}')
                if verb == "complete"
                else Answer(200, b'{"status":"not_found"}')
            )
        arrived = False
        try:
            if fault == "lost":
                raise Broken("the answer was lost")
            await asyncio.sleep(self.latency())
            arrived = not link.dead
            return answer
        finally:
            if not arrived:
                account.unanswered_reports[eval_id] += 1

    async def status(self, queue: QueueModel) -> Answer:
        if queue.mode != "up":
            return await self._unwell(queue.mode)
        return Answer(200, b'{"queued": %d}' % len(queue.waiting))

    async def look_up(self, queue: QueueModel, eval_id: str) -> Answer:
        if queue.mode != "up":
            return await self._unwell(queue.mode)
        known = eval_id in queue.known
        return Answer(200, b'{"status": "running"}') if known else UNKNOWN_ID

    async def _unwell(self, mode: str) -> Answer:
        if mode == "refused":
            raise NotSent("connection refused")
        if mode == "hang":
            await asyncio.sleep(FOR_EVER)
        return Answer(int(mode), b"unwell")

    # --- executors

    async def health(self, executor: ExecutorModel) -> Answer:
        if executor.mode == "refused":
            raise NotSent("connection refused")
        if executor.mode in {"frozen", "black-hole"}:
            await asyncio.sleep(FOR_EVER)
        return Answer(503 if executor.mode == "sick" else 200, b"{}")

    async def execute(self, executor: ExecutorModel, eval_id: str, redis: RedisModel) -> Answer:
        account, mode = self.account, self._gateway(executor.mode)
        if mode in {"refused", "black-hole"}:
            raise NotSent("connection refused")
        if mode in GATEWAY:
            account.ambiguous[eval_id] += mode in AMBIGUOUS
            return GATEWAY[mode]
        if mode in {"429", "503"}:
            return Answer(int(mode), b"busy")
        account.executed[eval_id] += 1
        if account.reported[eval_id]:
            account.executed_late.add(eval_id)
        answered = False
        try:
            if mode == "frozen":
                await asyncio.sleep(FOR_EVER)
            await asyncio.sleep(executor.seconds)
            if mode == "reset":
                raise Broken("connection reset")
            if mode == "500":
                return Answer(500, b"oops")
            if mode == "gateway-504-behind":
                return Answer(504, b"<html>")
            if mode == "no-json":
                return Answer(200, b"oops")
            if mode == "stranger":
                return Answer(200, b'{"eval_id": "somebody-else", "status": "completed"}')
            if mode == "no-status":
                return Answer(200, orjson.dumps({"eval_id": eval_id, "output": "1"}))
            answered = mode not in ASYNC  # nobody may hear how it ends
            if mode == "400":
                return Answer(400, b"no")
            result = {"eval_id": eval_id, "status": EXECUTED_STATUS.get(mode, "completed"), "error": "it failed"}
            if mode in ASYNC:
                executor.containers[eval_id] = None
                loop = asyncio.get_running_loop()
                loop.call_later(executor.seconds, self._end_async, executor, mode, eval_id, redis)
                result["status"] = "running"
            elif result["status"] == "completed":
                self._completed.add(eval_id)
            return Answer(200, self.written(result))
        finally:
            if not answered:
                account.ambiguous[eval_id] += 1

    def _end_async(self, executor: ExecutorModel, mode: str, eval_id: str, redis: RedisModel) -> None:
        if mode == "async-killed":
            executor.containers.pop(eval_id, None)
            return
        executor.containers[eval_id] = 0
        self._completed.add(eval_id)
        if redis.mode == "up" and mode == "async":
            self._by_executor.add(eval_id)
            payload = {"eval_id": eval_id, "status": "completed", "output": "1", "error": "", "exit_code": 0}
            redis.publish(b"evaluation:completed", self.written(payload))

    async def logs(self, executor: ExecutorModel, eval_id: str) -> Answer:
        mode = self._gateway(executor.mode)
        if mode == "refused":
            raise NotSent("connection refused")
        if mode in {"frozen", "black-hole"}:
            await asyncio.sleep(FOR_EVER)
        if mode in GATEWAY:
            return GATEWAY[mode]
        if not executor.has_logs:
            return Answer(404, b'{"detail": "Not Found"}')
        known = eval_id in executor.containers
        code = executor.containers.get(eval_id)
        error = "" if known else "Container not found"
        logs = {"eval_id": eval_id, "output": "1", "error": error, "is_running": known and code is None}
        return Answer(200, self.written(logs | {"exit_code": code}))


class Wire:
    """One router's transport, and what must hold of everything that it sends."""

    def __init__(self, world: World, link: Link, redis: Callable[[], RedisModel]) -> None:
        self._world = world
        self._link = link
        self._redis = redis
        self.max_age = 1.0
        self.members: set[str] = set()
        """The executors that the router was told last."""
        self.allowed: Callable[[str], int] = lambda url: 0
        """How many tasks may be in flight on an executor now."""
        self.journal_ok: Callable[[], bool] = lambda: True
        """Whether the router's journal can be written."""
        self.in_flight: Counter[str] = Counter()
        self.last_good: dict[str, float] = {}
        self.checks: Counter[str] = Counter()
        """Health checks that were begun, by executor."""
        self.open_checks: Counter[str] = Counter()
        """Those that wait for their answer."""
        self.closed = False

    async def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Answer:
        world = self._world
        base, path = self._split(url)
        if path == "/tasks/next":
            return await self._exchange(timeout, lambda: world.next_task(world.queues[base], self._link))
        if path == "/status":
            return await self._exchange(timeout, lambda: world.status(world.queues[base]))
        if path.startswith("/tasks/"):
            eval_id = unquote(path.removeprefix("/tasks/"))
            return await self._exchange(timeout, lambda: world.look_up(world.queues[base], eval_id))
        if path == "/capacity":
            return Answer(404, b"")
        if path.startswith("/logs/"):
            eval_id = unquote(path.removeprefix("/logs/"))
            return await self._exchange(timeout, lambda: world.logs(world.executors[base], eval_id))
        self.checks[base] += 1
        self.open_checks[base] += 1
        try:
            answer = await self._exchange(timeout, lambda: world.health(world.executors[base]))
        finally:
            self.open_checks[base] -= 1
        if answer.status == 200:
            self.last_good[base] = world.clock()
        return answer

    async def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Answer:
        world = self._world
        base, path = self._split(url)
        if base in world.queues:
            _, _, quoted, verb = path.split("/")
            orjson.loads(body)
            queue, eval_id = world.queues[base], unquote(quoted)
            if not self.journal_ok():
                world.account.unjournalled.add(eval_id)
            return await self._exchange(timeout, lambda: world.report(queue, eval_id, verb, self._link))
        eval_id = orjson.loads(body)["eval_id"]
        if not self._link.dead:
            self._check(base, eval_id)
        self.in_flight[base] += 1
        try:
            return await self._exchange(timeout, lambda: world.execute(world.executors[base], eval_id, self._redis()))
        finally:
            self.in_flight[base] -= 1

    async def close(self) -> None:
        self.closed = True

    def _check(self, base: str, eval_id: str) -> None:
        must, now = self._world.account.must, self._world.clock()
        must(base in self.members, f"{eval_id} was sent to {base}, which has left the pool")
        age = now - self.last_good.get(base, float("-inf"))
        must(age <= self.max_age + 1e-6, f"{eval_id} was sent to {base}, whose last good check was {age:.3f} s ago")
        count = self.in_flight[base] + 1
        must(count <= self.allowed(base), f"{count} tasks are in flight on {base}, {self.allowed(base)} are allowed")
        must(not self.closed, f"{eval_id} was sent by a router that had stopped")

    async def _exchange(self, timeout: float, serve: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(self._world.latency())
                if self._link.dead:
                    await self._link.never()
                answer = await serve()
        except TimeoutError as error:
            if self._link.dead:
                await self._link.never()
            raise TimedOut("no answer in time") from error
        except TransportError:
            if self._link.dead:
                await self._link.never()
            raise
        if self._link.dead:
            await self._link.never()
        return answer

    @staticmethod
    def _split(url: str) -> tuple[str, str]:
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}", f"/{path}"
