"""The Secrets that an object references: when they are read, and what is kept of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from queueworker.controller.cluster import UNREACHABLE, SecretUnavailable
from queueworker.controller.conditions import SecretProblem
from queueworker.resource.reasons import Reason
from queueworker.routing.backoff import exponential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queueworker.controller.cluster import Cluster
    from queueworker.resource.spec import SecretKeyRef

READ_SECONDS = 60.0
"""Time between two readings of a Secret that is there and whose peer is connected."""
FIRST_RETRY_SECONDS = 2.0
"""Time to the next reading otherwise; doubled each time, up to READ_SECONDS."""


class SecretValue(NamedTuple):
    """Either a value that can be used or a problem. `note` says that the value is older than its Secret, or empty."""

    value: str | None = None
    problem: SecretProblem | None = None
    note: str = ""


@dataclass(slots=True)
class _Kept:
    value: str | None = None
    fault: SecretProblem | None = None
    """Why the last reading brought no value."""
    read_at: float = float("-inf")
    retries: int = 0


class Secrets:
    """Reads the Secrets of one object. A value that was read outlives its Secret, but not the reference to it."""

    def __init__(self, namespace: str, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._namespace = namespace
        self._cluster = cluster
        self._clock = clock
        self._kept: dict[SecretKeyRef, _Kept] = {}

    def keep_only(self, refs: Iterable[SecretKeyRef | None]) -> None:
        """Forget what none of these references names."""
        wanted = set(refs)
        self._kept = {ref: kept for ref, kept in self._kept.items() if ref in wanted}

    async def get(self, ref: SecretKeyRef | None, check: Callable[[str], object], *, connected: bool) -> SecretValue:
        """The value, read again if it is time. `connected`: the peer that it is for answers.

        `check` raises ValueError for a value that cannot be used; its message shows nothing of the value.
        """
        if ref is None:
            return SecretValue()
        kept = self._kept.setdefault(ref, _Kept())
        if self._is_due(kept, connected=connected):
            await self._read(ref, kept)
        if kept.value is None:
            return SecretValue(problem=kept.fault)
        try:
            check(kept.value)
        except ValueError as error:
            text = f"Secret {self._namespace}/{ref.name}: the value of {ref.key} cannot be used: {error}"
            return SecretValue(problem=SecretProblem(text, Reason.INVALID_SECRET))
        note = f"{kept.fault.message}; the value that was read from it is still in use" if kept.fault else ""
        if not kept.value:
            note = f"Secret {self._namespace}/{ref.name}: the value of {ref.key} is empty, so it is not sent"
        return SecretValue(kept.value, note=note)

    def _is_due(self, kept: _Kept, *, connected: bool) -> bool:
        if connected and kept.value is not None and not kept.fault:
            kept.retries = 0
            wait = READ_SECONDS
        else:
            wait = exponential(max(kept.retries, 1), FIRST_RETRY_SECONDS, READ_SECONDS)
        due = self._clock() - kept.read_at >= wait
        if due and wait < READ_SECONDS:
            kept.retries += 1
        return due

    async def _read(self, ref: SecretKeyRef, kept: _Kept) -> None:
        try:
            kept.value, kept.fault = await self._cluster.secret(self._namespace, ref), None
        except SecretUnavailable as error:
            kept.fault = SecretProblem(str(error), error.reason)
        except UNREACHABLE as error:
            where = f"Secret {self._namespace}/{ref.name}"
            text = f"{where} cannot be read: the API server does not answer ({type(error).__name__})"
            kept.fault = SecretProblem(text, Reason.SECRET_READ_FAILED)
        kept.read_at = self._clock()
