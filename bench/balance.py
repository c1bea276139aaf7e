"""`make bench-balance`: compares the strategies by simulation in virtual time, and two of them over HTTP.

Writes docs/balance.md. The results of the simulation are the same on every machine, those over HTTP are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from aiohttp import web

from bench import charts
from bench.simulation import Kind, Run, Simulation
from devcluster.redis_server import RedisServer
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = Path(__file__).parents[1] / "docs" / "balance.md"
STRATEGIES = ("Random", "RoundRobin", "LeastLoaded", "Weighted", "Sticky")
SEED = 1
TASKS = 20_000
HTTP_TASKS = 600
HTTP_UNIT_SECONDS = 0.2


@dataclass(frozen=True)
class Scenario:
    title: str
    text: str
    kinds: Sequence[Kind]
    load: float
    odd: Sequence[int]
    """Indexes of the executors whose share is shown."""
    odd_title: str


SCENARIOS = (
    Scenario(
        "Many, all equal",
        "100 executors with one worker each and unlimited slots, at 80 % of their capacity: the model of the "
        "literature. Random is M/M/1 (mean wait 4.00); for two choices Mitzenmacher (2001) predicts {two:.2f}.",
        [Kind(slots=1000)] * 100,
        0.8,
        (0,),
        "share of one (fair: 1.0 %)",
    ),
    Scenario(
        "One of eight is ten times slower",
        "8 executors with 4 workers and 16 slots each, at 75 % of their total capacity.",
        [Kind(speed=0.1, workers=4, slots=16)] + [Kind(workers=4, slots=16)] * 7,
        0.75,
        (0,),
        "share of the slow one (capacity: 1.4 %)",
    ),
    Scenario(
        "Unequal capacity",
        "8 executors with 8, 8, 4, 4, 2, 2, 1 and 1 workers and four slots for each worker, as `/capacity` says; "
        "at 80 % of their total capacity.",
        [Kind(workers=w, slots=4 * w) for w in (8, 8, 4, 4, 2, 2, 1, 1)],
        0.8,
        (0, 1),
        "share of the two largest (capacity: 53.3 %)",
    ),
    Scenario(
        "One of eight answers every task with a 500",
        "It answers after a hundredth of a task's time, and its health checks succeed. The others are at 75 %.",
        [Kind(breaks=0.01)] + [Kind()] * 7,
        0.75,
        (0,),
        "share of the broken one (fair: 12.5 %)",
    ),
    Scenario(
        "One of eight fails every task at once",
        "As above, but its answer is a result that says `failed`. The others are at 75 %.",
        [Kind(fails=0.01)] + [Kind()] * 7,
        0.75,
        (0,),
        "share of the failing one (fair: 12.5 %)",
    ),
)


def mean_wait_of_two_choices(load: float) -> float:
    """Mean wait in units of the mean service time, for many servers (Mitzenmacher, 2001): Σ λ^(2^i - 2) - 1."""
    return sum(float(load ** (2**i - 2)) for i in range(1, 12)) - 1


def main() -> None:
    """Run all scenarios, and write docs/balance.md."""
    parts = [HEAD]
    for scenario in SCENARIOS:
        runs = {s: Simulation(scenario.kinds, s, load=scenario.load, tasks=TASKS, seed=SEED).run() for s in STRATEGIES}
        text = scenario.text.format(two=mean_wait_of_two_choices(scenario.load))
        table = _table(_simulated(scenario, runs))
        parts.append(f"## {scenario.title}\n\n{text}\n\n{charts.links(scenario.title)}{table}\n")
        print(parts[-1], flush=True)
    parts.append(f"{HTTP_HEAD}\n\n{_table(asyncio.run(_over_http()))}\n")
    print(parts[-1])
    PAGE.write_text("\n".join(parts))
    charts.draw(PAGE)


def _simulated(scenario: Scenario, runs: dict[str, Run]) -> Iterable[Sequence[str]]:
    yield "strategy", "tasks per unit", "mean wait", "p50", "p99", scenario.odd_title, "tasks with a fault"
    for name, run in runs.items():
        waits = (f"{run.mean:.2f}", f"{run.wait(0.5):.2f}", f"{run.wait(0.99):.2f}")
        yield name, f"{run.throughput:.2f}", *waits, f"{100 * run.share(*scenario.odd):.1f} %", str(run.broken)


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rest))


class PatientQueue(StubQueue):
    """Holds a pull until there is a task; otherwise the poll interval would be most of a task's wait."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._filled = asyncio.Event()

    def add(self, eval_id: str) -> None:
        self.submit(eval_id)
        self._filled.set()

    async def next_task(self, request: web.Request) -> web.StreamResponse:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not self.waiting:
                    self._filled.clear()
                    await self._filled.wait()
        return await super().next_task(request)


