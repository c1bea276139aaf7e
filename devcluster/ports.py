"""Free ports for servers that are stopped and started again."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the ephemeral ports (Linux: from 32768 on). Otherwise a client's connection might take the port while its server
# is stopped, or before it has started.
_FIRST, _LAST = 20000, 32767


def free_ports(count: int) -> list[int]:
    """Distinct ports on which nothing listens now. Raises OSError if there are too few."""
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST + 1), _LAST + 1 - _FIRST):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {_FIRST} and {_LAST}")
