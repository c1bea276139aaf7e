"""The operator without its API server, without its Lease, with another clock and another key: routing goes on."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from redis.asyncio import Redis

from demo.control_plane.server import OPERATOR_ACCOUNT, ControlPlane
from tests.component.worker_processes import WorkerProcess
from tests.controlplane.conftest import control_plane, kubectl, namespace  # noqa: F401 - fixtures
from tests.controlplane.operating import install, operator, worker
from tests.faults.http_faults import changes_key
from tests.faults.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.controlplane.conftest import Kubectl
    from tests.faults.proxy import Exchange
    from tests.faults.rig import Rig

# one control plane for all of them
pytestmark = pytest.mark.xdist_group("control-plane")

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class Cluster:
    """The API server as one case sees it: a namespace of its own, and a way there that can be cut."""

    def __init__(self, rig: Rig, plane: ControlPlane, kubectl: Kubectl, namespace: str, folder: Path) -> None:
        self.rig = rig
        self.plane = plane
        self.kubectl = kubectl
        self.namespace = namespace
        self.folder = folder

    def way(self) -> Proxy:
        """To the API server; its certificate is for 127.0.0.1."""
        proxy = Proxy(("127.0.0.1", int(self.plane.url.rpartition(":")[2])))
        proxy.host = "127.0.0.1"
        return proxy

    def apply(self, **more: Any) -> None:
        """The object, for the rig's queue, executors and Redis."""
        spec = {
            "queue": {"url": self.rig.queue.proxy.url},
            "events": {"redisURL": self.rig.environ["REDIS_URL"]},
            "executors": {"endpoints": [site.proxy.url for site in self.rig.executors], "concurrency": 2},
        }
        for name, value in more.items():
            spec[name] = spec.get(name, {}) | value
        self.kubectl("apply", "-n", self.namespace, "-f", "-", input=worker("legacy", **spec))

    @asynccontextmanager
    async def operator(self, way: Proxy | None = None, **environ: str) -> AsyncIterator[WorkerProcess]:
        """An operator for this namespace alone, as the rig's services are: a process with a log and metrics."""
        config = Path(self.plane.kubeconfig_for(*OPERATOR_ACCOUNT))
        if way is not None:
            config = self.folder / f"kubeconfig-{way.port}"
            direct = Path(self.plane.kubeconfig_for(*OPERATOR_ACCOUNT)).read_text()
            config.write_text(direct.replace(self.plane.url, f"https://{way.netloc}"))
        started = operator(
            self.plane,
            self.folder,
            *("--lease-name", f"lease-{self.namespace}", "--namespace", self.namespace),
            environment={"KUBECONFIG": str(config)} | environ,
        )
        running = await asyncio.to_thread(started.__enter__)
        try:
            with running.log.open("rb") as log:
                process = WorkerProcess(running.process, log, running.url)
                await self.says(process, "")
                yield process
        finally:
            if running.process.poll() is None:
                running.process.kill()
            await asyncio.to_thread(started.__exit__, None, None, None)

    async def says(self, process: WorkerProcess, text: str) -> None:
        """Return when the operator's `/readyz` says so."""
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if text in (await client.get(f"{process.url}/readyz")).text:
                        return
                except httpx.HTTPError:
                    assert process.process.poll() is None, process.log()
                await asyncio.sleep(0.1)

    def lease(self) -> dict[str, Any]:
        got = self.kubectl("get", "lease", f"lease-{self.namespace}", "-n", OPERATOR_ACCOUNT[0], "-o", "json")
        found: dict[str, Any] = json.loads(got.stdout)
        return found


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane, kubectl: Kubectl) -> ControlPlane:  # noqa: F811
    install(kubectl)
    return control_plane


@pytest.fixture
async def cluster(
    rig: Rig,
    installed: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,  # noqa: F811
) -> Cluster:
    return Cluster(rig, installed, kubectl, namespace, tmp_path)


async def rotated(exchange: Exchange) -> None:
    """The queue, as if its key were `second` now: in truth it still is `first`."""
    knows = b"x-api-key: second\r" in exchange.request.head.lower()
    await changes_key("first" if knows else "refused")(exchange)


async def live_routers(rig: Rig) -> int:
    async with Redis.from_url(rig.redis.url) as redis:
        return len([key async for key in redis.scan_iter("queueworker:*:lease:*")])


