"""The stub in Go (see `stub/`): built, started, told what to hand out, and asked for its account."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from bench.processes import cpu_seconds, process
from devcluster import binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).parent / "stub"
PLENTY = 1_000_000_000
SETTLE_SECONDS = 20.0
# One core for the stub, always: what it costs is then the same for everybody.
ONE_CORE = {"GOMAXPROCS": "1"}


@dataclass(frozen=True)
class Account:
    """What came by, since the start; `p50` and `p99` of the overhead, in seconds, since `Stub.measure`."""

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
        """Hand out so many more."""
        return self._control(f"allow/{tasks}")

    def rate(self, per_second: float) -> Account:
        """Let tasks come at this rate, at random times (a Poisson process); 0: whenever one is asked for."""
        return self._control(f"rate/{per_second}")

    def measure(self) -> Account:
        """Forget the times that were observed so far."""
        return self._control("measure")

    def account(self) -> Account:
        return self._control("account")

    def settle(self) -> Account:
        """Hand out no more, and wait until what was handed out is reported. Returns the account then."""
        self.allow(0)
        return self.await_account(lambda account: account.reported >= account.handed_out)

    def await_account(self, closed: Callable[[Account], bool]) -> Account:
        """The account once it is as it should be, or after a while as it is."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not closed(account := self.account()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return account

    def drive(self, connections: int, seconds: float) -> int:
        """Let the stub's own client (also on one core) take tasks through it; returns how many."""
        command = [self._binary, "-load", f"127.0.0.1:{self._port}", *("-connections", str(connections))]
        with process([*command, "-for", f"{seconds}s"], ONE_CORE) as client:
            assert client.stdout is not None
            return int(client.stdout.readline())

    def kill(self) -> None:
        """It is away at once, with all that it knew."""
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
    """The stub's binary. Raises `BinaryError` when there is no Go."""
    path = f"{folder}/stub"
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    with process([binaries.go(), "build", "-C", str(SOURCE), "-o", path, "."], env) as compiler:
        if compiler.wait():
            raise RuntimeError("the stub does not build; see the compiler's words above")
    return path


@contextmanager
def started(binary: str, executors: int, *options: str) -> Iterator[Stub]:
    with process([binary, "-executors", str(executors), *options], ONE_CORE) as running:
        assert running.stdout is not None
        url = running.stdout.readline().split()[-1]
        with Stub(binary, url, executors, running) as stub:
            yield stub
