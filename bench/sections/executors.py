"""Measures the router with few and with many executors, each with its own address."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from bench.contenders import EMBEDDED, SLOTS, ceiling
from bench.measure import Figure, measure, median
from bench.page import table

if TYPE_CHECKING:
    from bench.measure import Bench

TITLE = "From 1 to 1,000 executors"
COUNTS = (1, 8, 64, 1000)
ROUTER, BARE = "the router", "the bare client"


def run(bench: Bench) -> str:
    counts = COUNTS if bench.full else (1, 1000)
    found: dict[tuple[str, int], list[Figure]] = defaultdict(list)
    for turn in range(1, bench.rounds + 1):
        for count in counts:
            for name, contender in ((ROUTER, EMBEDDED), (BARE, ceiling(slots(count)))):
                figure = measure(bench, contender, executors=count)
                found[name, count].append(figure)
                bench.say(
                    f"round {turn}: {name}, {count}: {figure.rate:,.0f} tasks/s, {figure.cpu_micros:,.0f} µs of CPU"
                )
    medians = {key: median(figures) for key, figures in found.items()}
    rows = []
    for count in counts:
        router, bare = medians[ROUTER, count], medians[BARE, count]
        rows.append(
            (
                *(f"{count:,}", f"{slots(count):,}"),
                *(f"{router.rate:,.0f}", f"{bare.rate:,.0f}", f"{router.cpu_micros:,.0f}", f"{bare.cpu_micros:,.0f}"),
                *(f"{router.cpu_micros - bare.cpu_micros:,.0f}", f"{router.memory_mib:.0f}"),
            )
        )
    header = (
        *("executors", "slots", "tasks/s", "bare client", "CPU µs/task", "bare client"),
        *("the router's part", "MiB"),
    )
    return f"""\
The number of slots is the same, except that each of 1,000 executors has one; LeastLoaded; medians of {bench.rounds}. Every executor has
an address and connections of its own, and is health-checked as usual. The bare client has a concurrency equal to the number of slots
and calls the same addresses; what it uses more with 1,000 executors is the cost of 1,000 connections.

{table(header, rows)}"""


def slots(executors: int) -> int:
    return executors * max(1, SLOTS // executors)
