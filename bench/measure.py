"""Measures one contender once, with its own stub and an empty Redis, and checks afterwards that no task was lost."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from redis import Redis

from bench import stub as stubs
from bench.contenders import SLOTS, celery_queue
from bench.processes import cpu_seconds, memory_mib, process, stop
from devcluster.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.contenders import Contender
    from bench.stub import Account, Stub

EXECUTORS = 4
START_SECONDS = 60.0
WARM_SECONDS = 2.0


class Unusable(RuntimeError):
    """The contender did not work or lost tasks, so there is no result."""


@dataclass(frozen=True)
class Figure:
    """The result of a measurement. `p50` and `p99` are of the overhead, in seconds."""

    tasks: float
    seconds: float
    cpu_seconds: float
    stub_cpu_seconds: float
    memory_mib: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.tasks / self.seconds

    @property
    def cpu_micros(self) -> float:
        return self.cpu_seconds / self.tasks * 1e6


def median(figures: Sequence[Figure]) -> Figure:
    """The median of each field."""
    return Figure(**{f.name: statistics.median(getattr(figure, f.name) for figure in figures) for f in fields(Figure)})


@dataclass(frozen=True)
class Bench:
    """The context of all sections."""

    binary: str
    redis: RedisServer
    seconds: float
    rounds: int
    warm_seconds: float = WARM_SECONDS
    full: bool = True
    """False: a smoke test, which shows only that everything works."""

    @property
    def enqueued(self) -> int:
        """Number of tasks put into the queue of a contender that has its own: more than it can process."""
        return 40_000 if self.full else 8_000

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def stub(self, executors: int = EXECUTORS, *options: str) -> Iterator[Stub]:
        with stubs.started(self.binary, executors, *options) as stub:
            yield stub

    @contextmanager
    def run(self, contender: Contender, stub: Stub, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Run the contender, with an empty Redis."""
        with Redis.from_url(self.redis.url) as redis:
            redis.flushall()
            redis.config_resetstat()
        if not contender.pulls:
            self._enqueue(contender)
        environment = {
            "QUEUE_SERVICE_URL": stub.url,
            "REDIS_URL": self.redis.url,
            "EXECUTOR_ENDPOINTS": ",".join(stub.executors),
            "EXECUTOR_CONCURRENCY": str(max(1, SLOTS // len(stub.executors))),
        }
        with process(contender.command, environment | contender.env | env) as running:
            yield running

    def _enqueue(self, contender: Contender) -> None:
        command = [contender.python, "-m", "bench.contenders.celery_queue", str(self.enqueued)]
        with process(command, {"REDIS_URL": self.redis.url}) as enqueuing:
            if enqueuing.wait():
                raise Unusable("Celery's tasks cannot be enqueued; its output is above")

    def published(self) -> int:
        """Number of PUBLISH commands since the contender started, including those in scripts."""
        with Redis.from_url(self.redis.url) as redis:
            stats = redis.info("commandstats")
        return int(stats.get("cmdstat_publish", {}).get("calls", 0))

    def await_published(self, count: int) -> None:
        """Return when that many events are published, or after `SETTLE_SECONDS`."""
        deadline = time.monotonic() + stubs.SETTLE_SECONDS
        while self.published() < count and time.monotonic() < deadline:
            time.sleep(0.1)


@contextmanager
def bench(seconds: float, rounds: int, *, full: bool = True) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        warm = WARM_SECONDS if full else 0.5
        yield Bench(stubs.build(folder), redis, seconds, rounds, warm, full=full)


def measure(bench: Bench, contender: Contender, executors: int = EXECUTORS, rate: float = 0, **env: str) -> Figure:
    """Start the contender, warm it up, measure, stop it, and check the counts. Raises `Unusable`.

    `rate` is in tasks per second that arrive; 0: a task for every pull. `env` is added to the contender's environment.
    """
    with bench.stub(executors) as stub:
        stub.rate(rate)
        with bench.run(contender, stub, **env) as running:
            stub.allow(stubs.PLENTY)
            figure = _count(bench, contender, stub, running)
            if contender.pulls:
                account = stub.settle()
                lost = account.handed_out - account.reported
            else:
                due = bench.enqueued - celery_queue.empty(bench.redis.url)
                account = stub.await_account(lambda account: account.executed >= due)
                lost = due - account.executed
            if contender.publishes:
                bench.await_published(_done(contender, account))  # the event of the last report may be on its way
            stop(running, contender.stop_seconds)
    _check(contender, account, lost, bench.published())
    return figure


def _count(bench: Bench, contender: Contender, stub: Stub, running: subprocess.Popen[str]) -> Figure:
    _await_work(contender, stub, running)
    time.sleep(bench.warm_seconds)
    before, cpu, stub_cpu, started = stub.measure(), cpu_seconds(running.pid), stub.cpu_seconds(), time.monotonic()
    time.sleep(bench.seconds)
    after, took = stub.account(), time.monotonic() - started
    cpu, stub_cpu = cpu_seconds(running.pid) - cpu, stub.cpu_seconds() - stub_cpu
    tasks = _done(contender, after) - _done(contender, before)
    if tasks < 1:
        raise Unusable(f"{contender.name} processed no task: {after}")
    return Figure(tasks, took, cpu, stub_cpu, memory_mib(running.pid), after.p50, after.p99)


def _await_work(contender: Contender, stub: Stub, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _done(contender, stub.account()):
        if running.poll() is not None or time.monotonic() > deadline:
            raise Unusable(f"{contender.name} does not work; its output is above")
        time.sleep(0.1)


def _done(contender: Contender, account: Account) -> int:
    return account.reported if contender.pulls else account.executed


def _check(contender: Contender, account: Account, lost: int, published: int) -> None:
    done = _done(contender, account)
    if lost:
        raise Unusable(f"{contender.name} lost {lost} tasks: {account}")
    if account.twice or account.unknown:
        raise Unusable(f"{contender.name} ran or reported tasks twice: {account}")
    if contender.publishes and published < done:
        raise Unusable(f"{contender.name} published {published} outcomes of {done}")
