"""What an operator is told at its start, and what it shows to its HTTP face."""

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

# A leader that has not heard from the API server for this long says that it is not ready; routing goes on.
SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """`namespaces` empty: the whole cluster. `identity` tells the replicas apart."""

    namespaces: tuple[str, ...] = ()
    lease_name: str = "queueworker-operator"
    lease_namespace: str = "queueworker-system"
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid4().hex[:8]}")


class Registry:
    """The routers of this operator, and its signs of life."""

    def __init__(self) -> None:
        self.runners: dict[tuple[str, str], ObjectRunner] = {}
        self.leading = False
        self.stopping = False
        self.heard_at = float("-inf")
        """On the monotonic clock: when the API server last answered us."""
        self.watching = False
        """Whether the watch of QueueWorkers has begun."""

    def heard(self) -> None:
        self.heard_at = time.monotonic()

    def snapshots(self) -> Iterable[Snapshot]:
        return [snapshot for runner in self.runners.values() if (snapshot := runner.snapshot()) is not None]

    def has_rivals(self) -> bool:
        """Whether others route what this operator routes, as Redis says."""
        return any(snapshot.rivals for snapshot in self.snapshots())

    def live(self) -> tuple[bool, str]:
        """The loop answers: that is all that a restart could mend."""
        return True, "stopping" if self.stopping else "running"

    def ready(self) -> tuple[bool, str]:
        """A leader that watches, or a standby that could lead: both only while the API server answers."""
        if self.stopping:
            return False, "stopping: draining the routers"
        silence = time.monotonic() - self.heard_at
        if silence > SILENCE_SECONDS:
            since = "since the start" if silence == float("inf") else f"for {silence:.0f} s"
            return False, f"the API server has not answered {since}; routing goes on as it was"
        if self.leading and not self.watching:
            return False, "leading, but the watch of QueueWorkers has not begun: is the CRD installed?"
        return True, f"leading, with {len(self.runners)} QueueWorkers" if self.leading else "standing by for the leader"
