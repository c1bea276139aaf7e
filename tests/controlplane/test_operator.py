"""The operator as its users meet it: real processes on a real API server, with only the rights of manifests/rbac."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from devcluster.redis_server import RedisServer
from queueworker.resource.names import SERVICE_NAME_LABEL
from tests.support.accounts import check_account
from tests.support.demo_processes import DemoProcess, demo_process
from tests.support.operating import (
    ROOT,
    account,
    condition,
    done,
    eventually,
    is_ready,
    label_selectors,
    operator,
    operator_calls,
    spec,
    status,
    submit,
    worker,
)

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.operating import Operator


# 127.0.0.1 in a spelling that URLs know and that the API server, which refuses loopback addresses in slices, does not
LOOPBACK = "0x7f.1"
LEASE = "queueworker-operator"
NOTICED_SECONDS = 10
"""For a change of the pool on a loaded machine; it takes a fraction of a second."""


@pytest.fixture(scope="module", autouse=True)
def began() -> datetime:
    """When this file's tests began: files before it on this API server let calls be refused, as their subject."""
    return datetime.now(UTC)


def test_an_object_routes_tasks_and_tells_of_it(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    submit(queue, 50)
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
    eventually(lambda: done(queue, 50))
    eventually(lambda: status(kubectl, namespace, "legacy").get("tasks", {}).get("routed") == 50)
    eventually(lambda: status(kubectl, namespace, "legacy").get("queue", {}).get("depth") == 0)
    head, line = kubectl("get", "qw", "-n", namespace).stdout.splitlines()
    assert dict(zip(head.split(), line.split(), strict=True)) | {"AGE": ""} == {
        "NAME": "legacy",
        "READY": "True",
        "STATUS": "Routing",
        "EXECUTORS": "1/1",
        "ROUTED": "50",
        "FAILED": "0",
        "WAITING": "0",
        "PER-MINUTE": "50",
        "MIGRATION": "Split",
        "AGE": "",
    }
    eventually(lambda: "Normal  Routing" in kubectl("describe", "qw", "legacy", "-n", namespace).stdout)
    assert "routing to 1 of 1 executors" in kubectl("describe", "qw", "legacy", "-n", namespace).stdout
    shown = httpx.get(f"{running.url}/status/{namespace}/legacy").json()
    assert shown["tasks"]["routed"] == 50


def test_editing_while_tasks_run_loses_none(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    base = spec(queue, shared_redis, executor)
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **base))
    submitting = threading.Thread(target=submit, args=(queue, 600))
    submitting.start()
    for strategy in ("LeastLoaded", "Sticky", "RoundRobin", "Weighted"):
        for concurrency in (1, 16):
            patch = {"spec": {"routing": {"strategy": strategy}, "executors": {"concurrency": concurrency}}}
            kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", json.dumps(patch))
    submitting.join()
    eventually(lambda: done(queue, 600))
    counts = account(queue)
    check_account(counts, completed=600, reported_twice=0, unknown_reports=0)


def test_another_queue_is_routed_once_the_tasks_of_the_first_one_are_reported_to_it(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    with demo_process("queue", "--port", "0") as other:
        submit(queue, 8)
        submit(other, 4, prefix="other")
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, slow_executor)))
        eventually(lambda: account(queue)["handed_out"] == 8)
        patch = {"spec": {"queue": {"url": other.url}}}
        kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", json.dumps(patch))

        def others() -> int:
            return account(other)["handed_out"]

        eventually(lambda: condition(kubectl, namespace, "legacy", "Ready")[1] == "Draining" or others())
        # The drain takes seconds, so on a loaded machine it may be over before anyone has seen it.
        assert others() == 0 or done(queue, 8)
        eventually(lambda: done(other, 4))
        for counts in (account(queue), account(other)):
            check_account(counts, failed=0, reported_twice=0, unknown_reports=0)
        assert account(queue)["completed"] == 8
        eventually(lambda: status(kubectl, namespace, "legacy")["tasks"]["routed"] == 12)


def test_the_migration_flags_and_suspension_act_within_a_second(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
    eventually(lambda: condition(kubectl, namespace, "legacy", "Ready")[1] == "Routing")

    def patch(**values: Any) -> None:
        kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", json.dumps({"spec": values}))

    def is_reason(reason: str) -> bool:
        return condition(kubectl, namespace, "legacy", "Ready")[1] == reason

    def has_completed(count: int) -> bool:
        return account(queue)["completed"] == count

    def stays_waiting() -> None:
        time.sleep(1)
        polls = _polls(running, namespace)
        submit(queue, 5, prefix=str(time.monotonic()))
        time.sleep(2)
        assert _polls(running, namespace) == polls
        with queue.client() as client:
            assert client.get("/status").json()["queued"] == 5

    for off, reason, on in (
        ({"migration": {"celeryPercent": 100}}, "Standby", {"migration": {"forceLegacyQueue": True}}),
        ({"suspend": True}, "Suspended", {"suspend": False}),
    ):
        before = account(queue)["completed"]
        patch(**off)
        eventually(partial(is_reason, reason), 3)
        stays_waiting()
        patch(**on)
        eventually(partial(has_completed, before + 5), 3)
    assert status(kubectl, namespace, "legacy")["migration"]["phase"] == "Reduction"


def _polls(running: Operator, namespace: str) -> float:
    text = httpx.get(f"{running.url}/metrics").text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("queueworker_queue_polls_total{") and f"{namespace}/legacy" in line
    )


