"""The contenders: programs that are measured, with their settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

# Celery has a virtual environment of its own, which `make bench` creates.
BENCH_BIN = Path(__file__).parents[2] / ".venv-bench" / "bin"
CELERY_PYTHON = str(BENCH_BIN / "python")


@dataclass(frozen=True)
class Contender:
    name: str
    module: str
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict, hash=False)
    pulls: bool = True
    """Whether it pulls from the stub and reports to it. Otherwise its tasks are put into its own queue beforehand."""
    publishes: bool = True
    python: str = sys.executable
    stop_seconds: float = 20.0
    """Time for it to end after SIGTERM."""

    @property
    def command(self) -> list[str]:
        return [self.python, "-m", self.module, *self.arguments]


SLOTS = 64
ROUTER = Contender(
    "this router",
    "queueworker.cli.main",
    ("worker",),
    {"PORT": "0", "HOST": "127.0.0.1", "LOG_LEVEL": "warning", "ROUTING_STRATEGY": "LeastLoaded"},
)
LEGACY = Contender("the legacy loop", "bench.contenders.legacy")


def ceiling(concurrency: int) -> Contender:
    return Contender(
        f"the bare client, concurrency {concurrency}",
        "bench.contenders.ceiling",
        env={"CONCURRENCY": str(concurrency)},
        publishes=False,
    )


CEILINGS = tuple(map(ceiling, (16, 32, 64)))


def celery(pool: str, http: str, concurrency: int, prefetch: int) -> Contender:
    lean = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "error")
    application = ("--app", "bench.contenders.celery_tasks", "--quiet")
    return Contender(
        f"Celery, {pool}, {http}",
        "celery",
        (*application, "worker", "--pool", pool, "--concurrency", str(concurrency), *lean),
        {
            "CELERY_HTTP": http,
            "CELERY_PREFETCH": str(prefetch),
            "C_FORCE_ROOT": "1",
            "PYTHONWARNINGS": "ignore",  # about running as root
        },
        pulls=False,
        python=CELERY_PYTHON,
        stop_seconds=3.0,  # billiard may wait for half a minute, and everything is counted by then
    )


# The fastest settings among 1 to 8 processes or threads, 1 to 64 greenlets, prefetch 0 to 512, -O default and fair.
CELERIES = (
    celery("prefork", "requests", 2, 64),
    celery("prefork", "pycurl", 2, 64),
    celery("threads", "pycurl", 2, 64),
    celery("gevent", "urllib3", 8, 32),
)

# The router without the worker's process (see `embedded`).
EMBEDDED = Contender("the router, embedded", "bench.contenders.embedded", env=dict(ROUTER.env))
