"""Kubernetes Events: posted by the way, counted up, and dropped where they are refused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import Cluster
from queueworker.controller.events import ObjectEvent
from queueworker.controller.posting import MAX_WAITING, EventPoster, ObjectName
from tests.support.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OBJECT = ObjectName("team", "legacy", "uid-1")
ROUTING = ObjectEvent("Normal", "Routing", "routing to 1 of 2 executors")


class Api(Cluster):
    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.written: list[tuple[bool, dict[str, Any]]] = []
        self.errors: list[Exception] = []

    async def write_event(self, namespace: str, event: dict[str, Any], *, create: bool) -> None:
        self.written.append((create, event))
        if self.errors:
            raise self.errors.pop(0)


@asynccontextmanager
async def posting(api: Api) -> AsyncIterator[EventPoster]:
    poster = EventPoster(api, "me")
    task = asyncio.create_task(poster.run())
    yield poster
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_event_that_happens_again_is_counted_up() -> None:
    api = Api()
    async with posting(api) as poster:
        poster.post(OBJECT, ROUTING)
        await until(lambda: len(api.written) == 1)
        poster.post(OBJECT, ROUTING._replace(message="routing to 2 of 2 executors"))
        await until(lambda: len(api.written) == 2)
        poster.post(OBJECT, ObjectEvent("Warning", "NoExecutors", "all are gone"))
        poster.post(OBJECT._replace(uid="uid-2"), ROUTING)
        await until(lambda: len(api.written) == 4)
    assert [(create, event["reason"], event["count"]) for create, event in api.written] == [
        (True, "Routing", 1),
        (False, "Routing", 2),
        (True, "NoExecutors", 1),
        (True, "Routing", 1),
    ]
    assert len({event["metadata"]["name"] for _, event in api.written}) == 3
    assert api.written[1][1]["message"] == "routing to 2 of 2 executors"
    assert api.written[0][1]["involvedObject"]["uid"] == "uid-1"


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_what_is_refused_is_dropped_and_does_not_hold_up_the_others(status: int) -> None:
    api = Api()
    api.errors = [ApiException(status=status)]
    async with posting(api) as poster:
        poster.post(OBJECT, ROUTING)
        poster.post(OBJECT._replace(name="other", uid="uid-2"), ROUTING)
        await until(lambda: any(event["involvedObject"]["name"] == "other" for _, event in api.written))


async def test_a_missing_right_is_named_in_the_log_once_and_a_namespace_that_goes_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = Api()
    going, refused = (ApiException(status=403, reason="Forbidden") for _ in range(2))
    going.body = '{"details": {"causes": [{"reason": "NamespaceTerminating"}]}}'
    api.errors = [going, refused, refused]
    async with posting(api) as poster:
        for n in range(4):
            poster.post(OBJECT._replace(uid=f"uid-{n}"), ROUTING)
        await until(lambda: len(api.written) == 4)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert record.message == "Kubernetes Events cannot be posted: 403 Forbidden: allow create and patch on events"


async def test_an_event_that_is_too_old_to_be_counted_up_is_posted_anew() -> None:
    api = Api()
    async with posting(api) as poster:
        poster.post(OBJECT, ROUTING)
        await until(lambda: len(api.written) == 1)
        api.errors = [ApiException(status=404)]
        poster.post(OBJECT, ROUTING)
        await until(lambda: len(api.written) == 3)
    assert [create for create, _ in api.written] == [True, False, True]


async def test_no_more_than_a_bounded_number_of_events_waits() -> None:
    api = Api()
    poster = EventPoster(api, "me")
    for number in range(MAX_WAITING + 10):
        poster.post(OBJECT._replace(uid=str(number)), ROUTING)
    task = asyncio.create_task(poster.run())
    await until(lambda: len(api.written) == MAX_WAITING)
    poster.post(OBJECT, ROUTING)
    await until(lambda: len(api.written) == MAX_WAITING + 1)
    task.cancel()
