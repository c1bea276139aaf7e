"""The command blocks about an operator that runs: with the demo's object, queue, executors and Redis.

The kubelet that `kubectl logs` asks is played; it has the log of the operator.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from demo.kube import NAME, NAMESPACE, manifest
from demo.processes import Line
from devcluster.redis_server import RedisServer
from tests.support.doc_blocks import Block, Place, run_by
from tests.support.operating import condition, eventually
from tests.support.played_kubelet import played_kubelet
from tests.support.reachable_operator import SERVICE, SYSTEM, reachable_operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.operating import Operator

PATIENCE = 60
FAILED = "load-e1467bf3-000288"
"""The task of docs/command.md."""
DELETES_THE_POD = "kubectl delete pod"
BLOCKS = run_by(__file__)
DEGRADED = [block for block in BLOCKS if "Degraded" in block.text]
REFUSED = [block for block in BLOCKS if "grep -i watch" in block.text]
OTHERS = sorted(
    (block for block in BLOCKS if block not in DEGRADED + REFUSED), key=lambda block: DELETES_THE_POD in block.text
)


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    with (
        reachable_operator(control_plane, kubectl, folder) as started,
        played_kubelet(kubectl, folder, started.log),
    ):
        yield started


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def line(folder: Path) -> Iterator[Line]:
    with Line(folder, "load") as made:
        made.start(3)
        yield made


@pytest.fixture(scope="module")
def place(
    running: Operator, control_plane: ControlPlane, kubectl: Kubectl, folder: Path, line: Line, redis: RedisServer
) -> Place:
    """Where the object routes and has failed one task."""
    for name in ("podmonitors", "servicemonitors"):
        kubectl("apply", "-f", "-", input=bare_crd(name))
    kubectl("create", "namespace", NAMESPACE)
    kubectl("apply", "-f", "-", input=manifest(line.queue_url, redis.url, line.executor_url(), 3))
    eventually(lambda: condition(kubectl, NAMESPACE, NAME, "Ready")[1] == "Routing", PATIENCE)
    names = {
        "pod-a": kubectl("get", "lease", SERVICE, "-n", SYSTEM, "-o", "jsonpath={.spec.holderIdentity}").stdout,
        "default/legacy": f"{NAMESPACE}/{NAME}",
        "OBJECT -n NAMESPACE": f"{NAME} -n {NAMESPACE}",
        "-n NAMESPACE": f"-n {NAMESPACE}",
        "-n WATCHED": f"-n {NAMESPACE}",
        "KIND": "queueworkers",
        "POD:8084": f"{SERVICE}:{running.port}",
    }
    return Place.on_cluster(control_plane.admin_kubeconfig, folder, NAMESPACE, names)


def bare_crd(plural: str) -> str:
    """Of the Prometheus operator, whose objects are only listed here."""
    group, kind = "monitoring.coreos.com", plural.removesuffix("s")
    schema = {"openAPIV3Schema": {"type": "object"}}
    made = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind, "kind": kind.title()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    return yaml.safe_dump(made)


def submit(line: Line, *tasks: str, code: str = "print(1)") -> None:
    for task in tasks:
        body = json.dumps({"eval_id": task, "code": code}).encode()
        httpx.post(f"{line.queue_url}/tasks", content=body, trust_env=False).raise_for_status()


def reported(line: Line) -> int:
    counts = httpx.get(f"{line.queue_url}/account", trust_env=False).json()
    return int(counts["completed"]) + int(counts["failed"])


def test_what_is_shown_of_a_redis_that_does_not_answer(
    place: Place, kubectl: Kubectl, running: Operator, line: Line, redis: RedisServer
) -> None:
    def has_points() -> bool:
        found = httpx.get(f"{running.url}/status/{NAMESPACE}/{NAME}", trust_env=False).json()
        return bool(found["tasks"]["p50_seconds"])

    def well() -> set[bool]:
        kinds = ("EventsPublished", "JournalWritable")
        return {condition(kubectl, NAMESPACE, NAME, kind)[0] == "True" for kind in kinds}

    submit(line, FAILED, code="raise ValueError('task 288 fails on purpose')")
    submit(line, *map(str, range(10)))
    eventually(lambda: reported(line) == 11, PATIENCE)
    redis.pause()
    try:
        submit(line, *map(str, range(10, 20)))
        eventually(lambda: reported(line) == 21 and well() == {False} and has_points(), PATIENCE)
        for block in DEGRADED:
            place.run_all(block)
    finally:
        redis.resume()
    eventually(lambda: well() == {True}, PATIENCE)


@pytest.mark.parametrize("block", REFUSED, ids=lambda block: block.name)
def test_what_is_shown_of_a_watch_that_was_refused(
    place: Place, kubectl: Kubectl, running: Operator, block: Block
) -> None:
    rules = json.loads(kubectl("get", "clusterrole", SERVICE, "-o", "json").stdout)["rules"]
    fewer = [rule for rule in rules if "endpointslices" not in rule["resources"]]
    for some, said in ((fewer, "cannot be watched"), (rules, "can be watched again")):
        kubectl("patch", "clusterrole", SERVICE, "--type=merge", "-p", json.dumps({"rules": some}))
        eventually(lambda said=said: said in running.log.read_text(), PATIENCE)  # type: ignore[misc]
    place.run_all(block)


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: block.name)
def test_a_command_block_runs(place: Place, block: Block) -> None:
    place.run_all(block)