class Worker(StubExecutor):
    """Has workers, a queue in front of them, and a speed; records each task's wait since its submission."""

    def prepare(self, kind: Kind, rng: Random, submitted: dict[str, float], waits: list[float]) -> None:
        self._kind, self._rng, self._submitted, self._waits = kind, rng, submitted, waits
        self._free = asyncio.Semaphore(kind.workers)

    async def execute(self, request: web.Request) -> web.StreamResponse:
        eval_id = (await request.json())["eval_id"]
        self.executed.append(eval_id)
        if self._kind.breaks is not None:
            await asyncio.sleep(self._kind.breaks * HTTP_UNIT_SECONDS)
            return web.Response(status=500, text="oops")
        async with self._free:
            self._waits.append(time.monotonic() - self._submitted[eval_id])
            work = self._rng.expovariate(1.0) if self._kind.fails is None else self._kind.fails
            await asyncio.sleep(work * HTTP_UNIT_SECONDS / self._kind.speed)
        fields: dict[str, Any] = {} if self._kind.fails is None else {"status": "failed", "error": "Traceback"}
        return web.json_response(result(eval_id, self.name, **fields))


async def _over_http() -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("row", "strategy", "p50", "p99", "share of the odd one", "failed")]
    with RedisServer() as redis:
        for scenario in (SCENARIOS[1], *SCENARIOS[3:]):
            for strategy in ("Random", "LeastLoaded"):
                rows.append((scenario.title, strategy, *await _route(scenario, strategy, redis.url)))
                print(rows[-1], flush=True)
    return rows


async def _route(scenario: Scenario, strategy: str, redis_url: str) -> Sequence[str]:
    """Measure the real router with its HTTP client, a real Redis, and executors that only sleep."""
    rng = Random(SEED)
    submitted: dict[str, float] = {}
    waits: list[float] = []
    able = sum(k.workers * k.speed for k in scenario.kinds if k.breaks is None and k.fails is None)
    rate = scenario.load * able / HTTP_UNIT_SECONDS
    executors = [Worker(name=f"executor-{i}") for i in range(len(scenario.kinds))]
    for executor, kind in zip(executors, scenario.kinds, strict=True):
        executor.prepare(kind, rng, submitted, waits)
        await executor.start()
    spec = {"concurrency": max(k.slots for k in scenario.kinds)}
    try:
        async with (
            PatientQueue() as queue,
            running(queue, executors, redis_url, executors=spec, routing={"strategy": strategy}) as router,
        ):
            await until(lambda: router.snapshot().healthy == len(executors))
            due = time.monotonic()
            for i in range(HTTP_TASKS):
                due += rng.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                submitted[f"t{i}"] = time.monotonic()
                queue.add(f"t{i}")
            await queue.reported(HTTP_TASKS, timeout=120)
            failed = len(queue.failed)
    finally:
        for executor in executors:
            await executor.stop()
    waits.sort()
    shares = [f"{waits[int(p * len(waits))] / HTTP_UNIT_SECONDS:.2f}" for p in (0.5, 0.99)]
    share = sum(len(executors[i].executed) for i in scenario.odd) / HTTP_TASKS
    return *shares, f"{100 * share:.1f} %", str(failed)


HEAD = f"""\
# How the strategies share the work

Made by `make bench-balance` with the real pool and strategies, simulated executors and virtual time
(`bench/simulation.py`): {TASKS:,} tasks that arrive at random, with seed {SEED}, so the results are the same on every
machine. The unit of time is the mean time that a task takes at full speed (exponentially distributed). A task's wait is
the time from its arrival until a worker of an executor starts it. An executor has a queue in front of its workers,
which its slots bound, as on a machine whose `concurrency` is larger than its number of cores.

`LeastLoaded` compares all executors if there are at most 8, otherwise two at random.
`tests/unit/executors/test_balance.py` checks what this page shows.
"""

HTTP_HEAD = f"""\
## The same over HTTP

The real router, real HTTP and a real Redis on one machine, with {HTTP_TASKS:,} tasks; the unit of time is
{1000 * HTTP_UNIT_SECONDS:.0f} ms. The queue holds a pull until it has a task, so that waits do not include the poll
interval."""

if __name__ == "__main__":
    main()