@pytest.mark.minute
async def test_the_api_server_is_away_for_a_minute_and_routing_does_not_notice(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: a leader that cannot renew its Lease leads on while nobody else routes."""
    await rig.start(worker=False)
    async with cluster.way() as way, cluster.operator(way) as leader:
        await cluster.says(leader, "leading")
        cluster.apply()
        rig.load(0.2)
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("connections to the API server are refused for a minute"):
            await way.refuse()
            for _ in range(10):
                await asyncio.sleep(6)
                await rig.progress(1)
            await way.restore()
        await rig.account()
        await cluster.says(leader, "leading")
        assert "was lost" not in leader.log()
        assert "draining" not in leader.log()


async def test_another_holder_is_written_into_the_lease(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: a leader that sees another holder drains, and takes the Lease again once it runs out."""
    await rig.start(worker=False, delay=0.5)
    async with cluster.operator() as leader:
        await cluster.says(leader, "leading")
        cluster.apply()
        rig.load(0.1)
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("another holder writes itself into the Lease, and is never seen again"):
            lease = cluster.lease()
            lease["spec"]["holderIdentity"] = "somebody-else"
            cluster.kubectl("replace", "-f", "-", input=yaml.safe_dump(lease))
            await rig.until(lambda: "draining 1 routers" in leader.log(), "the leader drains")
            await cluster.says(leader, "standing by")
            assert not rig.running()
        await rig.account()
        await cluster.says(leader, "leading")


async def test_the_api_server_is_out_of_reach_for_the_leader_alone(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: it sees in Redis that another routes what it routes, and drains; no task is routed by both."""
    await rig.start(worker=False, delay=0.3)
    async with cluster.way() as way, cluster.operator(way) as first:
        await cluster.says(first, "leading")
        cluster.apply()
        rig.load(0.1)
        await rig.progress()
        async with cluster.operator() as second:
            await cluster.says(second, "standing by")
            with rig.fault("what the leader sends to the API server vanishes, until the other has drained it out"):
                way.swallow()
                await cluster.says(second, "leading")
                await rig.until(lambda: "draining 1 routers" in first.log(), "the first drains")
                await rig.progress()
                async with asyncio.timeout(45):
                    while await live_routers(rig) != 1:
                        await asyncio.sleep(0.1)
                await way.restore()
            rig.workers.append(second)
            await rig.account()
            await cluster.says(first, "standing by")


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: apt-get install faketime)")
@pytest.mark.parametrize("hours", [1, -1])
async def test_the_operators_clock_is_set(rig: Rig, cluster: Cluster, hours: int) -> None:
    """Mechanism: the election, the journal's lease and every timeout go by the monotonic clock."""
    await rig.start(worker=False, delay=0.3)
    clock = cluster.folder / "clock"
    clock.write_text("+0\n")
    fake = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    async with cluster.operator(**fake) as leader:
        await cluster.says(leader, "leading")
        cluster.apply()
        rig.load(0.1)
        await rig.progress()
        rig.workers.append(leader)
        async with cluster.operator() as other:
            await cluster.says(other, "standing by")
            with rig.fault(f"the leader's wall clock is set by {hours:+} hours"):
                clock.write_text(f"{hours:+}h\n")
                await asyncio.sleep(10)
            await rig.account()
            await cluster.says(leader, "leading")
            await cluster.says(other, "standing by")
        assert "was lost" not in leader.log()
    assert not rig.ledger.ids("failed")


async def test_the_queues_key_is_rotated_and_the_secret_changes_later(rig: Rig, cluster: Cluster) -> None:
    """Mechanism: a refused key has the Secret read again, every two seconds; tasks and reports wait for it."""
    await rig.start(worker=False, key="first", delay=0.3)
    cluster.kubectl("create", "secret", "generic", "key", "-n", cluster.namespace, "--from-literal=api-key=first")
    async with cluster.operator() as leader:
        await cluster.says(leader, "leading")
        cluster.apply(queue={"apiKeySecretRef": {"name": "key", "key": "api-key"}})
        rig.load(0.1)
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("the queue takes another key only; the Secret follows 3 s later"):
            rig.queue.proxy.spoil(rotated)
            await asyncio.sleep(3)
            patch = json.dumps({"stringData": {"api-key": "second"}})
            cluster.kubectl("patch", "secret", "key", "-n", cluster.namespace, "-p", patch)
        await rig.account()
    assert not rig.ledger.ids("failed")
