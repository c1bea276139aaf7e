"""How the controller calls the API server, over real HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import FAILED, MAX_STATUS_WRITES, Cluster, ObjectGone, SecretUnavailable
from queueworker.controller.kinds import QUEUE_WORKERS
from queueworker.resource.reasons import Reason
from queueworker.resource.spec import SecretKeyRef
from queueworker.web.source import ApiFailure
from tests.support.kube_api import KubeApi
from tests.support.stubs import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
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
        return web.json_response({"kind": "QueueWorker"})


class OneAnswerApi(Server):
    """Answers everything in the same way."""

    def __init__(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        super().__init__()
        self._answer = (status, body, content_type)

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/{path:.*}", self._any)]

    async def _any(self, _: web.Request) -> web.Response:
        status, body, content_type = self._answer
        return web.Response(status=status, body=body, headers={"Content-Type": content_type})


class Calls:
    """A cluster behind that server, and what came of its calls."""

    def __init__(self, api: client.ApiClient) -> None:
        self.answers = 0
        self.failures: list[ApiFailure] = []
        self.cluster = Cluster(self._answered, self.failures.append)
        self.cluster._api = api

    def _answered(self) -> None:
        self.answers += 1


@asynccontextmanager
async def calls(server: Server) -> AsyncIterator[Calls]:
    async with server, client.ApiClient(client.Configuration(host=server.url)) as api:
        yield Calls(api)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>Sign in</html>", "text/html"),
        (200, b"<html>Sign in</html>", "text/html; charset=klingon"),
        (200, b"<html>Sign in</html>", "application/json"),
        (200, b'{"message": "back soon"}'),
        (200, b'{"spec": "none", "data": [], "metadata": 7}'),
        (200, b"[]"),
        (200, b"null"),
        (200, b""),
        (201, b"\xff\xfe", "text/plain"),
    ],
)
async def test_a_success_of_somebody_else_is_a_failed_call_and_no_sign_of_life(answer: tuple[int, bytes]) -> None:
    async with calls(OneAnswerApi(*answer)) as made:
        cluster = made.cluster
        for call in (
            lambda: cluster.read_lease("system", "lease"),
            lambda: cluster.write_lease("system", client.V1Lease(metadata=client.V1ObjectMeta(name="l")), create=False),
            lambda: cluster.list_all(QUEUE_WORKERS, ""),
            lambda: cluster.is_served(QUEUE_WORKERS),
            lambda: cluster.patch_status("team", "legacy", {}),
            lambda: cluster.patch_object("team", "legacy", {}),
            lambda: cluster.secret("team", SecretKeyRef(name="s", key="k")),
            cluster.crd_uid,
        ):
            with pytest.raises(FAILED):
                await call()
        assert made.answers == 0
        assert made.failures == [ApiFailure.CONNECTION] * 8


async def test_a_lease_without_a_spec_is_one_that_nobody_holds() -> None:
    async with calls(OneAnswerApi(200, b'{"kind": "Lease", "metadata": {"name": "lease"}}')) as made:
        lease = await made.cluster.read_lease("system", "lease")
        assert lease.spec.holder_identity is None


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b'{"kind": "Status"}', Reason.SECRET_NOT_FOUND),
        (200, b'{"kind": "Secret", "data": {"other": "dmFsdWU="}}', Reason.SECRET_NOT_FOUND),
        (200, b'{"kind": "Secret", "data": {"k": "/w=="}}', Reason.INVALID_SECRET),
        (403, b'{"kind": "Status"}', Reason.SECRET_READ_FAILED),
        (503, b"no upstream", Reason.SECRET_READ_FAILED),
    ],
)
async def test_a_secret_that_gives_no_value_is_missing_or_not_text_or_refused(
    status: int, body: bytes, reason: Reason
) -> None:
    async with calls(OneAnswerApi(status, body)) as made:
        with pytest.raises(SecretUnavailable) as caught:
            await made.cluster.secret("team", SecretKeyRef(name="s", key="k"))
        assert caught.value.reason is reason
        assert "Secret team/s" in str(caught.value)
        assert ("allow the operator to get it" in str(caught.value)) is (status == 403)


@pytest.mark.parametrize("status", [409, 422, 400, 403])
async def test_a_status_that_is_refused_is_a_refusal_and_nothing_else(status: int) -> None:
    async with calls(OneAnswerApi(status, b'{"kind": "Status", "details": {"name": "legacy"}}')) as made:
        with pytest.raises(ApiException) as caught:
            await made.cluster.patch_status("team", "legacy", {})
        assert caught.value.status == status


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
    async with KubeApi(secret={"kind": "Secret", "data": {"k": "dmFsdWU="}}) as api:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAKE_CALLS),
            env=os.environ | {"KUBECONFIG": api.kubeconfig(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (output, api.asked) == (b"\n", 6)


class NoStatusApi(Server):
    """Has the object `legacy`, whose CRD has no status subresource."""

    def routes(self) -> list[web.RouteDef]:
        return [web.patch("/{path:.*}/{name}/status", self._patch), web.get("/{path:.*}", self._list)]

    async def _patch(self, request: web.Request) -> web.Response:
        details = {"name": request.match_info["name"], "group": "crucible.dev", "kind": "queueworkers"}
        return web.json_response({"kind": "Status", "code": 404, "details": details}, status=404)

    async def _list(self, request: web.Request) -> web.Response:
        is_there = request.query["fieldSelector"] == "metadata.name=legacy"
        return web.json_response({"kind": "QueueWorkerList", "items": [{}] if is_there else []})


async def test_an_object_is_not_gone_because_its_crd_has_no_status() -> None:
    async with calls(NoStatusApi()) as made:
        with pytest.raises(ApiException) as caught:
            await made.cluster.patch_status("team", "legacy", {})
        assert caught.value.status == 404
        with pytest.raises(ObjectGone):
            await made.cluster.patch_status("team", "other", {})


async def test_a_kubeconfig_that_is_being_written_while_the_credentials_are_refused_is_read_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "config"
    written.write_text("clusters: [")
    for module in (config, config.kube_config):
        monkeypatch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(written))
    async with calls(OneAnswerApi(401, b'{"kind": "Status"}')) as made:
        with pytest.raises(ApiException) as caught:
            await made.cluster.crd_uid()
    assert caught.value.status == 401
