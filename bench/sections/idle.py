"""Measures a router with nothing to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.contenders import ROUTER
from bench.page import table
from bench.processes import cpu_seconds, memory_mib

if TYPE_CHECKING:
    from bench.measure import Bench

TITLE = "Idle"
INTERVAL_SECONDS = 1.0
START_SECONDS = 4.0


def run(bench: Bench) -> str:
    seconds = 30.0 if bench.full else 3.0
    with bench.stub() as stub, bench.run(ROUTER, stub, POLL_INTERVAL_SECONDS=f"{INTERVAL_SECONDS:.0f}") as running:
        time.sleep(START_SECONDS)
        before, cpu, started = stub.account(), cpu_seconds(running.pid), time.monotonic()
        time.sleep(seconds)
        after, took = stub.account(), time.monotonic() - started
        cpu = cpu_seconds(running.pid) - cpu
        memory = memory_mib(running.pid)
    polls = (after.polls - before.polls) / (took / INTERVAL_SECONDS)
    other = (after.requests - before.requests - (after.polls - before.polls) - 1) / took
    rows = [(f"{polls:.2f}", f"{other:.2f}", f"{cpu / took:.2%}", f"{memory:.0f}")]
    return f"""\
One router, four executors and an empty queue, for {took:.0f} s. Target: one poll per interval ({INTERVAL_SECONDS:.0f} s), and less than 1 %
of a core, including health checks, the journal's lease and the HTTP API.

{table(("polls per interval", "other requests/s", "CPU of a core", "MiB"), rows)}"""
