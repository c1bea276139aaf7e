"""Free ports for servers that are stopped and started again."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Below the ephemeral ports (Linux: from 32768 on). Otherwise a client's connection might take the port while its server
# is stopped, or before it has started.
_FIRST, _LAST = 20000, 32767


def free_ports(count: int) -> list[int]:
    """Distinct ports on which nothing listens now. Raises OSError if there are too few."""
    found: list[int] = []
    share = _share(os.environ)
    start = random.randrange(len(share))
    for port in chain(share[start:], share[:start]):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {_FIRST} and {_LAST}")


def _share(environ: Mapping[str, str]) -> range:
    """All ports, or those of this worker of pytest-xdist: another one would take the port of a stopped server."""
    workers, worker = int(environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), environ.get("PYTEST_XDIST_WORKER", "gw0")
    return range(_FIRST + int(worker.removeprefix("gw")) % workers, _LAST + 1, workers)
