"""Servers as child processes that never outlive this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

# The death signal is sent when the *thread* that started the child ends, not its process (prctl(2)). Therefore one
# thread that lives as long as the process starts all children, and `spawn` may be called from a thread that ends soon.
_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawning")


def spawn(
    command: Sequence[str], output: IO[bytes], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` with its output in `output`. On Linux it ends when this process ends, even by SIGKILL.

    It does not get the terminal's Ctrl-C, so that its owner stops processes in order. Raises OSError if it cannot
    start.
    """
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    return bound_to_us(command, cwd=cwd, env=env, start_new_session=True, **streams)


def bound_to_us(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` of the command. On Linux it ends when this process ends, even by SIGKILL."""
    owner = os.getpid()

    def start() -> subprocess.Popen[Any]:
        return subprocess.Popen(command, preexec_fn=lambda: _die_with(owner), **options)

    return _THREAD.submit(start).result()


def end(process: subprocess.Popen[Any], sign: signal.Signals = signal.SIGTERM, patience: float = 10.0) -> None:
    """Send the signal, wait up to `patience` seconds for the process to end, then kill it."""
    process.send_signal(sign)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with(owner: int) -> None:
    """Runs in the child. The signal is SIGKILL because a kube-apiserver without its etcd takes long to end."""
    with contextlib.suppress(AttributeError):  # no prctl: not Linux
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:  # the parent ended before prctl was called
            os._exit(1)
