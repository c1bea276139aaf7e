"""The state of a router at one moment, as plain values, for status, metrics and the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from queueworker.resource.status import EndpointStatus, description_of

if TYPE_CHECKING:
    from queueworker.routing.config import Intent
    from queueworker.routing.counters import Counters


class Phase(StrEnum):
    """Phase of the router. DRAINING: it pulls no new tasks and finishes those in flight. IDLE: drained, and ready to
    route again.
    """

    STARTING = "Starting"
    ROUTING = "Routing"
    DRAINING = "Draining"
    IDLE = "Idle"
    STOPPED = "Stopped"


class LinkReason(StrEnum):
    """Result of the last exchange with a peer (the queue or Redis)."""

    UNKNOWN = "Unknown"
    CONNECTED = "Connected"
    CONNECTION_FAILED = "ConnectionFailed"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    INVALID_ANSWER = "InvalidAnswer"


@dataclass(frozen=True, slots=True)
class Link:
    """State of the connection to one peer. `message` names the peer and says what to do; empty if all is well."""

    reason: LinkReason = LinkReason.UNKNOWN
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.reason is LinkReason.CONNECTED

    @property
    def is_down(self) -> bool:
        """The last exchange failed; not so before the first."""
        return self.reason not in {LinkReason.CONNECTED, LinkReason.UNKNOWN}


def _described(field: str, **more: Any) -> Any:
    return Field(description=description_of(EndpointStatus, field), **more)


@dataclass(frozen=True, slots=True)
class ExecutorSnapshot:
    """One executor. Metrics and conditions are made from it, and the HTTP API shows it as it is."""

    name: Annotated[str, _described("name", examples=["executor-1"])]
    url: Annotated[str, _described("url", examples=["http://executor-1:8083"])]
    healthy: Annotated[bool, _described("healthy")]
    in_flight: Annotated[int, _described("in_flight")]
    capacity: Annotated[int, _described("capacity")]
    last_check: Annotated[
        float | None,
        Field(
            serialization_alias="last_check_time",
            description="Unix time in seconds of the last answer to a health check.",
        ),
    ]
    reason: Annotated[str, _described("reason")]
    leaving: Annotated[
        bool, Field(description="True if it left the pool: it gets no new tasks, and finishes those that it runs.")
    ] = False
    idle: Annotated[bool, Field(description="True if it has answered every call of this router.")] = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One router at one moment.

    More than 15 attributes: status, metrics and HTTP API read them all from one value.
    """

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
    """Tasks waiting in the queue, by the last answer of its `/status`; None before the first answer."""
    consecutive_errors: int
    last_task_time: float | None
    """Unix time in seconds of the last report of a task."""
    in_flight: int
    """Tasks that were pulled or taken over and are not reported yet."""
    events_buffered: int
    per_minute: int
    """Tasks reported in the last 60 seconds."""
    counters: Counters
    rivals: int = 0
    """Other live routers of the group at the last heartbeat: in an operator, the routers of a later leader."""
    hold: str = ""
    """Why nothing is pulled at this moment though the object wants it; empty when polls may start."""
    memory_held: int = 0
    """Bytes that this router holds, as the budget counts them."""
    memory_budget: int = 0
    """Bytes that all routers of the process may hold."""
    stalled: str = ""
    """Why nothing is pulled though tasks wait and slots are free; empty when that is not so."""

    @property
    def healthy(self) -> int:
        return sum(e.healthy for e in self.executors if not e.leaving)

    @property
    def down(self) -> bool:
        """Whether every executor is sick and idle: one that runs a task may do no better than that for now."""
        return not any(e.healthy or not e.idle for e in self.executors if not e.leaving)

    @property
    def desired(self) -> int:
        return sum(not e.leaving for e in self.executors)
