"""The state of a router at one moment, as plain values, for status, metrics and the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from queueworker.resource.status import EndpointStatus, description_of
from queueworker.routing.counters import Counters
from queueworker.routing.history import History

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.routing.config import Intent


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


class ExecutorState(StrEnum):
    """Ejected: failed too many tasks, and gets none for a while although its health checks succeed. WarmingUp: has
    come back, and gets its slots one by one. Silent: does not answer health checks while it runs a task. Unchecked: has
    not answered its first check. Leaving: has left the pool, and finishes its tasks.
    """

    HEALTHY = "Healthy"
    WARMING_UP = "WarmingUp"
    SILENT = "Silent"
    EJECTED = "Ejected"
    UNHEALTHY = "Unhealthy"
    UNCHECKED = "Unchecked"
    LEAVING = "Leaving"


@dataclass(frozen=True, slots=True)
class ExecutorFailure:
    """A failure of an executor's own: a failed health check that made it unhealthy, or a failed attempt."""

    time: Annotated[float, Field(description="Unix time in seconds.")]
    reason: Annotated[str, Field(description="What failed.", examples=["502 (Bad Gateway)"])]


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that was reported as failed."""

    eval_id: Annotated[str, Field(description="Id of the task.")]
    time: Annotated[float, Field(description="Unix time in seconds of the report.")]
    error: Annotated[str, Field(description="The error that was reported, cut when it is long.")]
    executor: Annotated[str, Field(description="The executor that was asked last; empty if none was.")]
    attempts: Annotated[int, Field(description="Attempts that were made.")]
    ambiguous: Annotated[bool, Field(description="True if the task may have run to its end.")]


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a connection or an executor."""

    time: Annotated[float, Field(description="Unix time in seconds.")]
    subject: Annotated[str, Field(description="What has changed.", examples=["queue", "executor executor-1"])]
    well: Annotated[bool, Field(description="True if it is well again.")]
    message: Annotated[str, Field(description="What is wrong; empty if it is well.")]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where the tasks are that the router has pulled and not finished."""

    pulled: Annotated[int, Field(description="Tasks that wait for a slot or for a health check.")] = 0
    executing: Annotated[int, Field(description="Tasks that executors run.")] = 0
    to_report: Annotated[int, Field(description="Tasks that have ended and wait for the journal and the queue.")] = 0
    to_publish: Annotated[int, Field(description="Events that wait for Redis.")] = 0


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
    state: Annotated[ExecutorState, Field(description="Whether it gets tasks, and if not, why.")] = (
        ExecutorState.HEALTHY
    )
    ejected_until: Annotated[
        float | None, Field(description="Unix time in seconds at which its ejection ends; null if it is not ejected.")
    ] = None
    failures: Annotated[
        tuple[ExecutorFailure, ...],
        Field(description="Its last failures, the newest first. Those of its tasks are not among them."),
    ] = ()


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
    """Tasks waiting in the queue, by the newest answer of its `/status`; None while that is not known."""
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
    awaited: Mapping[str, int] = field(default_factory=dict)
    """Tasks of dead routers that asynchronous executors may still run, by the name of the executor. It may have left
    the pool."""
    hold: str = ""
    """Why nothing is pulled at this moment though the object wants it; empty when polls may start."""
    slots_free: int = 0
    """Slots that could take a task now, including those that are reserved for pulls."""
    oldest_task_seconds: float = 0.0
    """Age of the oldest task in flight, since its pull or its takeover; 0 if there is none."""
    memory_held: int = 0
    """Bytes that this router holds, as the budget counts them."""
    memory_budget: int = 0
    """Bytes that all routers of the process may hold."""
    stalled: str = ""
    """Why nothing is pulled though tasks wait and slots are free; empty when that is not so."""
    pipeline: Pipeline = Pipeline()
    history: History = field(default_factory=lambda: History(Counters()), compare=False)
    """Rates and latencies. As `counters`, it is the router's own, and not a copy."""
    failures: tuple[TaskFailure, ...] = ()
    """The newest failed tasks, the newest first."""
    transitions: tuple[Transition, ...] = ()
    """The newest changes of connections and executors, the newest first."""

    @property
    def healthy(self) -> int:
        return sum(e.healthy for e in self.executors if not e.leaving)

    @property
    def down(self) -> bool:
        """Whether every executor is sick and idle: one that runs a task may do no better than that for now."""
        return not any(e.healthy or not e.idle for e in self.executors if not e.leaving)

    @property
    def slots_in_use(self) -> int:
        """Slots that tasks use on executors, also on those that are leaving."""
        return sum(e.in_flight for e in self.executors)

    @property
    def desired(self) -> int:
        return sum(not e.leaving for e in self.executors)
