"""The CPU time of one choice among executors, for every strategy."""

from __future__ import annotations

import random
import statistics
import time
from itertools import islice
from typing import TYPE_CHECKING

from bench.page import table
from queueworker.resource.spec import StickyKey, Strategy
from queueworker.routing.config import Endpoint
from queueworker.routing.executors.executor import Executor
from queueworker.routing.executors.strategies import Chooser, chooser
from queueworker.routing.wire.task import Task

if TYPE_CHECKING:
    from bench.measure import Bench

TITLE = "A choice"
COUNTS = (1, 10, 100, 1000)
FREE = {"all have a free slot": 1.0, "one of ten has": 0.1}
REPEATS = 7
TARGET_MICROS = 10.0
SLOTS = 16


def run(bench: Bench) -> str:
    choices = 20_000 if bench.full else 200
    tables: list[str] = []
    worst = 0.0
    for text, share in FREE.items():
        rows = []
        for strategy in Strategy:
            micros = [choice_micros(strategy, count, share, choices) for count in COUNTS]
            worst = max(worst, *micros)
            rows.append((str(strategy), *(f"{m:.2f}" for m in micros)))
        tables.append(table((text, *(f"{count:,}" for count in COUNTS)), rows))
    return f"""\
CPU time of `choose` in microseconds by the number of executors: the median of {REPEATS} runs with {choices:,} choices for
different tasks. The largest is {worst:.1f} µs (target: below {TARGET_MICROS:.0f} µs).

{chr(10).join(tables)}"""


def choice_micros(strategy: Strategy, count: int, free: float, choices: int) -> float:
    rng = random.Random(1)
    members = [Executor(Endpoint(f"executor-{i}", f"http://executor-{i}:8083"), SLOTS) for i in range(count)]
    available = members[: max(1, int(count * free))]
    for executor in members:
        executor.available = executor in available
        executor.in_flight = rng.randrange(SLOTS) if executor.available else SLOTS
    rng.shuffle(members)
    strategist: Chooser[Executor] = chooser(strategy, StickyKey.CODE, rng)
    strategist.set_members(members)
    tasks = [Task(f"t{i}", f"print({i})", None, "python", "docker", b"null") for i in range(choices)]
    for task in islice(tasks, 2000):  # Sticky ranks the executors at the first task of a key
        strategist.choose(available, task)
    took = []
    for _ in range(REPEATS):
        started = time.thread_time()
        for task in tasks:
            strategist.choose(available, task)
        took.append(time.thread_time() - started)
    return statistics.median(took) / choices * 1e6
