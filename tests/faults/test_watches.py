"""Watches that an API server upholds in silence, or does not remember: the operator follows the cluster again soon."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.operating import calls_of_operators, worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults.cluster import Cluster
    from tests.support.faults.rig import Rig

# They share one control plane.
pytestmark = pytest.mark.xdist_group("control-plane")

SOON_SECONDS = 30
"""Two intervals of a probe, and time for a loaded machine; a full list comes every two minutes."""
BY_SERVICE = {"endpoints": None, "service": {"name": "executor", "port": "http"}}


def object_of(cluster: Cluster, name: str = "legacy") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "qw", name, "-n", cluster.namespace, "-o", "json").stdout)
    return found


async def soon(condition: Callable[[], object], what: str) -> None:
    """Return when the condition, which asks the API server, holds."""
    try:
        async with asyncio.timeout(SOON_SECONDS):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.3)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {SOON_SECONDS} s") from None


def healthy(cluster: Cluster) -> int:
    return int(object_of(cluster).get("status", {}).get("executors", {}).get("healthy", 0))


def follows(cluster: Cluster) -> bool:
    """Whether the router runs the object as it is now."""
    found = object_of(cluster)
    return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])


def lists_and_watches(cluster: Cluster, since: datetime) -> int:
    """How many the operators have asked for."""
    events = calls_of_operators(cluster.plane, since)
    return len({event["auditID"] for event in events if event["verb"] in {"list", "watch"}})


async def test_the_api_server_has_forgotten_what_changed_while_the_watches_were_silent(
    rig: Rig, cluster: Cluster
) -> None:
    """Mechanism: a watch that is answered 410 begins anew with a list, and a list of ours finds what is gone."""
    await rig.start(worker=False, executors=3)
    slices = [cluster.apply_slice(site) for site in rig.executors]
    where = ("-n", cluster.namespace)
    async with cluster.way() as way, cluster.operator(way) as leader:
        await cluster.says(leader, "leading")
        cluster.apply(executors=BY_SERVICE)
        cluster.kubectl("apply", *where, "-f", "-", input=worker("doomed", suspend=True))
        rig.load(0.1)
        await cluster.says(leader, "with 2 QueueWorkers")
        await soon(lambda: healthy(cluster) == 3, "three executors by their slices")
        await rig.progress()
        rig.workers.append(leader)
        with rig.fault("the API server is silent, then restarted after a compaction of etcd; meanwhile all changes"):
            way.swallow()
            version = object_of(cluster)["metadata"]["resourceVersion"]
            patch = json.dumps({"spec": {"executors": {"concurrency": 3}}})
            cluster.kubectl("patch", "qw", "legacy", *where, "--type=merge", "--patch", patch)
            cluster.kubectl("delete", "endpointslice", slices[0], *where)
            cluster.kubectl("patch", "qw", "doomed", *where, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
            cluster.kubectl("delete", "qw", "doomed", *where)
            await asyncio.to_thread(cluster.plane.stop_apiserver)
            cluster.plane.compact()
            await asyncio.to_thread(cluster.plane.start_apiserver)
            path = f"/apis/crucible.dev/v1alpha1/namespaces/{cluster.namespace}/queueworkers"
            old = cluster.kubectl("get", "--raw", f"{path}?watch=true&timeoutSeconds=5&resourceVersion={version}")
            assert json.loads(old.stdout)["object"]["code"] == 410, "the API server knows what the watches missed"
            await rig.progress(1)
            await way.restore()
            restored = datetime.now(UTC)
        await soon(lambda: follows(cluster), "the new spec runs")
        await soon(lambda: healthy(cluster) == 2, "the executor whose slice is gone has left")
        await cluster.says(leader, "with 1 QueueWorker")
        await asyncio.sleep(10)
        asked = lists_and_watches(cluster, restored)
        seconds = (datetime.now(UTC) - restored).total_seconds()
        await rig.account()
    assert asked < 20 + 2 * seconds, f"{asked} lists and watches in {seconds:.0f} s"
