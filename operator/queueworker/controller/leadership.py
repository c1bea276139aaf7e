"""Who of the replicas leads, by a Lease. The others stand by, and one takes over when the leader falls silent.

`kubernetes.aio.leaderelection` has the parts, but goes by the wall clock (a clock set forward steals or
loses the lease), ends on a broken connection, and does not give the lease up. So the decision is ours,
a pure function on the monotonic clock; what others wrote into the Lease is only ever compared, never read as a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from kubernetes.aio import client

from queueworker.controller.cluster import FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.controller.cluster import Cluster

log = logging.getLogger(__name__)

DURATION_SECONDS = 8
REQUEST_DEADLINE_SECONDS = 5.0
RETRY_SECONDS = 1.5


class Move(Enum):
    CREATE = "create"
    RENEW = "renew"
    TAKE = "take"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says, as far as the election goes. `version` changes with every write."""

    holder: str
    version: str
    duration: float


@dataclass(frozen=True, slots=True)
class Observed:
    """A record, and when (monotonic, seconds) we first saw it."""

    record: Record
    since: float


def observe(record: Record, before: Observed | None, now: float) -> Observed:
    """A record that has not changed keeps the time that it was first seen at."""
    return before if before is not None and before.record == record else Observed(record, now)


def decide(observed: Observed | None, me: str, now: float) -> Move:
    """Renew our own; take what is free or was not renewed for its whole duration, as we saw it."""
    if observed is None:
        return Move.CREATE
    record = observed.record
    if record.holder == me:
        return Move.RENEW
    if not record.holder or now - observed.since > record.duration:
        return Move.TAKE
    return Move.WAIT


def deposed(observed: Observed | None, me: str, silence: float, rivals: bool) -> bool:
    """Whether a leader has to stop, which last renewed the Lease `silence` seconds ago.

    Another holder is seen; or the API server is out of reach, and `rivals` route what we route: then it
    is out of reach for us alone. When it is away for everybody there are none, and routing goes on.
    """
    if observed is not None and observed.record.holder not in {me, ""}:
        return True
    return silence > DURATION_SECONDS and rivals


class Elector:
    """Holds the Lease for this replica, or waits for it. `rivals`: whether others route what this one does."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        *,
        rivals: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost = asyncio.Event()
        """Set when another leads: whoever leads must stop."""
        self._rivals = rivals
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._observed: Observed | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Return when this replica leads; it then renews by itself until `release`, or until `lost` is set."""
        while not await self._try():
            await asyncio.sleep(RETRY_SECONDS)
        self.lost.clear()
        self._renewing = asyncio.create_task(self._renew_for_ever(), name="lease")

    async def release(self) -> None:
        """Stop renewing, and give the lease up so that another leads at once."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        self._renewing = None
        try:
            lease = await self._cluster.read_lease(self._namespace, self._name)
            if lease is not None and lease.spec.holder_identity == self._identity:
                lease.spec.holder_identity = ""
                await self._cluster.write_lease(self._namespace, lease, create=False)
        except FAILED as error:
            log.info("the lease could not be given up and will run out: %s", error)

    async def _renew_for_ever(self) -> None:
        renewed = self._clock()
        while not deposed(self._observed, self._identity, self._clock() - renewed, self._rivals()):
            await asyncio.sleep(RETRY_SECONDS)
            asked = self._clock()
            if await self._try():
                renewed = asked
        log.error("the lease %s/%s was lost", self._namespace, self._name)
        self.lost.set()

    async def _try(self) -> bool:
        """One round. Whether the lease is ours now."""
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_SECONDS):
                lease = await self._cluster.read_lease(self._namespace, self._name)
                self._observed = None if lease is None else observe(_record(lease), self._observed, self._clock())
                move = decide(self._observed, self._identity, self._clock())
                if move is Move.WAIT:
                    return False
                lease = _written(lease, self._namespace, self._name, self._identity, move)
                lease = await self._cluster.write_lease(self._namespace, lease, create=move is Move.CREATE)
        except FAILED as error:
            log.debug("lease: %s", error)
            return False
        self._observed = observe(_record(lease), self._observed, self._clock())
        return True


def _record(lease: Any) -> Record:
    spec = lease.spec
    return Record(
        spec.holder_identity or "", lease.metadata.resource_version or "", float(spec.lease_duration_seconds or 0)
    )


def _written(lease: Any, namespace: str, name: str, me: str, move: Move) -> Any:
    """The Lease as we want it. The times are for people who look."""
    now = datetime.now(UTC)
    if lease is None:
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name, namespace=namespace), spec=client.V1LeaseSpec())
    spec = lease.spec
    if move is not Move.RENEW:
        spec.acquire_time = now
        spec.lease_transitions = (spec.lease_transitions or 0) + (move is Move.TAKE)
    spec.holder_identity = me
    spec.lease_duration_seconds = DURATION_SECONDS
    spec.renew_time = now
    return lease
