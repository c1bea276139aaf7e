"""The router beside Celery, the legacy loop and the bare client, on the same stub, in turns."""

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
# So much faster than the fastest contender the stub has to be, to say that it is not the limit.
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
    limit = "it is not the limit" if alone > HEADROOM * ceiling.rate else "it may be what limits the bare client"
    stub_micros = ceiling.stub_cpu_seconds / ceiling.tasks * 1e6
    return f"""\
{EXECUTORS} executors that answer at once, {SLOTS} slots in all; {bench.rounds} rounds in turns, {bench.seconds:.0f} s each,
medians. A task's work is to be had from the queue, to be sent to an executor, to be reported and to be published on a real
redis-server; the router keeps its journal there as well. CPU and memory (proportional set size) are of the whole tree of processes.

{table(("", "tasks/s", "× legacy", "CPU µs/task", "p50 ms", "p99 ms", "MiB"), rows)}
{table(("this router, in terms", "tasks/s", "wanted", "CPU a task"), ratios)}
p50 and p99 are of the overhead: from when the stub hands the task out to when it has the report, less the execution.
At full load all slots are always taken, so that it is little more than slots over tasks/s; half load is below.

* *The legacy loop* is the legacy worker's: httpx, a health check before each task, one task at a time.
* *Celery* (5, on the same redis-server) has its tasks enqueued beforehand, and sends and publishes them with connections that it
  keeps; results are ignored, tasks are acknowledged as they are taken, prefetch and concurrency are what was fastest here. It neither
  pulls nor reports over HTTP, and a task that dies with it is lost: less work than the others have. Its account is of
  executions, each once; its overhead is what passes in one slot between an execution's answer and the next one's request.
* *The bare client* is the router's own HTTP client making the three calls with nothing around them: no journal,
  no events, no pool, no health; the best of {", ".join(c.env["LANES"] for c in CEILINGS)} lanes.
* *The stub* has one core. It takes {stub_micros:.0f} µs of it for a task (of the bare client), and driven by a client in Go, on
  this machine's other core, it gave {alone:,.0f} tasks/s, {3 * alone:,.0f} requests/s: {limit}.
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
