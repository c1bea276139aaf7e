"""The operator's options, and its state as the HTTP API shows it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.controller.runner import ObjectRunner
    from queueworker.routing.snapshot import Snapshot

# A replica without an answer from the API server for this long is not ready. Its routers continue.
SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Empty `namespaces` means all namespaces. `identity` is unique for each replica.

    `in_pod`: the operator runs in the cluster, and short host names are looked up in the namespace of their object.
    """

    namespaces: tuple[str, ...] = ()
    lease_name: str = "queueworker-operator"
    lease_namespace: str = "queueworker-system"
    in_pod: bool = False
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid4().hex[:8]}")


class Registry:
    """The runners of this operator and its state; the source of its HTTP API."""

    def __init__(self) -> None:
        self.runners: dict[tuple[str, str], ObjectRunner] = {}
        self.leading = False
        self.stopping = False
        self.watching = False
        """True once the watch of QueueWorkers has begun."""
        self._alive_at = float("-inf")
        """Monotonic time in seconds of the last answer of the API server."""

    def mark_alive(self) -> None:
        """The API server has answered."""
        self._alive_at = time.monotonic()

    def snapshots(self) -> Iterable[Snapshot]:
        return [snapshot for runner in self.runners.values() if (snapshot := runner.snapshot()) is not None]

    def has_rivals(self) -> bool:
        """True if another operator routes for one of our objects, according to Redis."""
        return any(snapshot.rivals for snapshot in self.snapshots())

    def live(self) -> tuple[bool, str]:
        """Always alive when it can answer: a restart helps only if the event loop hangs."""
        return True, "stopping" if self.stopping else "running"

    def ready(self) -> tuple[bool, str]:
        """Ready are a leader that watches its objects and a standby, both only while the API server answers."""
        if self.stopping:
            return False, "stopping: draining the routers"
        silence = time.monotonic() - self._alive_at
        if silence > SILENCE_SECONDS:
            since = "since the start" if silence == float("inf") else f"for {silence:.0f} s"
            return False, f"the API server has not answered {since}; routing continues with the last known objects"
        if self.leading and not self.watching:
            return False, "leading, but the watch of QueueWorkers has not begun: check that the CRD is installed"
        return True, f"leading, with {len(self.runners)} QueueWorkers" if self.leading else "standing by for the leader"
