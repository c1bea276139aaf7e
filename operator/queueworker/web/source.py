"""The interface through which the HTTP API reads the state of a worker or an operator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from queueworker.redaction import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queueworker.routing.config import RouterConfig
    from queueworker.routing.snapshot import ExecutorSnapshot, Link, Snapshot


@dataclass(frozen=True, slots=True)
class WatchView:
    """One watch of the leader. An empty namespace stands for all namespaces."""

    kind: str
    namespace: str
    up: bool


class LeaseChange(StrEnum):
    """What happened to the Lease of this replica. LOST: it stopped leading without having been told to end."""

    ACQUIRED = "acquired"
    LOST = "lost"
    RELEASED = "released"


class ApiFailure(StrEnum):
    """Why a call to the API server failed. The values are a metric's label."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    THROTTLED = "throttled"
    REJECTED = "rejected"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"


@dataclass(slots=True)
class OperatorCounters:
    """Monotonic counts since the operator started."""

    lease_changes: dict[LeaseChange, int] = field(default_factory=lambda: dict.fromkeys(LeaseChange, 0))
    api_errors: dict[ApiFailure, int] = field(default_factory=lambda: dict.fromkeys(ApiFailure, 0))


@dataclass(frozen=True, slots=True)
class OperatorView:
    """What only an operator has: whether it leads, and its watches (none on a standby)."""

    leading: bool
    leader: str
    """The holder of the Lease, as this replica saw it last; empty if there is none."""
    watches: Sequence[WatchView] = ()
    identity: str = ""
    """The name of this replica in the Lease."""
    address: str = ""
    """The base URL of the leader's HTTP API, from the Lease; empty if it is not known."""
    unready: str = ""
    """Why this replica is not ready; empty if it is."""
    counters: OperatorCounters = field(default_factory=OperatorCounters)


@dataclass(frozen=True, slots=True)
class ConditionView:
    """A condition of an object, worked out at this moment."""

    type: Annotated[str, Field(description="Subject of the condition.", examples=["Ready"])]
    status: Annotated[str, Field(description="True, False or Unknown.")]
    reason: Annotated[str, Field(description="Reason in one word.", examples=["Routing"])]
    message: Annotated[str, Field(description="Reason in a sentence that says what to do.")]
    since: Annotated[float | None, Field(description="Unix time in seconds of the last change of `status`.")] = None


@dataclass(frozen=True, slots=True)
class EventView:
    """A change of Ready: the Kubernetes Event of the object."""

    time: Annotated[float, Field(description="Unix time in seconds.")]
    type: Annotated[str, Field(description="Normal or Warning.")]
    reason: Annotated[str, Field(description="The reason of Ready.")]
    message: Annotated[str, Field(description="What has changed, in a sentence.")]


@dataclass(frozen=True, slots=True)
class MigrationView:
    """How far the migration to Celery has come."""

    phase: Annotated[str, Field(description="Split, Reduction or Standby.")]
    celery_percent: Annotated[int, Field(description="Share of the traffic that goes to Celery.")]
    standby_since: Annotated[float | None, Field(description="Unix time in seconds of the standby's begin.")] = None


@dataclass(frozen=True, slots=True)
class ObjectView:
    """One QueueWorker. `snapshot` is None while it has no router, for example because its spec is invalid."""

    group: str
    snapshot: Snapshot | None
    conditions: Sequence[ConditionView]
    migration: MigrationView | None = None
    events: Sequence[EventView] = ()
    """The newest first."""


class Source(Protocol):
    """Called on every request in the event loop, so its methods must return at once."""

    def snapshots(self) -> Iterable[Snapshot]:
        """One snapshot for each router of this process."""
        ...

    def objects(self) -> Iterable[ObjectView]:
        """All QueueWorkers of this process, also those without a router.

        Each is made when the iteration comes to it, so that a caller may pause in between.
        """
        ...

    def object(self, group: str) -> ObjectView | None:
        """One of them."""
        ...

    def config(self, group: str) -> RouterConfig | None:
        """What the router of that object runs, with its secrets; None if there is no such router."""
        ...

    def live(self) -> tuple[bool, str]:
        """The result of the liveness probe and its reason. False asks Kubernetes for a restart."""
        ...

    def ready(self) -> tuple[bool, str]:
        """The result of the readiness probe and its reason."""
        ...

    def operator(self) -> OperatorView | None:
        """None for a worker."""
        ...


class Public:
    """A source without the credentials in its URLs: the HTTP API needs no login."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def snapshots(self) -> list[Snapshot]:
        return [public(snapshot) for snapshot in self._source.snapshots()]

    def objects(self) -> Iterable[ObjectView]:
        """As they are: for the list, which shows no URL and no message of a snapshot."""
        return self._source.objects()

    def object(self, group: str) -> ObjectView | None:
        view = self._source.object(group)
        if view is None or view.snapshot is None:
            return view
        return replace(view, snapshot=public(view.snapshot))

    def config(self, group: str) -> RouterConfig | None:
        return self._source.config(group)

    def live(self) -> tuple[bool, str]:
        return self._source.live()

    def ready(self) -> tuple[bool, str]:
        return self._source.ready()

    def operator(self) -> OperatorView | None:
        return self._source.operator()


def public(snapshot: Snapshot) -> Snapshot:
    """The snapshot without credentials in URLs, in messages, and in names that are made from URLs."""
    return replace(
        snapshot,
        executors=tuple(_public_executor(executor) for executor in snapshot.executors),
        queue_url=without_credentials(snapshot.queue_url),
        queue=_public_link(snapshot.queue),
        events=_public_link(snapshot.events),
        journal=_public_link(snapshot.journal),
        failures=tuple(replace(f, error=without_credentials(f.error)) for f in snapshot.failures),
        transitions=tuple(replace(t, message=without_credentials(t.message)) for t in snapshot.transitions),
    )


def _public_executor(executor: ExecutorSnapshot) -> ExecutorSnapshot:
    failures = tuple(replace(f, reason=without_credentials(f.reason)) for f in executor.failures)
    if "@" not in f"{executor.name}{executor.url}{executor.reason}":
        return replace(executor, failures=failures) if failures else executor
    return replace(
        executor,
        name=executor.name.rpartition("@")[2],
        url=without_credentials(executor.url),
        reason=without_credentials(executor.reason),
        failures=failures,
    )


def _public_link(link: Link) -> Link:
    return replace(link, message=without_credentials(link.message)) if "@" in link.message else link
