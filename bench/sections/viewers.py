"""Measures the router under full load while people look at its page."""

from __future__ import annotations

from collections import defaultdict
from statistics import median as middle
from typing import TYPE_CHECKING

from bench.contenders import ROUTER
from bench.measure import Figure, Unusable, measure, median
from bench.page import table
from bench.viewers import viewers
from devcluster.ports import free_ports

if TYPE_CHECKING:
    from bench.measure import Bench

TITLE = "With people on the page"
COUNTS = (0, 5)
TARGET_SHARE = 0.97


def run(bench: Bench) -> str:
    found: dict[int, list[Figure]] = defaultdict(list)
    waits: list[float] = []
    for turn in range(1, bench.rounds + 1):
        for count in COUNTS:
            figure, answers = _watched(bench, count)
            found[count].append(figure)
            waits += answers
            bench.say(f"round {turn}: {count} viewers: {figure.rate:,.0f} tasks/s, {figure.cpu_micros:,.0f} µs of CPU")
    medians = {count: median(figures) for count, figures in found.items()}
    rows = [
        (f"{count}", f"{f.rate:,.0f}", f"{f.cpu_micros:,.0f}", f"{f.p50 * 1e3:.2f}", f"{f.p99 * 1e3:.2f}")
        for count, f in medians.items()
    ]
    share = medians[COUNTS[-1]].rate / medians[0].rate
    met = "met" if share >= TARGET_SHARE else "not met"
    return f"""\
One worker under full load, with nobody on its page and with {COUNTS[-1]} clients that ask for what a page with an opened object asks
for: the list and the object, a second after the last answer, each by a connection of its own. In turns; medians of {bench.rounds}.

{table(("viewers", "tasks/s", "CPU µs/task", "p50 ms", "p99 ms"), rows)}
With {COUNTS[-1]} viewers the rate is {share:.1%} of that without; target: at least {TARGET_SHARE:.0%}: {met}. Half of their answers
took less than {middle(waits) * 1e3:.0f} ms.
"""


def _watched(bench: Bench, count: int) -> tuple[Figure, list[float]]:
    """The figure, and the seconds that each answer took. Raises `Unusable` if the viewers got none, or errors."""
    (port,) = free_ports(1)
    with viewers(f"http://127.0.0.1:{port}", count) as seen:
        figure = measure(bench, ROUTER, PORT=str(port))
    if seen.refused or (count and not seen.answers):
        raise Unusable(f"{count} viewers got {len(seen.answers)} answers and the errors {seen.refused}")
    return figure, seen.answers
