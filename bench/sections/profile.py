"""Profiles the router under full load with py-spy."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench import stub as stubs
from bench.contenders import BENCH_BIN, ROUTER
from bench.page import table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.measure import Bench

TITLE = "Profile"
SHOWN = 25
RATE = 250
START_SECONDS = 3.0


def run(bench: Bench) -> str:
    with tempfile.TemporaryDirectory() as folder, bench.stub() as stub, bench.run(ROUTER, stub) as running:
        stub.allow(stubs.PLENTY)
        time.sleep(START_SECONDS)
        output = Path(folder) / "stacks"
        options = ("--format", "raw", "--rate", str(RATE), "--duration", str(max(1, round(bench.seconds))))
        recorded = subprocess.run(
            [str(BENCH_BIN / "py-spy"), "record", *options, "--pid", str(running.pid), "--output", str(output)],
            check=False,
            capture_output=True,
            text=True,
        )
        if recorded.returncode:
            raise RuntimeError(f"py-spy: {recorded.stderr}")
        own, within, total = _counts(output.read_text().splitlines())
        stub.settle()
    return f"""\
{total:,} samples of the router's Python code under full load, by py-spy: the share of samples in which a line was the innermost one, and
in which a function was anywhere on the stack. The event loop waits, and calls back, in `Runner.run`. For more detail, run `python -m
bench --seconds 60 comparison` and at the same time `py-spy record --native --pid PID` or `perf record -g -p PID`.

{_table("innermost", own, total)}
{_table("on the stack", within, total)}"""


def _counts(stacks: Iterable[str]) -> tuple[Counter[str], Counter[str], int]:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for function in {frame.rpartition(":")[0] for frame in frames if "queueworker/routing" in frame}:
            within[function] += int(count)
    return own, within, own.total()


def _table(title: str, counts: Counter[str], total: int) -> str:
    return table(
        (title, "%"), [(f"`{name}`", f"{100 * n / total:.1f}") for name, n in counts.most_common(SHOWN) if name]
    )
