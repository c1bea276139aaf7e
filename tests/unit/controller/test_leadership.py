"""Leader election: decided from the observed Lease, on the monotonic clock alone."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import Cluster
from queueworker.controller.leadership import (
    ADDRESS_ANNOTATION,
    Elector,
    LeaseRecord,
    Move,
    Observed,
    decide,
    deposed,
    observe,
)
from tests.support.stubs import until

OURS, THEIRS, FREE = (LeaseRecord(holder, "1", 8.0) for holder in ("me", "other", ""))


@pytest.mark.parametrize(
    ("observed", "now", "move"),
    [
        (None, 0.0, Move.CREATE),
        (Observed(OURS, 0.0), 0.0, Move.RENEW),
        (Observed(OURS, 0.0), 1e9, Move.RENEW),
        (Observed(FREE, 0.0), 0.0, Move.TAKE),
        (Observed(THEIRS, 100.0), 100.0, Move.WAIT),
        (Observed(THEIRS, 100.0), 108.0, Move.WAIT),
        (Observed(THEIRS, 100.0), 108.1, Move.TAKE),
        (Observed(LeaseRecord("other", "1", 0.0), 100.0), 100.1, Move.TAKE),
    ],
)
def test_a_lease_is_renewed_taken_or_waited_for(observed: Observed | None, now: float, move: Move) -> None:
    assert decide(observed, "me", now) is move


def test_a_record_that_stays_the_same_keeps_the_time_of_its_first_sight() -> None:
    first = observe(THEIRS, None, 10.0)
    assert first == Observed(THEIRS, 10.0)
    again = observe(LeaseRecord("other", "1", 8.0), first, 15.0)
    assert again.since == 10.0
    renewed = observe(LeaseRecord("other", "2", 8.0), again, 17.0)
    assert renewed.since == 17.0
    assert decide(renewed, "me", 20.0) is Move.WAIT


def test_a_leader_that_renews_in_time_is_never_deposed() -> None:
    seen: Observed | None = None
    for renewal in range(200):
        now = renewal * 1.5
        seen = observe(LeaseRecord("other", str(renewal // 5), 8.0), seen, now)
        assert decide(seen, "me", now) is Move.WAIT
    assert seen is not None
    assert decide(seen, "me", seen.since + 8.01) is Move.TAKE


@pytest.mark.parametrize(
    ("record", "silence", "rivals", "lost"),
    [
        (OURS, 1.0, True, False),
        (OURS, 3600.0, False, False),
        (OURS, 8.0, True, False),
        (OURS, 8.1, True, True),
        (FREE, 3600.0, False, False),
        (THEIRS, 0.0, False, True),
    ],
)
def test_a_leader_stops_when_another_leads_and_not_because_the_api_server_is_away(
    record: LeaseRecord, silence: float, rivals: bool, lost: bool
) -> None:
    assert deposed(Observed(record, 0.0), "me", silence, rivals) is lost


class Api(Cluster):
    """Holds one Lease; `error` is raised while it is set, and so many writes meet a change that came before them."""

    def __init__(self, holder: str = "") -> None:
        super().__init__(lambda: None)
        self.error: Exception | None = None
        self.reads = 0
        self.conflicts = 0
        self.write_error: Exception | None = None
        self.lease = client.V1Lease(
            metadata=client.V1ObjectMeta(name="lease", namespace="system", resource_version="1"),
            spec=client.V1LeaseSpec(holder_identity=holder, lease_duration_seconds=8),
        )

    @property
    def holder(self) -> str:
        assert self.lease.spec is not None
        return self.lease.spec.holder_identity or ""

    async def read_lease(self, namespace: str, name: str) -> Any:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return copy.deepcopy(self.lease)

    async def write_lease(self, namespace: str, lease: Any, *, create: bool) -> Any:
        if self.write_error is not None:
            raise self.write_error
        if self.conflicts:
            self.conflicts -= 1
            raise ApiException(status=409, reason="Conflict")
        self.lease = lease
        return lease


async def test_a_refused_election_warns_once_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.error = ApiException(status=401, reason="Unauthorized")
    seen: list[tuple[str, str]] = []
    elector = Elector(
        api,
        "system",
        "lease",
        "me",
        rivals=lambda: False,
        on_holder=lambda *record: seen.append(record),
        address="http://10.0.0.7:8084",
    )
    acquiring = asyncio.create_task(elector.acquire())
    await until(lambda: api.reads == 2)
    assert len(caplog.records) == 1
    assert "system/lease cannot be read or written: 401 Unauthorized" in caplog.text
    api.error = None
    await asyncio.wait_for(acquiring, 5)
    assert "can be read and written again" in caplog.records[-1].message
    assert seen == [("", ""), ("me", "http://10.0.0.7:8084")]
    await elector.release()


async def test_a_lease_that_may_be_read_and_not_written_is_a_refusal_until_it_is_over() -> None:
    api = Api()
    api.write_error = ApiException(status=403, reason="Forbidden")
    seen: list[str] = []
    elector = Elector(api, "system", "lease", "me", rivals=lambda: False, on_refusal=seen.append)
    acquiring = asyncio.create_task(elector.acquire())
    await until(lambda: len(seen) == 1)
    assert seen == ["the Lease system/lease is refused: 403 Forbidden: allow get, update and create on leases"]
    api.write_error = None
    await asyncio.wait_for(acquiring, 5)
    assert seen[-1] == ""
    await elector.release()


async def test_a_standby_sees_who_leads() -> None:
    seen: list[tuple[str, str]] = []
    api = Api("other")
    assert api.lease.metadata is not None
    api.lease.metadata.annotations = {ADDRESS_ANNOTATION: "http://10.0.0.8:8084"}
    elector = Elector(
        api,
        "system",
        "lease",
        "me",
        rivals=lambda: False,
        on_holder=lambda *record: seen.append(record),
        address="http://10.0.0.7:8084",
    )
    acquiring = asyncio.create_task(elector.acquire())
    await until(lambda: seen == [("other", "http://10.0.0.8:8084")])
    acquiring.cancel()


async def test_a_renewal_that_was_under_way_does_not_keep_the_lease_from_being_released() -> None:
    """It was cancelled here, and reached the API server all the same, between the look at the Lease and its release."""
    api = Api()
    elector = Elector(api, "system", "lease", "me", rivals=lambda: False)
    await elector.acquire()
    assert api.holder == "me"
    api.conflicts = 1
    await elector.release()
    assert api.holder == ""


async def test_a_leader_that_cannot_tell_whether_it_has_rivals_goes_on_renewing_and_sees_another_leader() -> None:
    def rivals() -> bool:
        raise RuntimeError("a defect")

    api = Api()
    elector = Elector(api, "system", "lease", "me", rivals=rivals)
    await elector.acquire()
    reads = api.reads
    await until(lambda: api.reads > reads)
    assert api.lease.spec is not None
    api.lease.spec.holder_identity = "other"
    await asyncio.wait_for(elector.lost.wait(), 10)
