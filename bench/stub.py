"""Builds, starts and controls the stub, a program in Go (see `stub/`)."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from bench.processes import cpu_seconds, process
from devcluster import go_build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).parent / "stub"
PLENTY = 1_000_000_000
SETTLE_SECONDS = 20.0
# The stub always has one core, so that its cost is the same for every contender.
ONE_CORE = {"GOMAXPROCS": "1"}


@dataclass(frozen=True)
class Account:
    """Counts since the start of the stub. `p50` and `p99` are of the overhead since `Stub.measure`, in seconds."""

    requests: int
    polls: int
    handed_out: int
    executed: int
    twice: int
    reported: int
    unknown: int
    p50: float
    p99: float


class Stub:
    def __init__(self, binary: str, url: str, executors: int, running: subprocess.Popen[str]) -> None:
        self.url = url
        self._binary = binary
        self._port = url.rpartition(":")[2]
        self._process = running
        self._client = httpx.Client(trust_env=False)
        self.executors = [f"http://127.1.{i >> 8}.{i & 255}:{self._port}" for i in range(1, executors + 1)]

    def allow(self, tasks: int) -> Account:
        """Hand out this many more tasks."""
        return self._control(f"allow/{tasks}")

    def rate(self, per_second: float) -> Account:
        """Let tasks arrive at random times (a Poisson process) at this rate per second; 0: one for every pull."""
        return self._control(f"rate/{per_second}")

    def measure(self) -> Account:
        """Discard the times that were observed so far."""
        return self._control("measure")

    def account(self) -> Account:
        return self._control("account")

    def settle(self) -> Account:
        """Hand out no more tasks, and wait until all are reported, or `SETTLE_SECONDS`. Returns the account."""
        self.allow(0)
        return self.await_account(lambda account: account.reported >= account.handed_out)

    def await_account(self, closed: Callable[[Account], bool]) -> Account:
        """The account as soon as `closed` holds for it, or after `SETTLE_SECONDS`."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not closed(account := self.account()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return account

    def drive(self, connections: int, seconds: float) -> int:
        """Run the stub's own client, also on one core. Returns the number of tasks that it processed."""
        command = [self._binary, "-load", f"127.0.0.1:{self._port}", *("-connections", str(connections))]
        with process([*command, "-for", f"{seconds}s"], ONE_CORE) as client:
            assert client.stdout is not None
            return int(client.stdout.readline())

    def kill(self) -> None:
        """Kill the stub; its tasks and counts are gone."""
        self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process.pid)

    def _control(self, command: str) -> Account:
        return Account(**self._client.get(f"{self.url}/control/{command}").json())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def build(folder: str) -> str:
    """Build the stub and return its path. Raises `BinaryError` if there is no Go."""
    path = f"{folder}/stub"
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    with process([go_build.go(), "build", "-C", str(SOURCE), "-o", path, "."], env) as compiler:
        if compiler.wait():
            raise RuntimeError("the stub does not build; the compiler's output is above")
    return path


@contextmanager
def started(binary: str, executors: int, *options: str) -> Iterator[Stub]:
    with process([binary, "-executors", str(executors), *options], ONE_CORE) as running:
        assert running.stdout is not None
        url = running.stdout.readline().split()[-1]
        with Stub(binary, url, executors, running) as stub:
            yield stub
