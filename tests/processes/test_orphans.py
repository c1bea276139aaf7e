"""What a test run starts ends with it, also if it is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.demo_processes import wait_until

RUN = """
import os, signal
from tests.support.demo_processes import demo_process
from tests.support.worker_processes import worker_process
with demo_process("queue", "--port", "0") as queue, worker_process(QUEUE_SERVICE_URL=queue.url) as worker:
    print(queue.process.pid, worker.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_services_and_workers_end_with_a_test_run_that_is_killed() -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", RUN], cwd=root, capture_output=True, text=True, check=False)
    pids = run.stdout.split()
    assert len(pids) == 2, run.stderr
    wait_until(lambda: not any(is_running(pid) for pid in pids), "both have ended")


def is_running(pid: str) -> bool:
    """A process that has ended, and that nobody has waited for, is no longer running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
