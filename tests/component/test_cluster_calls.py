"""How the controller calls the API server, over real HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from aiohttp import web
from kubernetes.aio import client

from queueworker.controller.cluster import MAX_STATUS_WRITES, Cluster
from tests.support.kube_api import KubeApi
from tests.support.stubs import Server

if TYPE_CHECKING:
    from pathlib import Path

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


READ_A_SECRET = """
import asyncio
from queueworker.controller.cluster import Cluster
from queueworker.resource.spec import SecretKeyRef

async def main():
    async with Cluster(lambda: None) as cluster:
        print(await cluster.secret("team", SecretKeyRef(name="s", key="k")))

asyncio.run(main())
"""


async def test_the_api_server_is_reached_without_the_proxies_of_the_environment(tmp_path: Path) -> None:
    async with KubeApi(secret={"data": {"k": "dmFsdWU="}}) as api, KubeApi() as proxy:
        proxies = {name: proxy.url for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", READ_A_SECRET),
            env=os.environ | proxies | {"KUBECONFIG": api.kubeconfig(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (output, api.asked, proxy.asked) == (b"value\n", 1, 0)


MAKE_CALLS = """
import asyncio, sys
from contextlib import suppress
from kubernetes.aio.client.exceptions import ApiException
from queueworker.controller.cluster import Cluster, ObjectGone
from queueworker.resource.spec import SecretKeyRef

EVENT = {"metadata": {"name": "e"}, "involvedObject": {}, "count": 1, "message": "", "lastTimestamp": None}

async def main():
    async with Cluster(lambda: None) as cluster:
        await cluster.secret("team", SecretKeyRef(name="s", key="k"))
        for call in (
            cluster.write_event("team", EVENT, create=True), cluster.write_event("team", EVENT, create=False),
            cluster.crd_uid(), cluster.patch_status("team", "legacy", {}), cluster.patch_object("team", "legacy", {}),
        ):
            with suppress(ApiException, ObjectGone):
                await call
    print(*(name for name in sys.modules if name.startswith("kubernetes.aio.client.api.")), flush=True)

asyncio.run(main())
"""


async def test_no_call_of_a_leader_imports_a_part_of_the_client(tmp_path: Path) -> None:
    """CoreV1Api takes a second of CPU time: on a busy node the event loop stood still until the leases had expired."""
    async with KubeApi(secret={"data": {"k": "dmFsdWU="}}) as api:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAKE_CALLS),
            env=os.environ | {"KUBECONFIG": api.kubeconfig(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (output, api.asked) == (b"\n", 6)
