"""Leader election by a Lease: one replica leads, the others stand by and take over when it stops renewing.

`kubernetes.aio.leaderelection` is not used: it compares wall clocks (a clock set forward steals or loses the Lease),
ends on a broken connection, and does not release the Lease. Here the decision is a pure function on the monotonic
clock. The times that other replicas wrote into the Lease are never read.
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

from queueworker.controller.cluster import FAILED, reason_of
from queueworker.resource import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.controller.cluster import Cluster

log = logging.getLogger(__name__)

DURATION_SECONDS = 8
REQUEST_DEADLINE_SECONDS = 5.0
RETRY_SECONDS = 1.5
RELEASE_TRIES = 3
REFUSALS = frozenset({401, 403, 404})
ADVICE = ": allow get, update and create on leases"
ADDRESS_ANNOTATION = f"{names.GROUP}/address"
"""On the Lease: where the other replicas reach the HTTP API of its holder."""


class Move(Enum):
    CREATE = "create"
    RENEW = "renew"
    TAKE = "take"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The parts of a Lease that the election uses. `version` changes with every write, `duration` is in seconds."""

    holder: str
    version: str
    duration: float
    address: str = ""
    """The base URL of the holder's HTTP API."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A record and the monotonic time in seconds at which this replica first saw it."""

    record: LeaseRecord
    since: float


def observe(record: LeaseRecord, before: Observed | None, now: float) -> Observed:
    """An unchanged record keeps the time at which it was first seen."""
    return before if before is not None and before.record == record else Observed(record, now)


def decide(observed: Observed | None, me: str, now: float) -> Move:
    """Renew our own Lease. Take one that is free, or that was not renewed for its whole duration."""
    if observed is None:
        return Move.CREATE
    record = observed.record
    if record.holder == me:
        return Move.RENEW
    if not record.holder or now - observed.since > record.duration:
        return Move.TAKE
    return Move.WAIT


def deposed(observed: Observed | None, me: str, silence: float, rivals: bool) -> bool:
    """True if a leader that last renewed the Lease `silence` seconds ago has to stop leading.

    It stops if another replica holds the Lease. It also stops if it cannot renew while rivals route for the same
    objects: then the API server is unreachable for this replica only. If the API server is away for all replicas,
    there are no rivals, and the leader continues to route.
    """
    if observed is not None and observed.record.holder not in {me, ""}:
        return True
    return silence > DURATION_SECONDS and rivals


