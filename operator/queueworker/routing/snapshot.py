"""What a router shows of itself: plain values, taken at one moment, read by status, metrics and the HTTP face."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.routing.config import Intent


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


BUCKETS_SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)


class Histogram:
    """Counts per bucket of `BUCKETS_SECONDS` (the last one is +Inf) and their sum; about 0.3 µs an observation."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class Counters:
    """Monotonic counts since this router started; plain integers, because the hot path adds to them."""

    polls: int = 0
    """Calls of `GET /tasks/next`, whatever their answer."""
    polls_empty: int = 0
    polls_failed: int = 0
    pulls_lost: int = 0
    """Polls whose answer never reached us: each may have popped a task, the one loss that no client can prevent."""
    pulled: int = 0
    """Tasks that the queue handed to us."""
    duplicates: int = 0
    """Tasks handed to us while the same eval_id was in flight; the report of the first serves for both."""
    invalid: int = 0
    """Tasks that could not be routed as they came (no eval_id, no code, not an object)."""
    completed: int = 0
    """Tasks reported as complete."""
    failed: int = 0
    """Tasks reported as failed, whatever the cause. completed + failed is what status calls routed."""
    retried: int = 0
    """Attempts sent again after an ambiguous failure, as `routing.retry` allows."""
    recovered: int = 0
    """Tasks taken over from the journal of a router that died."""
    attempts_failed: int = 0
    """Attempts that an executor refused or broke: the legacy worker's failed routing attempts."""
    ejections: int = 0
    """Executors left alone for a time because they failed task after task by a fault of their own."""
    reports_unknown: int = 0
    """Reports that the queue answered with unknown id (it had restarted, or had the report already)."""
    events_published: int = 0
    events_dropped: int = 0
    """Events dropped, oldest first, because the buffer was full while Redis was away."""
    journal_errors: int = 0
    overhead: Histogram = field(default_factory=Histogram)
    """Seconds from the pull's answer to the report's acknowledgement that no executor used."""
    execution: Histogram = field(default_factory=Histogram)
    """Seconds from sending `/execute` to its answer."""

    @property
    def routed(self) -> int:
        return self.completed + self.failed


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
