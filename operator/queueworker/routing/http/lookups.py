"""Name lookups in threads of their own: those of the loops are few, and hanging lookups would hold up everybody's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

# Those that are above this number wait for their turn.
MAX_LOOKUPS = 64

# family, type, protocol, canonical name, address: as `socket.getaddrinfo` gives them
AddressInfo = tuple[int, int, int, str, Any]
LookUp = Callable[[str, int], Sequence[AddressInfo]]


def look_up(host: str, port: int) -> Sequence[AddressInfo]:
    """Blocks. Raises OSError, or ValueError for what cannot be a name."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Lookups:
    """Requests that need the same name at the same time share one lookup. Nothing is kept once it has ended."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._under_way: dict[tuple[str, int], asyncio.Future[Sequence[AddressInfo] | Exception]] = {}
        self._waiting: deque[tuple[str, int]] = deque()
        self._threads = 0

    async def find(self, host: str, port: int) -> Sequence[AddressInfo]:
        """Raises what `look_up` raises. A lookup goes on when whoever waits for it gives up."""
        name = (host, port)
        if name not in self._under_way:
            self._under_way[name] = asyncio.get_running_loop().create_future()
            self._waiting.append(name)
            self._start()
        found = await asyncio.shield(self._under_way[name])
        if isinstance(found, Exception):
            raise found
        return found

    def _start(self) -> None:
        while self._waiting and self._threads < MAX_LOOKUPS:
            self._threads += 1
            arguments = (asyncio.get_running_loop(), self._waiting.popleft())
            # A daemon: the process must not wait at its end for a name server that does not answer.
            threading.Thread(target=self._run, args=arguments, name="name lookup", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop, name: tuple[str, int]) -> None:
        try:
            found: Sequence[AddressInfo] | Exception = self._look_up(*name)
        except Exception as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._on_found, name, found)

    def _on_found(self, name: tuple[str, int], found: Sequence[AddressInfo] | Exception) -> None:
        self._threads -= 1
        self._under_way.pop(name).set_result(found)
        self._start()
