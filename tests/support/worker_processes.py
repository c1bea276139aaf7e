"""Starts `queueworker worker` as a person does, with an environment of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx

from devcluster.spawning import bound_to_us

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A mount namespace of its own, in which /etc/hosts is the file $0; it becomes the command, and keeps its process id.
_WITH_HOSTS = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']
COMMAND = [str(Path(sys.executable).with_name("queueworker"))]
START_SECONDS = 60
STOP_SECONDS = 20
# What a shell needs, and nothing that a test did not say.
_BASE = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


class WorkerProcess:
    """A worker that listens, at `url`; its log is in `log()`."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes], url: str) -> None:
        self.process = process
        self._log = log
        self.url = url

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=10, trust_env=False)

    def log(self) -> str:
        # not `seek` and `read`: the worker writes where they would leave the place that it shares with us
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(STOP_SECONDS)


def can_have_hosts() -> bool:
    """Whether this machine allows a process its own /etc/hosts; some containers do not."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_WITH_HOSTS, "/etc/hosts", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def worker_process(
    hosts: Path | None = None, /, *, through: Sequence[str] = (), **environ: str
) -> Iterator[WorkerProcess]:
    """On a free port, from when it listens until the end of the block; then it is gone, whatever happened.

    `hosts` is what it finds as /etc/hosts, where `can_have_hosts`. `through` is a command that becomes the worker.
    """
    command = [*_WITH_HOSTS, str(hosts), *COMMAND] if hosts else [*through, *COMMAND]
    environ = {"PORT": "0", "HOST": "127.0.0.1"} | environ
    with tempfile.TemporaryFile() as log:
        process = bound_to_us([*command, "worker"], env=_BASE | environ, stdout=log, stderr=log)
        try:
            worker = WorkerProcess(process, log, "")
            deadline = time.monotonic() + START_SECONDS
            while (found := re.search(r"listening on (http://\S+)", worker.log())) is None:
                assert process.poll() is None, f"the worker ended: {worker.log()}"
                assert time.monotonic() < deadline, f"the worker did not listen: {worker.log()}"
                time.sleep(0.02)
            worker.url = found[1]
            yield worker
        finally:
            process.kill()
            process.wait()


def run_command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`queueworker …`, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=_BASE | environ,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
