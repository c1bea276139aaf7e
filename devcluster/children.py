"""Child processes that end with their parent, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

START_SECONDS = 30.0
STOP_SECONDS = 40.0
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Runs in the child. On Linux the child then gets a SIGTERM when its parent ends, even by SIGKILL."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One of our modules as a process. It does not get the terminal's Ctrl-C, so that we stop processes in order."""

    def __init__(self, *command: str, log: Path, env: dict[str, str] | None = None) -> None:
        self.name = " ".join(command[:2])
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=Path(__file__).parents[1],
                env=os.environ | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def first_line(self) -> str:
        """The line that it prints when it is ready. Raises RuntimeError, with the end of its log, if it prints none."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], START_SECONDS)[0]:
            line = self.process.stdout.readline().strip()
            if line:
                return line
        raise RuntimeError(f"{self.name} did not start: {self._log.read_text(errors='replace')[-1000:]}")

    def stop(self) -> str:
        """Send SIGTERM and wait; kill it if it does not end in time. Returns the rest of its output."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.communicate(timeout=STOP_SECONDS)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.communicate()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
