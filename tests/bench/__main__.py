"""`make bench`: tasks a second, and CPU a task, of the router beside the legacy loop, on the same stub, in one run.

Absolute numbers are this machine's, and it may be busy: the ratio is what counts.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from demo.children import die_with_parent
from demo.control_plane import binaries
from demo.control_plane.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB = Path(__file__).parent / "stub"
ROOT = Path(__file__).parents[2]
EXECUTORS = 4
CONCURRENCY = 16
PLENTY = 10_000_000
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    name: str
    tasks: int
    seconds: float
    cpu_seconds: float
    memory_mib: float

    @property
    def rate(self) -> float:
        return self.tasks / self.seconds

    @property
    def cpu_micros(self) -> float:
        return self.cpu_seconds / self.tasks * 1e6


@contextmanager
def process(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | (env or {}), stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
    )
    try:
        yield running
    finally:
        running.terminate()
        running.wait(45)


def build_stub(folder: str) -> str:
    path = f"{folder}/stub"
    env = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    subprocess.run([binaries.go(), "build", "-o", path, "."], cwd=STUB, env=env, check=True)
    return path


def measure(name: str, stub: str, seconds: float, *command: str, redis_url: str) -> Figure:
    """Let the command work on a stub of its own, warm up, and count for so long."""
    with process(stub) as server, httpx.Client(trust_env=False) as client:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        environment = {
            "QUEUE_SERVICE_URL": url,
            "REDIS_URL": redis_url,
            "EXECUTOR_ENDPOINTS": ",".join(f"{url}/e{i}" for i in range(EXECUTORS)),
            "EXECUTOR_CONCURRENCY": str(CONCURRENCY),
            "PORT": "0",
            "HOST": "127.0.0.1",
            "LOG_LEVEL": "warning",
            "ROUTING_STRATEGY": "LeastLoaded",
        }
        with process(*command, env=environment) as running:
            time.sleep(2)
            client.get(f"{url}/allow/{PLENTY}")
            time.sleep(2)
            tasks, cpu, started = _reported(client, url), _cpu(running.pid), time.monotonic()
            time.sleep(seconds)
            tasks, cpu = _reported(client, url) - tasks, _cpu(running.pid) - cpu
            took, memory = time.monotonic() - started, _memory(running.pid)
            client.get(f"{url}/allow/-{PLENTY}")
        account = client.get(f"{url}/account").json()
        assert account["reported"] == account["handed_out"] or name != "queueworker worker", f"{name} lost: {account}"
        assert account["unknown"] == 0, f"{name} reported twice: {account}"
        return Figure(name, tasks, took, cpu, memory)


def _reported(client: httpx.Client, url: str) -> int:
    return int(client.get(f"{url}/account").json()["reported"])


def _cpu(pid: int) -> float:
    """User and system seconds of the process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def _memory(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(seconds: Annotated[float, typer.Option(help="Seconds to count each contender for.")] = 8) -> None:
    """Measure, one after the other, and print the table."""
    console = Console(width=110)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        stub = build_stub(folder)
        for name, module in (("the legacy loop", "tests.bench.legacy"), ("queueworker worker", "queueworker.cli")):
            print(f"measuring {name} for {seconds:.0f} s", file=sys.stderr)
            command = [sys.executable, "-m", module, *(["worker"] if module == "queueworker.cli" else [])]
            figures.append(measure(name, stub, seconds, *command, redis_url=redis.url))
    table = Table(title=f"{EXECUTORS} executors × {CONCURRENCY} slots; {platform.machine()}, {os.cpu_count()} cores")
    for column in ("", "tasks/s", "ratio", "CPU µs/task", "MiB"):
        table.add_column(column, justify="left" if not column else "right")
    for figure in figures:
        ratio = figure.rate / figures[0].rate
        row = (f"{figure.rate:,.0f}", f"{ratio:.1f}", f"{figure.cpu_micros:,.0f}", f"{figure.memory_mib:.0f}")
        table.add_row(figure.name, *row)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