class Elector:
    """Acquires, renews and releases the Lease for this replica.

    `rivals` tells whether another operator routes for the same objects. `on_holder` gets the holder of the Lease and
    its address whenever they were seen; empty if there is none. `on_refusal` gets why the API server refuses the Lease;
    empty when it does so no longer. `address` is ours, for the others.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        *,
        rivals: Callable[[], bool],
        on_holder: Callable[[str, str], None] = lambda _holder, _address: None,
        on_refusal: Callable[[str], None] = lambda _refusal: None,
        address: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost = asyncio.Event()
        """Set when this replica must stop leading."""
        self._rivals = rivals
        self._on_holder = on_holder
        self._on_refusal = on_refusal
        self._refusal = ""
        """Why the last try failed, in a few words; empty if it did not."""
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._address = address
        self._clock = clock
        self._observed: Observed | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Return when this replica leads. It then renews the Lease until `release`, or until `lost` is set."""
        while not await self._try():
            await asyncio.sleep(RETRY_SECONDS)
        self.lost.clear()
        self._renewing = asyncio.create_task(self._renew_for_ever(), name="lease")

    async def release(self) -> None:
        """Stop renewing, and release the Lease so that another replica leads at once."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        self._renewing = None
        for tries_left in reversed(range(RELEASE_TRIES)):
            try:
                await self._give_up()
            except FAILED as error:
                # 409: the renewal that was just cancelled had reached the API server
                if tries_left and getattr(error, "status", None) == 409:
                    continue
                log.info("the Lease could not be released and will expire: %s", reason_of(error))
            return

    async def _give_up(self) -> None:
        lease = await self._cluster.read_lease(self._namespace, self._name)
        if lease is not None and lease.spec.holder_identity == self._identity:
            lease.spec.holder_identity = ""
            await self._cluster.write_lease(self._namespace, lease, create=False)

    async def _renew_for_ever(self) -> None:
        renewed = self._clock()
        while not self._is_deposed(self._clock() - renewed):
            await asyncio.sleep(RETRY_SECONDS)
            started = self._clock()
            try:
                if await self._try():
                    renewed = started
            except Exception:  # or the renewal would end, and nobody would be told that the Lease is lost
                log.exception("the renewal of the Lease %s/%s met a defect", self._namespace, self._name)
        log.error("the Lease %s/%s was lost", self._namespace, self._name)
        self.lost.set()

    def _is_deposed(self, silence: float) -> bool:
        try:
            rivals = self._rivals()
        except Exception:  # as above
            log.exception("whether there are rivals cannot be told")
            rivals = False
        return deposed(self._observed, self._identity, silence, rivals)

    async def _try(self) -> bool:
        """One attempt to acquire or renew. Returns True if this replica holds the Lease afterwards."""
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_SECONDS):
                lease = await self._cluster.read_lease(self._namespace, self._name)
                self._see(lease)
                move = decide(self._observed, self._identity, self._clock())
                if move is Move.WAIT:
                    self._answered("")
                    return False
                lease = _written(lease, self._namespace, self._name, self._identity, self._address, move)
                lease = await self._cluster.write_lease(self._namespace, lease, create=move is Move.CREATE)
        except FAILED as error:
            # 409: another replica was faster, which is how it should be
            status = getattr(error, "status", None)
            self._answered("" if status == 409 else f"{reason_of(error)}{ADVICE if status == 403 else ''}")
            if status in REFUSALS:
                self._on_refusal(f"the Lease {self._namespace}/{self._name} is refused: {self._refusal}")
            return False
        self._answered("")
        self._see(lease)
        return True

    def _see(self, lease: Any) -> None:
        self._observed = None if lease is None else observe(_record(lease), self._observed, self._clock())
        record = self._observed.record if self._observed is not None else None
        self._on_holder(*(record.holder, record.address) if record is not None else ("", ""))

    def _answered(self, refusal: str) -> None:
        """Say once that the Lease cannot be had, and once that it can again."""
        name = f"{self._namespace}/{self._name}"
        if refusal and not self._refusal:
            log.warning("the Lease %s cannot be read or written: %s; it is tried again", name, refusal)
        elif self._refusal and not refusal:
            log.warning("the Lease %s can be read and written again", name)
        self._refusal = refusal
        if not refusal:
            self._on_refusal("")


def _record(lease: Any) -> LeaseRecord:
    spec, metadata = lease.spec, lease.metadata
    address = (metadata.annotations or {}).get(ADDRESS_ANNOTATION, "")
    version, duration = metadata.resource_version or "", float(spec.lease_duration_seconds or 0)
    return LeaseRecord(spec.holder_identity or "", version, duration, address)


def _written(lease: Any, namespace: str, name: str, me: str, address: str, move: Move) -> Any:
    """The Lease to write. Its times are for people only."""
    now = datetime.now(UTC)
    if lease is None:
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name, namespace=namespace), spec=client.V1LeaseSpec())
    spec = lease.spec
    lease.metadata.annotations = {**(lease.metadata.annotations or {}), ADDRESS_ANNOTATION: address}
    if move is not Move.RENEW:
        spec.acquire_time = now
        spec.lease_transitions = (spec.lease_transitions or 0) + (move is Move.TAKE)
    spec.holder_identity = me
    spec.lease_duration_seconds = DURATION_SECONDS
    spec.renew_time = now
    return lease