def test_scaling_changes_the_pool_of_numbered_executors(
    running: Operator, kubectl: Kubectl, namespace: str, queue: DemoProcess, shared_redis: RedisServer
) -> None:
    with demo_process("gateway", "--port", "0") as gateway:
        numbered = spec(queue, shared_redis) | {"executors": {"count": 1, "baseURL": f"{gateway.url}/executors/{{n}}"}}
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **numbered))

        def is_summary(text: str) -> bool:
            return bool(status(kubectl, namespace, "legacy").get("executors", {}).get("summary") == text)

        for count in (3, 1):
            kubectl("scale", "qw/legacy", "-n", namespace, f"--replicas={count}")
            eventually(partial(is_summary, f"{count}/{count}"))


def test_an_unusable_secret_blocks_neither_the_rest_of_an_edit_nor_suspension(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    good = spec(queue, shared_redis, executor)
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **good))
    eventually(lambda: condition(kubectl, namespace, "legacy", "Ready")[:2] == ("True", "Routing"))
    kubectl("create", "secret", "generic", "redis", "-n", namespace, "--from-literal=url=redis:6379")
    edited = good | {"events": {"redisURLSecretRef": {"name": "redis", "key": "url"}}}
    edited["executors"] = good["executors"] | {"concurrency": 3}
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **edited))
    eventually(lambda: condition(kubectl, namespace, "legacy", "Ready")[:2] == ("False", "InvalidSecret"))
    eventually(lambda: status(kubectl, namespace, "legacy")["executors"]["endpoints"][0]["capacity"] == 3)
    submit(queue, 3)
    eventually(lambda: done(queue, 3))
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **edited, suspend=True))
    eventually(lambda: condition(kubectl, namespace, "legacy", "Ready")[:2] == ("True", "Suspended"))
    assert "Secret " in condition(kubectl, namespace, "legacy", "Ready")[2]
    assert status(kubectl, namespace, "legacy")["observedGeneration"] == 1
    text = kubectl("create", "secret", "generic", "redis", "-n", namespace, f"--from-literal=url={shared_redis.url}",
                   "--dry-run=client", "-o", "yaml").stdout  # fmt: skip
    kubectl("apply", "-n", namespace, "-f", "-", input=text)
    eventually(lambda: status(kubectl, namespace, "legacy")["observedGeneration"] == 3, 70)


def test_the_ready_endpoints_of_a_service_are_the_pool(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    by_service = spec(queue, shared_redis) | {"executors": {"service": {"name": "executor", "port": "http"}}}
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **by_service))
    eventually(lambda: condition(kubectl, namespace, "legacy", "ExecutorsAvailable")[1] == "DiscoveryFailed")
    assert "has no EndpointSlices" in condition(kubectl, namespace, "legacy", "ExecutorsAvailable")[2]

    def write_slice(name: str, process: DemoProcess, ready: bool) -> None:
        item = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "executor"}},
            "addressType": "FQDN",
            "ports": [{"name": "http", "port": int(process.url.rpartition(":")[2])}],
            "endpoints": [{"addresses": [LOOPBACK], "conditions": {"ready": ready}}],
        }
        kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump(item))

    def pool() -> list[str]:
        shown = httpx.get(f"{running.url}/status/{namespace}/legacy").json()
        return sorted(e["url"].replace(LOOPBACK, "127.0.0.1") for e in shown["executors"])

    write_slice("one", executor, ready=True)
    assert eventually(lambda: pool() == [executor.url]) < NOTICED_SECONDS
    write_slice("two", slow_executor, ready=True)
    assert eventually(lambda: pool() == sorted([executor.url, slow_executor.url])) < NOTICED_SECONDS
    write_slice("one", executor, ready=False)
    assert eventually(lambda: pool() == [slow_executor.url]) < NOTICED_SECONDS
    submit(queue, 2)
    eventually(lambda: done(queue, 2))
    kubectl("delete", "endpointslice", "two", "-n", namespace)
    assert eventually(lambda: pool() == []) < NOTICED_SECONDS


