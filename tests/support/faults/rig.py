"""The platform of one case: real processes, with a fault proxy between the workers and each of the others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

from devcluster.redis_server import RedisServer
from tests.support.accounts import AccountError
from tests.support.demo_processes import DemoProcess, demo_process
from tests.support.faults.account import Exceptions, findings, unsettled
from tests.support.faults.ledger import Events, Ledger, Timeline
from tests.support.faults.proxy import HttpProxy, Proxy
from tests.support.faults.reliability import recovery_class
from tests.support.worker_processes import WorkerProcess, worker_process

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from tests.support.faults.proxy import Fault

PATIENCE_SECONDS = 45.0
"""Upper bound of each wait, for a loaded machine. No test measures it."""
SETTLE_SECONDS = 0.3
"""After everything is reported: time in which a second report or event would be seen."""


class Site:
    """A demo service as a process, and the proxy in front of it, whose address stays when the process is replaced."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._arguments = arguments
        self._stack = contextlib.ExitStack()
        self._process: DemoProcess | None = None
        self.proxy = HttpProxy(("127.0.0.1", 9))

    @property
    def url(self) -> str:
        """Of the process itself, for the test's own calls."""
        assert self._process is not None
        return self._process.url

    async def start(self, *arguments: str) -> None:
        """Start a new process; `arguments`, if there are any, replace the earlier ones."""
        self._arguments = arguments or self._arguments
        command = demo_process(self._module, "--port", "0", *self._arguments)
        self._process = await asyncio.to_thread(self._stack.enter_context, command)
        parts = urlsplit(self._process.url)
        self.proxy.upstream = (str(parts.hostname), int(parts.port or 0))
        await self.proxy.restore() if self.proxy.port else await self.proxy.start()

    async def kill(self) -> None:
        """SIGKILL. Its connections are reset and new ones refused, as the kernel does it."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        await asyncio.to_thread(self._process.process.wait)
        await self.proxy.refuse()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.process.pid, number)

    async def close(self) -> None:
        await self.proxy.stop()
        if self._process is not None and self._process.process.poll() is None:
            self._process.process.kill()  # A frozen one would not react to SIGTERM.
        await asyncio.to_thread(self._stack.close)


class Rig:
    """Start it with `start`; use `submit`, `progress` and `fault` in between; end with `account`."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.redis = RedisServer(0, "--client-output-buffer-limit", "pubsub", "0", "0", "0")
        self.redis_proxy = Proxy(("127.0.0.1", self.redis.port))
        self.queue = Site("queue", "--record", str(self.ledger.path))
        self.executors: list[Site] = []
        self.workers: list[WorkerProcess] = []
        """Workers whose slots must be free in the end. Remove one that is dead."""
        self.events = Events(self.redis.url)
        self.environ: dict[str, str] = {}
        self.key = ""
        self.result: tuple[str, str, str, str] | None = None
        self._delay = 0.0
        self._timeline = Timeline()
        self._faults: list[str] = []
        self._stack = AsyncExitStack()
        self._numbers = 0
        self._loads: list[asyncio.Task[None]] = []
        self._load: asyncio.Task[None] | None = None
        self._client = httpx.AsyncClient(timeout=10, trust_env=False, verify=False)

    # --- processes

    async def start(
        self,
        *,
        executors: int = 2,
        slots: int = 2,
        delay: float = 0.1,
        worker: bool = True,
        key: str = "",
        kinds: Sequence[Sequence[str]] = (),
        **environ: str,
    ) -> None:
        """Queue, executors and Redis; and, unless the case has another router, a worker with this environment.

        A task takes `delay` seconds and its code is not run; with `kinds`, there is one executor for each, with these
        arguments, and it runs the code. The worker reaches all of them through proxies.
        """
        self.key = key
        self._delay = delay
        idle = ("--fast", "--delay-ms", str(round(delay * 1000)))
        self.executors = [self._executor(i, slots, kind) for i, kind in enumerate(kinds or [idle] * executors, 1)]
        keyed = ("--api-key", key) if key else ()
        await asyncio.gather(
            asyncio.to_thread(self.redis.start),
            self.queue.start("--record", str(self.ledger.path), *keyed),
            *(site.start() for site in self.executors),
        )
        await self._stack.enter_async_context(self.redis_proxy)
        await self._stack.enter_async_context(self.events)
        self.environ = {
            "QUEUE_SERVICE_URL": self.queue.proxy.url,
            "REDIS_URL": f"redis://{self.redis_proxy.netloc}",
            "EXECUTOR_ENDPOINTS": ",".join(site.proxy.url for site in self.executors),
            "EXECUTOR_CONCURRENCY": str(slots),
            **({"QUEUE_API_KEY": key} if key else {}),
            **environ,
        }
        if worker:
            await self.start_worker()

    async def start_worker(self, hosts: Path | None = None, **environ: str) -> WorkerProcess:
        """A worker with the rig's environment and these changes, from when it listens. Another one is a successor."""
        started = worker_process(hosts, **{**self.environ, **environ})
        stack = contextlib.ExitStack()
        worker = await asyncio.to_thread(stack.enter_context, started)
        self._stack.push_async_callback(asyncio.to_thread, stack.close)
        self.workers.append(worker)
        return worker

    async def kill_worker(self, worker: WorkerProcess) -> None:
        """SIGKILL, to a frozen one too; its slots no longer count."""
        worker.signal(signal.SIGKILL)
        await asyncio.to_thread(worker.process.wait)
        self.workers.remove(worker)

    # --- load

    def submit(self, count: int, every: float = 0.05, **fields: Any) -> None:
        """So many numbered tasks, one `every` so many seconds, in the background.

        `fields` are those of the task; one that is a function is called with the task's id.
        """
        self._loads.append(asyncio.create_task(self._submit(range(count), every, fields)))

    def load(self, every: float = 0.05, **fields: Any) -> None:
        """As `submit`, until the account is asked for: the load runs through the fault, however long it takes."""
        self._load = asyncio.create_task(self._submit(itertools.count(), every, fields))

    async def progress(self, reports: int = 5) -> None:
        """Return when the queue has got so many reports more than now."""
        before = self.ledger.reports()
        await self.until(lambda: self.ledger.reports() >= before + reports, f"{reports} more reports")

    async def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when the condition holds. Raises `AssertionError` that names it and shows the worker's log."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{self.logs()}"
            await asyncio.sleep(0.02)

    async def spoil(self, site: Site, fault: Fault, path: str, times: int) -> None:
        """Apply the fault to the next so many requests, and return when that is done."""
        before = len(site.proxy.spoilt)
        site.proxy.spoil(fault, path, times)
        await self.until(lambda: len(site.proxy.spoilt) == before + times, f"{times} requests of {path} spoilt")

    async def popped(self) -> set[str]:
        """Ids that the queue handed out in answers that a fault spoilt, once it has answered all of them."""
        proxy = self.queue.proxy
        await self.until(lambda: len(proxy.answers) == len(proxy.spoilt), "the queue answered what was spoilt")
        tasks = [orjson.loads(answer.body) for answer in self.queue.proxy.answers if answer.status == 200]
        return {task["eval_id"] for task in tasks if task}

    def running(self) -> set[str]:
        """Ids that an executor has started and that are not reported yet."""
        return self.ledger.ids("started") - self.ledger.ids("completed", "failed", "unknown")

    def running_on(self, executor: str, since: float = 0.0) -> set[str]:
        """As `running`, of one executor, and started later than `since` on the monotonic clock."""
        started = (act for act in self.ledger.acts if act.what == "started" and act.by == executor and act.at > since)
        return {act.eval_id for act in started} & self.running()

    def amid_on(self, executor: str) -> set[str]:
        """As `running_on`, less than half done: a task that is not reported yet may already be answered."""
        return self.running_on(executor, since=time.monotonic() - self._delay / 2)

    async def idle(self) -> None:
        """Return when all that was submitted is reported."""
        await asyncio.gather(*self._loads)
        taken = ("completed", "failed", "unknown")
        await self.until(lambda: len(self.ledger.ids(*taken)) == self._numbers, "all tasks reported")

    # --- the fault and the account

    @contextlib.contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """The block makes the fault, which the table calls `what`. Recovery counts from the end of the block."""
        self._faults.append(what)
        yield
        self._timeline.end()

    async def account(
        self,
        *,
        lost_why: str = "",
        twice_why: str = "",
        recovering: Collection[str] = (),
        patience: float = PATIENCE_SECONDS,
        **given: Any,
    ) -> None:
        """Wait until all is settled, then hold the case to its account. `given` are `Exceptions`.

        Recovery ends with the last report of the `recovering` ids, if there are any.
        """
        exceptions = Exceptions(**given)
        if self._load is not None:
            await self.progress(1)
            await self._stop_load(self._load)
        async with asyncio.timeout(patience + PATIENCE_SECONDS):
            await asyncio.gather(*self._loads)
        deadline = time.monotonic() + patience
        while waits := await self._unsettled(exceptions):
            if time.monotonic() > deadline:
                raise AccountError(f"not settled within {patience:.0f} s: {waits}\n{self.logs()}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_SECONDS)
        if problems := findings(self.ledger, self.events, exceptions):
            raise AccountError("\n".join([*problems, self.logs()]))
        for worker in self.workers:
            assert "Traceback" not in worker.log(), f"the router met a defect of its own:\n{worker.log()}"
        broken = [text for site in (self.queue, *self.executors) for text in site.proxy.broken]
        assert not broken, f"faults that broke themselves: {broken}"
        seconds = self._timeline.recovery(self.ledger.acts, recovering)
        assert seconds is not None, "no task was reported after the fault: the load did not run through it"
        twice = {i for i, acts in self.ledger.by_id("started").items() if len(acts) > 1}
        lost = {*exceptions.lost, *exceptions.unjournaled}
        assert not lost or lost_why, "say why tasks were lost"
        assert not twice or twice_why, "say why tasks ran twice"
        self.result = (
            "; ".join(self._faults),
            f"{len(exceptions.lost)}: {lost_why}" if exceptions.lost else lost_why or "nothing",
            twice_why if twice else "nothing",
            recovery_class(seconds),
        )

    async def ask_queue(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call of a user of the queue, not through the proxy."""
        return await self._client.request(method, self.queue.url + path, headers={"X-API-Key": self.key}, **options)

    async def metric(self, name: str, least: float = 0) -> float:
        """The first worker's `queueworker_<name>`, as soon as it is at least so much."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (value := (await self.metrics(self.workers[0]))[f"queueworker_{name}"]) < least:
                await asyncio.sleep(0.05)
        return value

    async def metrics(self, worker: WorkerProcess) -> dict[str, float]:
        """By name; those of the executors are added up."""
        text = (await self._client.get(f"{worker.url}/metrics")).text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
        return found

    async def link_up(self, peer: str, worker: WorkerProcess | None = None) -> bool:
        """Whether the first worker's link to that peer (queue, journal or events) is up, by its metrics."""
        text = (await self._client.get(f"{(worker or self.workers[0]).url}/metrics")).text
        return any(
            sample.name == "queueworker_link_up" and sample.labels["peer"] == peer and sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    async def status(self, worker: WorkerProcess | None = None) -> dict[str, Any]:
        """The legacy `/status` of the worker."""
        found: dict[str, Any] = (await self._client.get(f"{(worker or self.workers[0]).url}/status")).json()
        return found

    async def healthy(self, executors: int) -> None:
        """Return when so many executors are healthy, by the worker's status."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.status())["executors"]["healthy"] != executors:
                await asyncio.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(f"--- log of worker {i}:\n{w.log()[-6000:]}" for i, w in enumerate(self.workers, 1))

    # --- life

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        loads = [*self._loads, *([self._load] if self._load else [])]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await self._client.aclose()
        await self._stack.aclose()
        await asyncio.gather(self.queue.close(), *(site.close() for site in self.executors))
        await asyncio.to_thread(self.redis.stop)

    # --- inside

    def _executor(self, number: int, slots: int, kind: Sequence[str]) -> Site:
        return Site(
            "executor",
            *("--executor-id", f"executor-{number}", *kind),
            *("--max-concurrent", str(slots), "--record", str(self.ledger.path)),
        )

    async def _submit(self, numbers: Iterable[int], every: float, fields: dict[str, Any]) -> None:
        for _ in numbers:
            self._numbers += 1
            eval_id = f"task-{self._numbers:04}"
            own = {name: field(eval_id) if callable(field) else field for name, field in fields.items()}
            task = {"eval_id": eval_id, "code": "print(1)", **own}
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    (await self.ask_queue("POST", "/tasks", json=task)).raise_for_status()
                    break
                await asyncio.sleep(0.1)  # it is away, and its user asks again
            await asyncio.sleep(every)

    async def _stop_load(self, load: asyncio.Task[None]) -> None:
        self._load = None
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)

    async def _unsettled(self, exceptions: Exceptions) -> list[str]:
        queued = (await self.ask_queue("GET", "/status")).json()["queued"]
        waits = [f"{queued} tasks in the queue"] if queued else []
        for worker in self.workers:
            metrics = await self.metrics(worker)
            names = ("queueworker_tasks_in_flight", "queueworker_executor_in_flight", "queueworker_events_buffered")
            waits += unsettled(self.ledger, self.events, exceptions, {name: metrics[name] for name in names})
        return waits
