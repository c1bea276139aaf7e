"""Compares the router with Celery, the legacy loop and the bare client, in turns, with the same stub."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from bench import stub as stubs
from bench.contenders import CEILINGS, CELERIES, LEGACY, ROUTER, SLOTS
from bench.measure import EXECUTORS, Figure, measure, median
from bench.page import table

if TYPE_CHECKING:
    from bench.contenders import Contender
    from bench.measure import Bench

TITLE = "Side by side"
CONTENDERS = (LEGACY, *CELERIES, ROUTER, *CEILINGS)
TARGETS = {"legacy": 30.0, "celery": 12.0, "ceiling": 0.8}
CONNECTIONS = 16
# The stub is not the limit if it is this many times as fast as the fastest contender.
HEADROOM = 1.5


def run(bench: Bench) -> str:
    figures: dict[Contender, list[Figure]] = defaultdict(list)
    alone = 0.0
    for turn in range(1, bench.rounds + 1):
        alone = max(alone, _stub_alone(bench))
        for contender in CONTENDERS:
            figure = measure(bench, contender)
            figures[contender].append(figure)
            bench.say(f"round {turn}: {contender.name}: {figure.rate:,.0f} tasks/s, {figure.cpu_micros:,.0f} µs of CPU")
    return render({contender: median(found) for contender, found in figures.items()}, alone, bench)


def render(medians: dict[Contender, Figure], alone: float, bench: Bench) -> str:
    legacy, router = medians[LEGACY], medians[ROUTER]
    celery = max((medians[c] for c in CELERIES), key=lambda figure: figure.rate)
    best = max(CEILINGS, key=lambda c: medians[c].rate)
    ceiling = medians[best]
    rows = [_row(c.name, medians[c], legacy) for c in (LEGACY, *CELERIES, ROUTER, best)]
    ratios = [
        (
            f"of {name}",
            f"{router.rate / other.rate:.2f}",
            f"≥ {wanted:g}: {'met' if router.rate >= wanted * other.rate else 'not met'}",
            f"{router.cpu_micros / other.cpu_micros:.2f}",
        )
        for name, other, wanted in (
            ("the legacy loop", legacy, TARGETS["legacy"]),
            ("the best of Celery", celery, TARGETS["celery"]),
            ("the bare client", ceiling, TARGETS["ceiling"]),
        )
    ]
    limit = "the stub is not the limit" if alone > HEADROOM * ceiling.rate else "the stub may limit the bare client"
    stub_micros = ceiling.stub_cpu_seconds / ceiling.tasks * 1e6
    return f"""\
{EXECUTORS} executors that answer at once, with {SLOTS} slots in total; medians of {bench.rounds} rounds of {bench.seconds:.0f} s, in
turns. A task is pulled from the queue, sent to an executor, reported, and published on a real redis-server, where the router
keeps its journal as well. CPU and memory (proportional set size) include all child processes.

{table(("", "tasks/s", "× legacy", "CPU µs/task", "p50 ms", "p99 ms", "MiB"), rows)}
{table(("this router, as a multiple", "tasks/s", "target", "CPU per task"), ratios)}
p50 and p99 are of the overhead: the time from the stub's handing the task out to its getting the report, minus the execution.
At full load all slots are in use, so the overhead is little more than slots divided by tasks/s; see half load below.

* *The legacy loop* is that of the legacy worker: httpx, a health check before each task, one task at a time.
* *Celery* (5, with the same redis-server) has its tasks enqueued beforehand, and sends and publishes them over kept connections.
  Results are ignored, tasks are acknowledged when they are taken, and prefetch and concurrency are the fastest that were found
  here. It neither pulls nor reports over HTTP, and a task that dies with it is lost, so it does less work than the others. Its
  executions are counted; its overhead is the time in one slot between an execution's answer and the next request.
* *The bare client* is the router's own HTTP client making the three calls with nothing around them: no journal, no events, no
  pool, no health checks; the best of concurrency {", ".join(c.env["CONCURRENCY"] for c in CEILINGS)}.
* *The stub* has one core. It uses {stub_micros:.0f} µs of CPU for a task of the bare client. A client in Go on this machine's other
  core got {alone:,.0f} tasks/s, {3 * alone:,.0f} requests/s, so {limit}.
"""


def _row(name: str, figure: Figure, legacy: Figure) -> tuple[str, ...]:
    return (
        name,
        f"{figure.rate:,.0f}",
        f"{figure.rate / legacy.rate:.1f}",
        f"{figure.cpu_micros:,.0f}",
        f"{figure.p50 * 1e3:.2f}",
        f"{figure.p99 * 1e3:.2f}",
        f"{figure.memory_mib:.0f}",
    )


def _stub_alone(bench: Bench) -> float:
    with bench.stub() as stub:
        stub.allow(stubs.PLENTY)
        seconds = min(3.0, bench.seconds)
        return stub.drive(CONNECTIONS, seconds) / seconds
