"""Measures the overhead below full load."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from bench.contenders import CEILINGS, ROUTER
from bench.measure import Figure, measure, median
from bench.page import table

if TYPE_CHECKING:
    from bench.contenders import Contender
    from bench.measure import Bench

TITLE = "At half load"
HALF = 0.5
SHARES = (0.1, 0.25, HALF)
BARE = CEILINGS[-1]
P50_TARGET_SECONDS, P99_TARGET_SECONDS = 0.001, 0.005


def run(bench: Bench) -> str:
    found: dict[tuple[Contender, float], list[Figure]] = defaultdict(list)
    most = median([measure(bench, ROUTER) for _ in range(bench.rounds)]).rate
    for turn in range(1, bench.rounds + 1):
        for share in SHARES if bench.full else (HALF,):
            for contender in (ROUTER, BARE):
                figure = measure(bench, contender, rate=share * most)
                found[contender, share].append(figure)
                bench.say(f"round {turn}: {contender.name} at {share:.0%} of {most:,.0f} tasks/s: {_times(figure)}")
    medians = {key: median(figures) for key, figures in found.items()}
    rows = [
        (
            f"{contender.name}, {share:.0%}",
            f"{figure.rate:,.0f}",
            f"{figure.p50 * 1e3:.2f}",
            f"{figure.p99 * 1e3:.2f}",
            f"{figure.cpu_seconds / figure.seconds:.0%}",
        )
        for (contender, share), figure in medians.items()
    ]
    half = medians[ROUTER, HALF]
    met = half.p50 < P50_TARGET_SECONDS and half.p99 < P99_TARGET_SECONDS
    return f"""\
The overhead (see above) when tasks arrive at random times (a Poisson process) at a share of the router's {most:,.0f} tasks/s at full
load; the queue holds a pull until a task arrives. The overhead of the bare client is the time of the three calls themselves. Medians of
{bench.rounds}.

{table(("", "tasks/s", "p50 ms", "p99 ms", "CPU of a core"), rows)}
At half load the router's {_times(half)}; targets: below {P50_TARGET_SECONDS * 1e3:.0f} ms and below {P99_TARGET_SECONDS * 1e3:.0f} ms: {"met" if met else "not met"}.
"""


def _times(figure: Figure) -> str:
    return f"p50 is {figure.p50 * 1e3:.2f} ms and p99 {figure.p99 * 1e3:.2f} ms"
