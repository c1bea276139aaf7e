"""What a router shows of itself: plain values, taken at one moment, read by status, metrics and the HTTP face."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.routing.config import Intent
    from queueworker.routing.counters import Counters


class Phase(StrEnum):
    """Where the router stands. DRAINING: no new pulls, what was pulled is finished. IDLE: drained, and warm."""

    STARTING = "Starting"
    ROUTING = "Routing"
    DRAINING = "Draining"
    IDLE = "Idle"
    STOPPED = "Stopped"


class LinkReason(StrEnum):
    """How the last exchange with a peer (queue, Redis) ended."""

    UNKNOWN = "Unknown"
    CONNECTED = "Connected"
    CONNECTION_FAILED = "ConnectionFailed"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    INVALID_ANSWER = "InvalidAnswer"


@dataclass(frozen=True, slots=True)
class Link:
    """The state of the connection to one peer. `message` names the peer and the way out; empty when all is well."""

    reason: LinkReason = LinkReason.UNKNOWN
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.reason is LinkReason.CONNECTED


@dataclass(frozen=True, slots=True)
class ExecutorSnapshot:
    name: str
    url: str
    healthy: bool
    in_flight: int
    capacity: int
    last_check: float | None
    """Unix time in seconds of the last health check's answer, good or bad."""
    reason: str
    """Why it is not healthy, in words; empty when it is."""
    leaving: bool = False
    """No longer in the pool; it finishes what it runs."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    group: str
    worker_id: str
    intent: Intent
    phase: Phase
    executors: tuple[ExecutorSnapshot, ...]
    queue: Link
    events: Link
    journal: Link
    queue_url: str
    queue_depth: int | None
    """Tasks waiting in the queue as its `/status` last said; None before the first answer."""
    consecutive_errors: int
    last_task_time: float | None
    """Unix time in seconds of the last report."""
    in_flight: int
    """Tasks that were handed to us and are not reported yet."""
    events_buffered: int
    per_minute: int
    """Tasks reported in the last 60 s."""
    counters: Counters
    peers: int = 0
    """Other routers of the group that live: in an operator, those of a leader that came after us."""

    @property
    def healthy(self) -> int:
        return sum(e.healthy for e in self.executors if not e.leaving)

    @property
    def desired(self) -> int:
        return sum(not e.leaving for e in self.executors)