def test_a_missing_secret_is_named_and_its_creation_resumes(
    running: Operator, kubectl: Kubectl, namespace: str, executor: DemoProcess, shared_redis: RedisServer
) -> None:
    with demo_process("queue", "--port", "0", "--api-key", "first") as queue:
        keyed = spec(queue, shared_redis, executor)
        keyed["queue"]["apiKeySecretRef"] = {"name": "queue-key", "key": "api-key"}
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **keyed))
        eventually(lambda: condition(kubectl, namespace, "legacy", "QueueReachable")[1] == "SecretNotFound")
        assert "Secret" in condition(kubectl, namespace, "legacy", "Ready")[2]
        assert f"{namespace}/queue-key does not exist" in condition(kubectl, namespace, "legacy", "Ready")[2]
        kubectl("create", "secret", "generic", "queue-key", "-n", namespace, "--from-literal=api-key=wrong")
        eventually(lambda: condition(kubectl, namespace, "legacy", "QueueReachable")[1] == "AuthenticationFailed")
        with httpx.Client(base_url=queue.url, headers={"X-API-Key": "first"}) as client:
            client.post("/tasks", json={"eval_id": "a", "code": "1"}).raise_for_status()
            patch = '{"stringData": {"api-key": "first"}}'
            kubectl("patch", "secret", "queue-key", "-n", namespace, "-p", patch)
            eventually(lambda: client.get("/account").json()["completed"] == 1)
        eventually(lambda: condition(kubectl, namespace, "legacy", "Ready")[1] == "Routing")
    assert "first" not in json.dumps(status(kubectl, namespace, "legacy"))
    assert "first" not in running.log.read_text()


def test_deletion_drains_and_the_object_is_gone_in_seconds(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    submit(queue, 8)
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, slow_executor)))
    eventually(lambda: account(queue)["handed_out"] == 8)
    started = time.monotonic()
    kubectl("delete", "qw", "legacy", "-n", namespace, "--timeout=20s")
    assert time.monotonic() - started < 10
    assert account(queue)["completed"] == 8
    assert kubectl("get", "qw", "-n", namespace, "-o", "name").stdout == ""


def test_what_cannot_finish_before_deletion_is_reported_as_failed(
    running: Operator, kubectl: Kubectl, namespace: str, queue: DemoProcess, shared_redis: RedisServer
) -> None:
    with demo_process("executor", "--port", "0", "--fast", "--delay-ms", "60000") as stuck:
        submit(queue, 2)
        stuck_spec = spec(queue, shared_redis, stuck, routing={"drainSeconds": 1})
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **stuck_spec))
        eventually(lambda: account(queue)["handed_out"] == 2)
        kubectl("delete", "qw", "legacy", "-n", namespace, "--timeout=20s")
        counts = account(queue)
    assert (counts["failed"], counts["completed"]) == (2, 0)


def test_a_second_operator_takes_over_from_a_killed_leader_and_no_task_is_lost(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    folder: Path,
    running: Operator,
    queue: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    only = ("--namespace", namespace)
    body = worker("legacy", **spec(queue, shared_redis, slow_executor))
    # the shared operator watches the whole cluster, and has the one Lease that may be written
    assert running.stop() == 0
    with operator(control_plane, folder, *only) as first:
        eventually(lambda: is_ready(first))
        with operator(control_plane, folder, *only) as second:
            eventually(lambda: is_ready(second))
            assert "standing by" in httpx.get(f"{second.url}/readyz").text
            kubectl("apply", "-n", namespace, "-f", "-", input=body)
            submit(queue, 24)
            eventually(lambda: account(queue)["handed_out"] >= 16)
            relayed = httpx.get(f"{second.url}/api/objects/{namespace}/legacy")
            assert (relayed.status_code, relayed.json()["state"]["level"]) == (200, "ok"), "the standby asks the leader"
            overview = httpx.get(f"{second.url}/api/overview")
            assert overview.headers["x-answered-by"] != overview.json()["identity"]
            first.kill()
            eventually(lambda: "leading" in httpx.get(f"{second.url}/readyz").text, 15)
            eventually(lambda: done(queue, 24))
            counts = account(queue)
            check_account(counts, completed=24, reported_twice=0)
            eventually(lambda: status(kubectl, namespace, "legacy").get("tasks", {}).get("recovered", 0) > 0)
            assert second.stop() == 0
    held = kubectl("get", "lease", LEASE, "-n", "queueworker-system", "-o", "jsonpath={.spec.holderIdentity}").stdout
    assert held == "", "a lease that is given up lets the next one lead at once"


def test_no_call_was_refused_and_no_right_is_unused(control_plane: ControlPlane, began: datetime) -> None:
    """Last in this file: it looks back on all that the operators did."""
    used = set()
    refused = []
    for call in operator_calls(control_plane):
        reference = call.get("objectRef") or {}
        if not reference.get("resource"):
            continue
        resource = "/".join(filter(None, [reference["resource"], reference.get("subresource")]))
        used.add((reference.get("apiGroup", ""), resource, call["verb"]))
        if call["responseStatus"]["code"] == 403 and datetime.fromisoformat(call["requestReceivedTimestamp"]) > began:
            refused.append(call["requestURI"])
    assert refused == []
    granted = {
        (group, resource, verb)
        for document in yaml.safe_load_all((ROOT / "manifests" / "rbac" / "role.yaml").read_text())
        for rule in document.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted - used == set()


def test_only_endpoint_slices_of_services_are_read(control_plane: ControlPlane, running: Operator) -> None:
    """It looks back, too."""
    assert label_selectors(control_plane, "endpointslices") == {SERVICE_NAME_LABEL}
