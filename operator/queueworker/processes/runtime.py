"""What a process that runs for long sets up in the interpreter and in the kernel."""

from __future__ import annotations

import gc
import resource

MAX_OPEN_FILES = 65_536
"""An operator has three or four for each object, and one for each task that an executor runs."""


def prepare() -> None:
    """To be called once all modules are imported."""
    # Imported modules stay for good, so the collector skips them; and it runs less often than every 700 allocations.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    allow_open_files()


def allow_open_files(wanted: int = MAX_OPEN_FILES) -> None:
    """Raise the limit of open files and sockets as far as the hard limit allows, at most to `wanted`.

    Systemd and newer container runtimes set 1,024, for programs that use select(). An operator with three hundred
    objects has more, and its connections would fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
