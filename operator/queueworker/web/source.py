"""What the HTTP face shows comes from behind this seam: the worker and the operator each are one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.routing.snapshot import Snapshot


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
