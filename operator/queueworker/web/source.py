"""The interface through which the HTTP API reads the state of a worker or an operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from queueworker.redaction import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queueworker.routing.snapshot import ExecutorSnapshot, Link, Snapshot


@dataclass(frozen=True, slots=True)
class WatchView:
    """One watch of the leader. An empty namespace stands for all namespaces."""

    kind: str
    namespace: str
    up: bool


@dataclass(frozen=True, slots=True)
class OperatorView:
    """What only an operator has: whether it leads, and its watches (none on a standby)."""

    leading: bool
    leader: str
    """The holder of the Lease, as this replica saw it last; empty if there is none."""
    watches: Sequence[WatchView] = ()


class Source(Protocol):
    """Called on every request in the event loop, so its methods must return at once."""

    def snapshots(self) -> Iterable[Snapshot]:
        """One snapshot for each router of this process."""
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
    )


def _public_executor(executor: ExecutorSnapshot) -> ExecutorSnapshot:
    if "@" not in f"{executor.name}{executor.url}{executor.reason}":
        return executor
    return replace(
        executor,
        name=executor.name.rpartition("@")[2],
        url=without_credentials(executor.url),
        reason=without_credentials(executor.reason),
    )


def _public_link(link: Link) -> Link:
    return replace(link, message=without_credentials(link.message)) if "@" in link.message else link
