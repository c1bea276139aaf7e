"""Servers of ours as child processes, which never outlive us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

# The death signal comes when the *thread* that started the child ends, not its process (prctl(2)). So one thread,
# which lives as long as we do, starts them all, and `start()` may be called from a thread that soon ends.
_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawning")


def spawn(
    command: Sequence[str], output: IO[bytes], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`, what it says going to `output`; whatever ends us, a SIGKILL too, ends it (on Linux).

    It does not get the terminal's Ctrl-C: its owner ends it, in order. Raises OSError when it cannot be started.
    """
    owner = os.getpid()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _die_with(owner),
        )

    return _THREAD.submit(start).result()


def end(process: subprocess.Popen[bytes], sign: signal.Signals = signal.SIGTERM, patience: float = 10.0) -> None:
    """Send the signal and wait `patience` seconds for the end; one that does not end by then is killed."""
    process.send_signal(sign)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with(owner: int) -> None:
    """Runs in the child. SIGKILL: nothing is worth saving, and a kube-apiserver whose etcd is gone ends only slowly."""
    with contextlib.suppress(AttributeError):  # no prctl: not Linux
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:  # it ended before we asked
            os._exit(1)
