"""What the HTTP face shows comes from behind this seam: the worker and the operator each are one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from queueworker.redaction import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.routing.snapshot import ExecutorSnapshot, Link, Snapshot


class Source(Protocol):
    """Asked on every request, in the loop: its methods answer at once, from memory."""

    def snapshots(self) -> Iterable[Snapshot]:
        """One for each router that runs here."""
        ...

    def live(self) -> tuple[bool, str]:
        """Whether the process does its work, and a sentence. False asks Kubernetes to restart it."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether it is done starting and not ending, and a sentence."""
        ...


class Public:
    """A source as anyone may see it: nobody has to log in to the HTTP face, so no URL keeps its credentials."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def snapshots(self) -> list[Snapshot]:
        return [public(snapshot) for snapshot in self._source.snapshots()]

    def live(self) -> tuple[bool, str]:
        return self._source.live()

    def ready(self) -> tuple[bool, str]:
        return self._source.ready()


def public(snapshot: Snapshot) -> Snapshot:
    """Without credentials in its URLs, its messages, and the names that are made from URLs."""
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
