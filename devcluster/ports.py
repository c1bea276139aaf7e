"""Ports for servers that come and go."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the ports that systems give to outgoing connections (Linux: from 32768 on), or a client's connection may take
# the port while its server is away, or between our choice and its start.
_FIRST, _LAST = 20000, 32767


def free_ports(count: int) -> list[int]:
    """Distinct ports that nothing listens on now."""
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST + 1), _LAST + 1 - _FIRST):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {_FIRST} and {_LAST}")
