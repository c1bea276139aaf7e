"""The clients of all queues that a router owes reports to: its own, and those that recovered tasks came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queueworker.routing.queue.client import QueueClient


class QueueClients:
    """One client per URL. `own` is the queue that the router polls."""

    def __init__(self, url: str, make: Callable[[str], QueueClient]) -> None:
        self._make = make
        self.own = make(url)
        self._clients = {url: self.own}

    def of(self, url: str) -> QueueClient:
        client = self._clients.get(url)
        if client is None:
            client = self._clients[url] = self._make(url)
        return client

    def all(self) -> Iterable[QueueClient]:
        return self._clients.values()

    def keep_only(self, in_use: set[QueueClient]) -> None:
        """Drop the clients of other queues that no task in flight came from."""
        for client in [c for c in self._clients.values() if c is not self.own and c not in in_use]:
            client.backoff.close()
            del self._clients[client.url]

    def close(self) -> None:
        for client in self._clients.values():
            client.backoff.close()
