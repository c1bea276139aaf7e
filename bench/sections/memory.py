"""Measures memory over many tasks, and during a long outage of the queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.contenders import EMBEDDED, ROUTER
from bench.page import table
from bench.processes import memory_mib

if TYPE_CHECKING:
    from subprocess import Popen

    from bench.measure import Bench
    from bench.stub import Stub

TITLE = "Memory"
TASKS = 200_000
STEPS = 5
SPEEDUP = 60
OUTAGE_SECONDS = 3600.0
PATIENCE_SECONDS = 300.0


def run(bench: Bench) -> str:
    return f"{_over_tasks(bench)}\n{_over_an_outage(bench)}"


def _over_tasks(bench: Bench) -> str:
    tasks = TASKS if bench.full else 2_000
    rows = []
    with bench.stub() as stub, bench.run(ROUTER, stub) as running:
        stub.allow(tasks)
        for step in range(1, STEPS + 1):
            _await_reports(stub, tasks * step // STEPS)
            rows.append((f"{tasks * step // STEPS:,}", f"{memory_mib(running.pid):.1f}"))
            bench.say(f"{rows[-1][0]} tasks: {rows[-1][1]} MiB")
    return table(("tasks routed", "MiB"), rows)


def _over_an_outage(bench: Bench) -> str:
    away = OUTAGE_SECONDS / SPEEDUP if bench.full else 1.0
    rows = []
    with bench.stub() as executors, bench.stub() as queue:
        port = queue.url.rpartition(":")[2]
        queue.executors = executors.executors
        with bench.run(EMBEDDED, queue, SPEEDUP=str(SPEEDUP)) as running:
            queue.allow(2_000)
            _await_reports(queue, 2_000)
            queue.allow(1_000_000)
            queue.kill()
            rows = _sample(bench, running, away)
            with bench.stub(1, "-port", port) as back:
                back.allow(2_000)
                _await_reports(back, 2_000)
                rows.append(("2,000 tasks after its return", f"{memory_mib(running.pid):.1f}"))
    bench.say(f"over an outage: {rows}")
    return f"""\
The queue is away for {away * SPEEDUP / 60:.0f} minutes, while tasks in flight cannot be reported. The clock of the router's loop runs
{SPEEDUP} times as fast.

{table(("minutes away", "MiB"), rows)}"""


def _sample(bench: Bench, running: Popen[str], away: float) -> list[tuple[str, str]]:
    rows = []
    for step in range(STEPS):
        rows.append((f"{away * SPEEDUP / 60 * step / (STEPS - 1):.0f}", f"{memory_mib(running.pid):.1f}"))
        if step < STEPS - 1:
            time.sleep(away / (STEPS - 1))
    return rows


def _await_reports(stub: Stub, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (account := stub.account()).reported < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} tasks were routed: {account}")
        time.sleep(0.05)
