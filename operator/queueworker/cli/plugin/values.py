"""What is shown of one QueueWorker. Text and JSON are made from the same values, so JSON has all that the text has."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

Body = dict[str, Any]


class Level(StrEnum):
    """How bad something is; the order is that of a list, worst first."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class State:
    """`word` is the reason of Ready, or Degraded, Deleting or Unknown. `message` is a sentence, or empty."""

    level: Level
    word: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the numbers come from: the operator, at this moment, or the object's status."""

    live: bool
    replica: str = ""
    time: str | None = None
    """When the status was written last, in RFC 3339; None if unknown or live."""
    age_seconds: float | None = None
    note: str = ""
    """Why they are not live, and what to do."""


@dataclass(frozen=True, slots=True)
class LinkView:
    """The connection to one peer. `message` says what is wrong and what to do."""

    level: Level
    reason: str = "Unknown"
    message: str = ""
    since: str | None = None
    """Time of the last change, in RFC 3339."""


@dataclass(frozen=True, slots=True)
class ExecutorView:
    name: str
    url: str
    level: Level
    state: str
    """healthy, warming, silent, unhealthy, ejected, unchecked, leaving, draining or drained."""
    in_flight: int = 0
    capacity: int = 0
    checked_seconds_ago: float | None = None
    last_failure: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """More than 15 attributes: the screen and the JSON show them all."""

    namespace: str
    name: str
    state: State
    source: Source
    queue: LinkView
    events: LinkView
    journal: LinkView
    pool: LinkView | None = None
    """The pods of `executors.template`, by the condition PoolReady; None if the operator runs none."""
    executors: tuple[ExecutorView, ...] = ()
    executors_hidden: int = 0
    """Executors that the object's status does not list, because they are too many."""
    executors_healthy: int = 0
    executors_desired: int = 0
    health_path: str = "/health"
    """What the operator asks executors for."""
    queue_url: str = ""
    queue_depth: int | None = None
    events_buffered: int | None = None
    events_dropped: int | None = None
    in_flight: int | None = None
    per_minute: int | None = None
    failed_per_minute: int | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    completed: int | None = None
    failed: int | None = None
    pipeline: dict[str, int] | None = None
    """Tasks by the step that they are at, in the order of the steps."""
    history: tuple[float | None, ...] = ()
    """Tasks a minute, every 5 s, the latest last; None is a gap."""
    migration: str = ""
    celery_percent: int = 0
    drained: tuple[str, ...] = ()
    """Executors that `spec.executors.drained` names."""
    notes: tuple[str, ...] = ()
    """What else a person should know, such as different versions."""
    next: tuple[str, ...] = ()
    """Commands that help now."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def in_use(self) -> int:
        return sum(e.in_flight for e in self.executors)

    @property
    def capacity(self) -> int:
        return sum(e.capacity for e in self.executors if e.state != "leaving")

    def as_json(self) -> Body:
        return asdict(self) | {"in_use": self.in_use, "capacity": self.capacity}
