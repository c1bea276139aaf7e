"""The pool that the operator runs, on a real API server. StatefulSet controller and kubelet are played.

It has a control plane of its own, because calls are refused here on purpose.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.server import OPERATOR_ACCOUNT, ControlPlane
from queueworker.resource.names import LABEL_QUEUEWORKER
from tests.controlplane import conftest as shared
from tests.support.doc_blocks import Block, Place, run_by
from tests.support.operating import (
    ROOT,
    account,
    condition,
    done,
    eventually,
    install,
    is_ready,
    label_selectors,
    operator,
    operator_calls,
    spec,
    status,
    submit,
    worker,
)
from tests.support.played_pods import Played

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.redis_server import RedisServer
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess
    from tests.support.operating import Operator

PATIENCE = 60
"""Seconds that something may take on a busy machine."""
COMPONENT = ROOT / "manifests" / "components" / "managed-pools" / "role.yaml"
RIGHTS: list[dict[str, Any]] = next(yaml.safe_load_all(COMPONENT.read_text()))["rules"]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    found = shared.kubectl_of(control_plane)
    install(found)
    permit(found, RIGHTS)
    return found


def permit(kubectl: Kubectl, rules: list[dict[str, Any]]) -> None:
    """Give the operator exactly these rights for pools."""
    group = "rbac.authorization.k8s.io"
    name = {"name": "queueworker-operator-managed-pools"}
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": name, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": name,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", **name},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR_ACCOUNT[1], "namespace": OPERATOR_ACCOUNT[0]}],
    }
    kubectl("apply", "-f", "-", input=yaml.safe_dump_all([role, binding]))


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    with operator(control_plane, folder, environment={"MANAGED_POOLS": "true"}) as started:
        eventually(lambda: is_ready(started), PATIENCE)
        yield started


@pytest.fixture
def played(control_plane: ControlPlane, namespace: str) -> Iterator[Played]:
    with Played(control_plane, namespace) as found:
        yield found
    assert found.errors == []


def managed(
    queue: DemoProcess, redis: RedisServer, count: int = 2, image: str = "executor:1", timeout: int = 3, cpu: str = "0m"
) -> dict[str, Any]:
    container = {"name": "executor", "image": image, "resources": {"requests": {"cpu": cpu}}}
    executors = {"count": count, "template": {"spec": {"containers": [container]}}, "concurrency": 2}
    return spec(queue, redis) | {"executors": executors, "routing": {"taskTimeoutSeconds": timeout}}


def apply(kubectl: Kubectl, namespace: str, name: str = "legacy", **given: Any) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker(name, **given))


def wait_for_pool(kubectl: Kubectl, namespace: str) -> None:
    kubectl("wait", "qw/legacy", "-n", namespace, "--for=condition=PoolReady", f"--timeout={PATIENCE}s")


def is_pool(kubectl: Kubectl, namespace: str, reason: str) -> bool:
    return condition(kubectl, namespace, "legacy", "PoolReady")[1] == reason


def pool_message(kubectl: Kubectl, namespace: str) -> str:
    return condition(kubectl, namespace, "legacy", "PoolReady")[2]


def replicas(kubectl: Kubectl, namespace: str) -> int:
    got = kubectl("get", "statefulset", "legacy-executor", "-n", namespace, "-o", "jsonpath={.spec.replicas}")
    return int(got.stdout)


def found(kubectl: Kubectl, namespace: str, kind: str) -> dict[str, Any]:
    """The object of the pool; empty if there is none."""
    got = kubectl("get", kind, "legacy-executor", "-n", namespace, "-o", "json", "--ignore-not-found")
    body: dict[str, Any] = json.loads(got.stdout or "{}")
    return body


def event_messages(kubectl: Kubectl, namespace: str, reason: str) -> str:
    return kubectl("get", "events", "-n", namespace, f"--field-selector=reason={reason}", "-o", "yaml").stdout


def test_a_template_makes_pods_and_tasks_are_routed_to_them(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    submit(queue, 20)
    apply(kubectl, namespace, **managed(queue, shared_redis))
    wait_for_pool(kubectl, namespace)
    eventually(lambda: done(queue, 20), PATIENCE)
    eventually(lambda: status(kubectl, namespace, "legacy")["executors"]["summary"] == "2/2", PATIENCE)
    assert sorted(played.pods()) == ["legacy-executor-1", "legacy-executor-2"]
    for kind in ("service", "statefulset", "poddisruptionbudget"):
        owners = found(kubectl, namespace, kind)["metadata"]["ownerReferences"]
        assert [(owner["kind"], owner["name"], owner["controller"]) for owner in owners] == [
            ("QueueWorker", "legacy", True)
        ]
    selected = kubectl(
        "get", "pods", "-n", namespace, "-o", "name", "-l", status(kubectl, namespace, "legacy")["selector"]
    )
    assert len(selected.stdout.split()) == 2, "an HPA finds the pods by the selector of the scale subresource"


@pytest.mark.parametrize("block", run_by(__file__), ids=lambda block: block.name)
def test_a_command_block_scales_the_pool(
    running: Operator,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
    tmp_path: Path,
    block: Block,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis))
    wait_for_pool(kubectl, namespace)
    place = Place.on_cluster(control_plane.admin_kubeconfig, tmp_path, namespace, {"qw/managed": "qw/legacy"})
    place.run_all(block)
    assert replicas(kubectl, namespace) == 5


def test_scaling_in_waits_for_tasks_and_scaling_out_takes_pods_back(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis, 3, "executor:slow"))
    wait_for_pool(kubectl, namespace)
    submit(queue, 40)
    eventually(lambda: sum(server.running for server in played.servers.values()) >= 4, PATIENCE)
    kubectl("scale", "qw/legacy", "-n", namespace, "--replicas=1")
    kubectl("wait", "qw/legacy", "-n", namespace, "--for=condition=PoolReady", f"--timeout={PATIENCE}s")
    assert replicas(kubectl, namespace) == 1
    kubectl("scale", "qw/legacy", "-n", namespace, "--replicas=3")
    wait_for_pool(kubectl, namespace)
    eventually(lambda: done(queue, 40), 2 * PATIENCE)
    assert (account(queue)["failed"], played.lost) == (0, 0)


def test_a_new_template_replaces_one_pod_after_the_other_and_no_task_fails(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis, 2, "executor:slow-1"))
    wait_for_pool(kubectl, namespace)
    submit(queue, 30)
    eventually(lambda: sum(server.running for server in played.servers.values()) >= 3, PATIENCE)
    played.history.clear()
    apply(kubectl, namespace, **managed(queue, shared_redis, 2, "executor:slow-2"))
    wait_for_pool(kubectl, namespace)
    images = [pod["spec"]["containers"][0]["image"] for pod in played.pods().values()]
    assert images == ["executor:slow-2"] * 2
    steps = [line.split()[0] for line in played.history]
    assert steps == ["terminating", "gone", "created", "ready"] * 2
    eventually(lambda: done(queue, 30), 2 * PATIENCE)
    assert (account(queue)["failed"], played.lost) == (0, 0)


def test_a_template_that_does_not_start_stops_at_one_pod_and_a_corrected_one_begins_there(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis))
    wait_for_pool(kubectl, namespace)
    apply(kubectl, namespace, **managed(queue, shared_redis, image="executor:bad"))
    eventually(lambda: "ImagePullBackOff" in pool_message(kubectl, namespace), PATIENCE)
    submit(queue, 10)
    eventually(lambda: done(queue, 10), PATIENCE)
    played.history.clear()
    apply(kubectl, namespace, **managed(queue, shared_redis, image="executor:2"))
    wait_for_pool(kubectl, namespace)
    assert next(line.split()[1] for line in played.history if line.startswith("ready")) == "legacy-executor-1"
    assert account(queue)["failed"] == 0


def test_an_evicted_pod_finishes_its_tasks(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis, 2, "executor:slow"))
    wait_for_pool(kubectl, namespace)
    submit(queue, 12)
    eventually(lambda: sum(server.running for server in played.servers.values()) >= 3, PATIENCE)
    kubectl("delete", "pod", "legacy-executor-2", "-n", namespace, "--wait=false")
    eventually(lambda: "gone legacy-executor-2" in played.history, PATIENCE)
    eventually(lambda: done(queue, 12), PATIENCE)
    wait_for_pool(kubectl, namespace)
    assert (account(queue)["failed"], played.lost) == (0, 0)


def test_a_removed_template_drains_the_pool_and_deletes_it(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis, 2, "executor:slow"))
    wait_for_pool(kubectl, namespace)
    submit(queue, 12)
    eventually(lambda: sum(server.running for server in played.servers.values()) >= 3, PATIENCE)
    apply(kubectl, namespace, **spec(queue, shared_redis, executor))
    eventually(lambda: played.items("apis/apps/v1/statefulsets") == [], PATIENCE)
    eventually(lambda: condition(kubectl, namespace, "legacy", "PoolReady") == ("", "", ""), PATIENCE)
    assert played.items("services") == played.items("apis/policy/v1/poddisruptionbudgets") == []
    eventually(lambda: done(queue, 12), PATIENCE)
    assert (account(queue)["failed"], played.lost) == (0, 0)


@pytest.mark.parametrize("how", ["scaled in", "removed", "deleted"])
def test_idle_pods_go_at_once_whatever_the_timeout_of_a_task(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
    how: str,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis, 3, timeout=600))
    wait_for_pool(kubectl, namespace)
    match how:
        case "scaled in":
            kubectl("scale", "qw/legacy", "-n", namespace, "--replicas=1")
        case "removed":
            apply(kubectl, namespace, **spec(queue, shared_redis, executor))
        case _:
            kubectl("delete", "qw/legacy", "-n", namespace, f"--timeout={PATIENCE}s")
    left = ["legacy-executor-1"] if how == "scaled in" else []
    eventually(lambda: sorted(played.pods()) == left, PATIENCE)
    assert played.history.count("created legacy-executor-3") == 1, "the replicas were lowered in time"


def test_a_corrected_template_reaches_a_pool_whose_last_pod_could_not_be_created(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    """It takes half a minute, and a heartbeat, until a pod that is not there counts as one that cannot be created."""
    played.cpu_quota = 400
    apply(kubectl, namespace, **managed(queue, shared_redis, 3, cpu="200m"))
    eventually(lambda: "not there yet: legacy-executor-3" in pool_message(kubectl, namespace), PATIENCE)
    eventually(lambda: played.history.count("ready legacy-executor-2"), PATIENCE)
    played.history.clear()
    apply(kubectl, namespace, **managed(queue, shared_redis, 3, cpu="130m"))
    kubectl("wait", "qw/legacy", "-n", namespace, "--for=condition=PoolReady", f"--timeout={2 * PATIENCE}s")
    first, second = (n for n, line in enumerate(played.history) if line.startswith("terminating"))
    between = played.history[first:second]
    assert any(line.startswith("ready") for line in between), "one is ready again before the next one goes"


def test_what_is_changed_by_hand_is_put_back_with_an_event(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    played: Played,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    apply(kubectl, namespace, **managed(queue, shared_redis))
    wait_for_pool(kubectl, namespace)

    def containers() -> list[dict[str, Any]]:
        pod = found(kubectl, namespace, "statefulset")["spec"]["template"]["spec"]
        return list(pod["containers"])

    def is_told(text: str) -> bool:
        return text in event_messages(kubectl, namespace, "PoolRestored")

    sidecar = '[{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "x", "image": "x:1"}}]'
    kubectl("patch", "statefulset", "legacy-executor", "-n", namespace, "--type=json", "-p", sidecar)
    eventually(lambda: [container["image"] for container in containers()] == ["executor:1"], PATIENCE)
    kubectl("set", "image", "statefulset/legacy-executor", "executor=other:1", "-n", namespace)
    eventually(lambda: [container["image"] for container in containers()] == ["executor:1"], PATIENCE)
    kubectl("scale", "statefulset/legacy-executor", "-n", namespace, "--replicas=1")
    eventually(lambda: replicas(kubectl, namespace) == 2, PATIENCE)
    eventually(lambda: is_told("was changed by kubectl"), PATIENCE)
    less = '[{"op": "remove", "path": "/spec/template/spec/containers/0/readinessProbe"}]'
    kubectl("patch", "statefulset", "legacy-executor", "-n", namespace, "--type=json", "-p", less)
    eventually(lambda: "readinessProbe" in containers()[0], PATIENCE)
    eventually(lambda: is_told("was changed: its spec was put back"), PATIENCE)
    kubectl("delete", "statefulset", "legacy-executor", "-n", namespace, "--wait=false")
    eventually(lambda: found(kubectl, namespace, "statefulset"), PATIENCE)
    eventually(lambda: is_told("was deleted"), PATIENCE)


@pytest.mark.parametrize(
    ("kind", "edit"),
    [("Service", {"selector": {"app": "x"}}), ("PodDisruptionBudget", {"maxUnavailable": 7})],
)
def test_service_and_budget_are_put_back_with_an_event(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    shared_redis: RedisServer,
    kind: str,
    edit: dict[str, Any],
) -> None:
    """Each edit of the spec has them looked at, which is otherwise done every minute."""

    def is_told(how: str) -> bool:
        return f"{kind} legacy-executor {how}" in event_messages(kubectl, namespace, "PoolRestored")

    apply(kubectl, namespace, **managed(queue, shared_redis))
    eventually(lambda: is_pool(kubectl, namespace, "Progressing"), PATIENCE)
    before = found(kubectl, namespace, kind)["spec"]
    patch = json.dumps({"spec": edit})
    kubectl("patch", kind, "legacy-executor", "-n", namespace, "--type=merge", "-p", patch)
    apply(kubectl, namespace, **managed(queue, shared_redis, timeout=4))
    eventually(lambda: is_told("was changed by kubectl"), PATIENCE)
    assert found(kubectl, namespace, kind)["spec"] == before
    kubectl("delete", kind, "legacy-executor", "-n", namespace)
    apply(kubectl, namespace, **managed(queue, shared_redis, timeout=5))
    eventually(lambda: is_told("was deleted"), PATIENCE)
    assert found(kubectl, namespace, kind)["spec"] == before


def test_an_object_of_somebody_else_is_never_adopted(
    running: Operator, kubectl: Kubectl, namespace: str, queue: DemoProcess, shared_redis: RedisServer
) -> None:
    kubectl("create", "service", "clusterip", "legacy-executor", "-n", namespace, "--tcp=80:80")
    before = found(kubectl, namespace, "service")
    apply(kubectl, namespace, **managed(queue, shared_redis))
    eventually(lambda: is_pool(kubectl, namespace, "NameTaken"), PATIENCE)
    assert f"Service {namespace}/legacy-executor" in pool_message(kubectl, namespace)
    assert found(kubectl, namespace, "service") == before
    kubectl("delete", "service", "legacy-executor", "-n", namespace)
    eventually(lambda: is_pool(kubectl, namespace, "Progressing"), PATIENCE)


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"name": "executor", "image": "executor:1", "cmd": ["x"]}, "cmd"),
        ({"name": "Executor!", "image": "executor:1"}, "Executor!"),
        ({"name": "executor", "image": "executor:1", "ports": "8083"}, "ports"),
        ({"name": "executor", "image": "executor:1", "env": [{"name": "X", "value": "1"}] * 2}, "duplicate entries"),
    ],
)
def test_a_template_that_the_api_server_refuses_is_named_with_its_words(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    shared_redis: RedisServer,
    container: dict[str, Any],
    words: str,
) -> None:
    given = managed(queue, shared_redis)
    given["executors"]["template"]["spec"]["containers"] = [container]
    apply(kubectl, namespace, **given)
    eventually(lambda: is_pool(kubectl, namespace, "InvalidTemplate"), PATIENCE)
    assert words in pool_message(kubectl, namespace)
    apply(kubectl, namespace, **managed(queue, shared_redis))
    eventually(lambda: is_pool(kubectl, namespace, "Progressing"), PATIENCE)


def test_a_template_that_was_refused_leaves_nothing_when_it_is_removed(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    executor: DemoProcess,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    given = managed(queue, shared_redis)
    given["executors"]["template"]["spec"]["containers"] = [{"name": "executor"}]
    apply(kubectl, namespace, **given)
    eventually(lambda: is_pool(kubectl, namespace, "InvalidTemplate"), PATIENCE)
    apply(kubectl, namespace, **spec(queue, shared_redis, executor))
    eventually(lambda: condition(kubectl, namespace, "legacy", "PoolReady") == ("", "", ""), PATIENCE)
    assert found(kubectl, namespace, "service") == found(kubectl, namespace, "poddisruptionbudget") == {}


@pytest.mark.parametrize("name", ["x" * 44, "x" * 63, "my.worker"])
def test_a_name_that_services_or_pods_cannot_have_is_refused_before_anything_is_made(
    running: Operator, kubectl: Kubectl, namespace: str, queue: DemoProcess, shared_redis: RedisServer, name: str
) -> None:
    apply(kubectl, namespace, name, **managed(queue, shared_redis))
    eventually(lambda: condition(kubectl, namespace, name, "PoolReady")[1] == "InvalidTemplate", PATIENCE)
    assert kubectl("get", "service", "-n", namespace, "-o", "name").stdout == ""
    kubectl("delete", "qw", name, "-n", namespace, "--timeout=30s")


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("services", 'cannot patch resource "services"'),
        ("queueworkers/finalizers", "cannot set blockOwnerDeletion"),
    ],
)
def test_a_missing_right_is_named(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    shared_redis: RedisServer,
    resource: str,
    words: str,
) -> None:
    permit(kubectl, [rule for rule in RIGHTS if resource not in rule["resources"]])
    try:
        apply(kubectl, namespace, **managed(queue, shared_redis))
        eventually(lambda: is_pool(kubectl, namespace, "NotPermitted"), PATIENCE)
        assert words in pool_message(kubectl, namespace)
    finally:
        permit(kubectl, RIGHTS)
    eventually(lambda: is_pool(kubectl, namespace, "Progressing"), PATIENCE)


def test_an_operator_that_may_not_run_pods_says_so(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    folder: Path,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    """Last in this file: the shared operator may lead, so this one has a Lease and a namespace of its own."""
    apply(kubectl, namespace, **managed(queue, shared_redis))
    alone = ("--namespace", namespace, "--lease-name", f"lease-{namespace}", "--no-managed-pools")
    with operator(control_plane, folder, *alone):
        eventually(lambda: "managedPools.enabled" in pool_message(kubectl, namespace), PATIENCE)


def test_every_right_is_needed(control_plane: ControlPlane, running: Operator) -> None:
    """It looks back on all that the operators did."""
    used = set()
    for call in operator_calls(control_plane):
        reference = call.get("objectRef") or {}
        used.add((reference.get("apiGroup", ""), reference.get("resource"), call["verb"]))
    granted = {
        (rule["apiGroups"][0], rule["resources"][0], verb)
        for rule in RIGHTS
        for verb in rule["verbs"]
        if "finalizers" not in rule["resources"][0]
    }
    assert granted - used == set()


def test_only_pods_and_stateful_sets_with_our_label_are_read(control_plane: ControlPlane, running: Operator) -> None:
    """It looks back, too. The operator would hold every pod of the cluster."""
    for resource in ("pods", "statefulsets"):
        assert label_selectors(control_plane, resource) == {LABEL_QUEUEWORKER}
