"""The process of one task: its limits, its output, its end."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

MIB = 1024 * 1024
RUNAWAY_FACTOR = 8
"""A task that has written this many times the output limit is killed: what it writes is discarded anyway."""
PIPE_SECONDS = 1.0
"""Time for a task's pipes to close after its death. Only a descendant that left the process group keeps them open."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that one task may use; `output` applies to stdout and to stderr separately."""

    memory: int = 512 * MIB
    output: int = 10 * MIB


def _in_child(memory: int) -> Callable[[], None]:
    """Runs in the child between fork and exec: sets the limits, and makes the task die with the executor."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return prepare


class Sandbox:
    """The process of one task, with its process group and its output."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._written = 0
        self._stdout, self._stderr = bytearray(), bytearray()
        self.verdict: str | None = None
        self.reason = ""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def output(self) -> str:
        """Standard output and standard error until now."""
        return bytes(self._stdout + self._stderr).decode(errors="replace")

    def kill(self, verdict: str, reason: str) -> None:
        """Kill the process group. The verdict (`timeout` or `killed`) of the first call is kept."""
        if self.verdict is None:
            self.verdict, self.reason = verdict, reason
        self._kill_group()

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def start(self, directory: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=directory,
            env={"PATH": os.defpath, "HOME": directory, "TMPDIR": directory, "PYTHONUTF8": "1"},
            start_new_session=True,
            preexec_fn=_in_child(self._limits.memory),  # safe beside threads: it takes no lock
        )
        if self.verdict is not None:
            self._kill_group()  # `kill` was called while the process was being started

    async def run(self, code: str, timeout: int) -> tuple[int, bytes, bytes]:
        """Return exit code (negative: the signal), stdout and stderr, once the process is reaped."""
        process = self._process
        assert process is not None, "start() comes first"
        pipes = [
            asyncio.ensure_future(self._collect(process.stdout, self._stdout)),
            asyncio.ensure_future(self._collect(process.stderr, self._stderr)),
            asyncio.ensure_future(self._feed(process.stdin, code.encode(errors="surrogatepass"))),
        ]
        try:
            try:
                async with asyncio.timeout(timeout):
                    await process.wait()
            except TimeoutError:
                self.kill("timeout", f"Execution timed out after {timeout} seconds")
                await process.wait()
            self._kill_group()  # processes that it left in the background
            await asyncio.wait(pipes, timeout=PIPE_SECONDS)
        finally:
            self._kill_group()
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
        return await process.wait(), bytes(self._stdout), bytes(self._stderr)

    async def _collect(self, pipe: asyncio.StreamReader | None, into: bytearray) -> None:
        """Read to the end, and keep as much as the limit allows, so the writer never blocks nor fills our memory."""
        while pipe is not None and (chunk := await pipe.read(65536)):
            into += chunk[: max(self._limits.output - len(into), 0)]
            self._written += len(chunk)
            if self._written > RUNAWAY_FACTOR * self._limits.output:
                self.kill("killed", f"Output exceeded {RUNAWAY_FACTOR * self._limits.output} bytes")

    @property
    def truncated(self) -> bool:
        return self._written > self._limits.output

    @staticmethod
    async def _feed(pipe: asyncio.StreamWriter | None, code: bytes) -> None:
        if pipe is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.write(code)
            await pipe.drain()
        pipe.close()
