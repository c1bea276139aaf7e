"""Starts the demo's services as a person does, each a process of its own, on a free port."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from devcluster.spawning import bound_to_us, end

START_SECONDS = 60
STOP_SECONDS = 10
MIN_REST_SECONDS, MAX_REST_SECONDS = 0.02, 1.0


class DemoProcess:
    """A service that runs, and `first_line`, the first it printed."""

    def __init__(self, process: subprocess.Popen[str], first_line: str) -> None:
        self.process = process
        self.first_line = first_line
        self.url = first_line.rpartition(" ")[2]

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    def error_line(self) -> str:
        """The next line of its standard error; empty when there is none yet."""
        assert self.process.stderr is not None
        ready, _, _ = select.select([self.process.stderr], [], [], 0)
        return self.process.stderr.readline() if ready else ""

    def stop(self) -> int:
        """SIGTERM; returns the exit status. Raises `subprocess.TimeoutExpired` when it does not end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def demo_process(
    module: str, *arguments: str, env: dict[str, str] | None = None, wait_for_line: bool = True
) -> Iterator[DemoProcess]:
    """`python -m demo.services.<module>`, from its first line of output until the end of the block."""
    process = bound_to_us(
        [sys.executable, "-m", f"demo.services.{module}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = ""
        if wait_for_line and select.select([process.stdout], [], [], START_SECONDS)[0]:
            line = process.stdout.readline().strip()
        if wait_for_line and not line:
            process.kill()
            raise AssertionError(f"demo.services.{module} did not start: {process.stderr.read()}")
        yield DemoProcess(process, line)
    finally:
        end(process, patience=STOP_SECONDS)
        process.stdout.close()
        process.stderr.close()


def run_demo(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m demo.services.<module>`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"demo.services.{module}", *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        cwd=Path(__file__).parents[2],
        check=False,
    )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Poll until `condition` holds. Raises `AssertionError` that names `what` when it does not within
    `seconds`.

    It rests twice as long as the condition took, because one that starts kubectl takes the CPU from what it waits for.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked_at = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(min(max(2 * (now - asked_at), MIN_REST_SECONDS), MAX_REST_SECONDS))


def children(pid: int) -> list[str]:
    """`pid state` of each child of a process; state Z is a zombie."""
    listing = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid=,state="], capture_output=True, text=True, check=False
    )
    return listing.stdout.split("\n")[:-1]
