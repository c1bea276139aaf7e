"""How often an API server, or what stands in its place, is asked for a watch that it does not uphold."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import kopf
import pytest
from aiohttp import web

from queueworker.controller.handlers import QUICK_ENDS, serve
from queueworker.controller.kinds import CRDS, QUEUE_WORKERS
from tests.support.stubs import Server, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from queueworker.controller.kinds import Kind


GONE = b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}\n'


class NoWatchApi(Server):
    """An API server that has no objects, and whose watches end at once: with this answer, or without one."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__()
        self.watches = 0
        self._answer = answer

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api", _answering({"kind": "APIVersions", "versions": ["v1"]})),
            web.get("/api/v1", _answering(_resource("namespaces"))),
            web.get("/apis", _answering({"kind": "APIGroupList", "groups": [_group(QUEUE_WORKERS), _group(CRDS)]})),
            web.get(CRDS.api, _answering(_resource(CRDS.plural))),
            web.get(QUEUE_WORKERS.api, _answering(_resource(QUEUE_WORKERS.plural))),
            web.get(QUEUE_WORKERS.path("team"), self._list),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        if "watch" not in request.query:
            return web.json_response({"kind": "QueueWorkerList", "metadata": {"resourceVersion": "7"}, "items": []})
        self.watches += 1
        if self._answer is None:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=self._answer)


def _answering(body: dict[str, object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body)

    return answer


def _group(kind: Kind) -> dict[str, object]:
    version = {"groupVersion": f"{kind.group}/{kind.version}", "version": kind.version}
    return {"name": kind.group, "versions": [version], "preferredVersion": version}


def _resource(plural: str) -> dict[str, object]:
    known = {"name": plural, "singularName": "", "kind": plural, "namespaced": True, "verbs": ["list", "watch"]}
    return {"kind": "APIResourceList", "resources": [known]}


class RefusingApi(NoWatchApi):
    """An API server that has just come to refuse our credentials: it answers 401 to lists. `asked` is when."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked: list[float] = []

    async def _list(self, _: web.Request) -> web.Response:
        self.asked.append(time.monotonic())
        return web.json_response({"kind": "Status", "code": 401}, status=401)


class OddObjectApi(NoWatchApi):
    """An API server with one object, which somebody gave an annotation of operators that are made with kopf."""

    async def _list(self, request: web.Request) -> web.Response:
        if "watch" in request.query:
            return await super()._list(request)
        annotations = {"kopf.zalando.org/last-handled-configuration": "no JSON"}
        item = {"metadata": {"namespace": "team", "name": "legacy", "uid": "uid-1", "annotations": annotations}}
        return web.json_response({"kind": "QueueWorkerList", "metadata": {"resourceVersion": "7"}, "items": [item]})


class Access:
    """The part of `Cluster` that a watch uses."""

    def __init__(self, server: str) -> None:
        self._server = server

    async def connection(self) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=self._server)


async def watch(api: NoWatchApi, on_relist: Callable[[], None], stop: asyncio.Event) -> None:
    access: Any = Access(api.url)
    await serve(QUEUE_WORKERS, "team", access, lambda *_: None, on_relist, lambda: None, stop)


def at_most_one_a_second(times: list[float], began: float) -> bool:
    """Not from one to the next: a busy machine delays each of them by another time."""
    return all(at - began > 0.9 * number for number, at in enumerate(times))


@pytest.mark.parametrize("answer", [b"", None])
async def test_a_watch_that_ends_as_soon_as_it_begins_is_asked_for_once_a_second_and_then_given_up(
    answer: bytes | None,
) -> None:
    relists: list[int] = []
    async with NoWatchApi(answer) as api, asyncio.timeout(30):
        with pytest.raises(ConnectionError, match="ends as soon as it begins"):
            await watch(api, lambda: relists.append(api.watches), asyncio.Event())
        assert relists == []
        # aiohttp asks once more when a connection that it kept has broken
        assert QUICK_ENDS <= api.watches <= 2 * QUICK_ENDS


async def test_a_watch_that_is_answered_gone_is_made_known_and_asked_for_once_a_second() -> None:
    relists: list[float] = []
    stop, began = asyncio.Event(), time.monotonic()
    async with NoWatchApi(GONE) as api, asyncio.timeout(30):
        watching = asyncio.create_task(watch(api, lambda: relists.append(time.monotonic()), stop))
        await until(lambda: len(relists) == 3)
        stop.set()
        await watching
        assert api.watches <= 4
    assert at_most_one_a_second(relists, began)


async def test_an_object_is_heard_of_whatever_the_annotations_of_other_operators_hold() -> None:
    heard: list[str] = []
    stop = asyncio.Event()
    async with OddObjectApi(GONE) as api, asyncio.timeout(30):
        access: Any = Access(api.url)

        def hear(_: str | None, body: dict[str, Any]) -> None:
            heard.append(body["metadata"]["name"])

        serving = asyncio.create_task(serve(QUEUE_WORKERS, "team", access, hear, lambda: None, lambda: None, stop))
        await until(lambda: heard)
        stop.set()
        await serving
    assert set(heard) == {"legacy"}


async def test_an_api_server_that_refuses_the_credentials_is_asked_once_a_second() -> None:
    """Each time with credentials that are read anew, which takes CPU time that the routers need."""
    stop, began = asyncio.Event(), time.monotonic()
    async with RefusingApi() as api, asyncio.timeout(30):
        watching = asyncio.create_task(watch(api, lambda: None, stop))
        await until(lambda: len(api.asked) == 4)
        stop.set()
        await watching
    assert at_most_one_a_second(api.asked, began)
