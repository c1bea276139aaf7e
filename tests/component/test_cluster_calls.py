"""How the controller calls the API server, over real HTTP."""

from __future__ import annotations

import asyncio

from aiohttp import web
from kubernetes.aio import client

from queueworker.controller.cluster import MAX_STATUS_WRITES, Cluster
from tests.support.stubs import Server

OBJECTS = 100


class CountingApi(Server):
    """Answers every PATCH, slowly, and counts how many it has at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.max_at_once = self.answered = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.patch("/{path:.*}", self._patch)]

    async def _patch(self, request: web.Request) -> web.Response:
        self.now += 1
        self.max_at_once = max(self.max_at_once, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        self.answered += 1
        return web.json_response({})


async def test_many_objects_write_status_a_few_at_a_time() -> None:
    """All at once they were too slow for their timeout, and so was the Lease's renewal: the operator lost it."""
    async with CountingApi() as server, client.ApiClient(client.Configuration(host=server.url)) as api:
        cluster = Cluster(lambda: None)
        cluster._api = api
        await asyncio.gather(*(cluster.patch_status("default", f"worker-{i}", {}) for i in range(OBJECTS)))
    assert server.answered == OBJECTS
    assert server.max_at_once <= MAX_STATUS_WRITES
