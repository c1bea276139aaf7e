"""What the API server takes away from an operator, and gives back: routing goes on, and the watches come back.

It has a control plane of its own, because calls are refused here on purpose.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from redis import Redis

from devcluster.server import OPERATOR_ACCOUNT, ControlPlane
from tests.controlplane import conftest as shared
from tests.support.accounts import check_account
from tests.support.demo_processes import DemoProcess, demo_process
from tests.support.operating import (
    account,
    condition,
    done,
    eventually,
    install,
    install_crd,
    is_ready,
    leading,
    operator,
    readiness,
    spec,
    status,
    submit,
    worker,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.redis_server import RedisServer
    from tests.controlplane.conftest import Kubectl
    from tests.support.operating import Operator

REFUSED = 45
"""Seconds in which a watch that is refused, or allowed again, is noticed: a probe's interval, and the longest wait."""


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    found = shared.kubectl_of(control_plane)
    install(found)
    # the rights below are given by namespace, as the chart does for `watchNamespaces`
    found("delete", "clusterrolebinding", "queueworker-operator")
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left(kubectl: Kubectl) -> Iterator[None]:
    """The objects of a test, whose operator has ended, would hold the CRD that another test deletes."""
    yield
    left = json.loads(kubectl("get", "qw", "-A", "-o", "json", check=False).stdout or '{"items": []}')["items"]
    for where, name in [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in left]:
        kubectl("patch", "qw", name, "-n", where, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        kubectl("delete", "qw", name, "-n", where, "--ignore-not-found")


def bind(kubectl: Kubectl, namespace: str) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "queueworker-operator", "namespace": namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "queueworker-operator",
        },
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR_ACCOUNT[1], "namespace": OPERATOR_ACCOUNT[0]}],
    }
    kubectl("apply", "-f", "-", input=yaml.safe_dump(binding))


def unbind(kubectl: Kubectl, namespace: str) -> None:
    kubectl("delete", "rolebinding", "queueworker-operator", "-n", namespace)


def metric(started: Operator, series: str) -> float:
    lines = httpx.get(f"{started.url}/metrics", timeout=5).text.splitlines()
    (found,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{series} ")]
    return float(found)


def is_up(started: Operator, namespace: str, kind: str) -> bool:
    wanted = f'queueworker_watch_up{{kind="{kind}",namespace="{namespace}"}} '
    lines = httpx.get(f"{started.url}/metrics", timeout=5).text.splitlines()
    return [line for line in lines if line.startswith(wanted)] == [f"{wanted}1.0"]


def is_reason(kubectl: Kubectl, namespace: str, reason: str) -> bool:
    return condition(kubectl, namespace, "legacy", "Ready")[1] == reason


def test_a_namespace_that_refuses_its_watch_is_named_and_routed_for_and_watched_again(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    other = f"{namespace}-b"
    kubectl("create", "namespace", other)
    bind(kubectl, namespace)
    bind(kubectl, other)
    with demo_process("queue", "--port", "0") as second, leading(control_plane, tmp_path, namespace, other) as started:
        for where, of in ((namespace, queue), (other, second)):
            kubectl("apply", "-n", where, "-f", "-", input=worker("legacy", **spec(of, shared_redis, executor)))
            eventually(lambda: is_reason(kubectl, where, "Routing"))  # noqa: B023 -- called in this turn only
        unbind(kubectl, other)
        eventually(lambda: not is_up(started, other, "QueueWorkers"), REFUSED)
        eventually(lambda: not is_up(started, other, "EndpointSlices"), REFUSED)
        assert is_up(started, namespace, "QueueWorkers")
        assert is_ready(started)
        assert f"QueueWorkers in namespace {other} (403 Forbidden)" in readiness(started)
        assert metric(started, 'queueworker_api_errors_total{reason="forbidden"}') > 0
        assert metric(started, 'queueworker_lease_changes_total{change="acquired"}') == 1
        for of in (queue, second):
            submit(of, 20, prefix="refused")
            eventually(lambda: done(of, 20))  # noqa: B023 -- called in this turn only
        suspend = json.dumps({"spec": {"suspend": True}})
        kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", suspend)
        eventually(lambda: is_reason(kubectl, namespace, "Suspended"), 5)
        kubectl("patch", "qw", "legacy", "-n", other, "--type=merge", "-p", suspend)
        bind(kubectl, other)
        eventually(lambda: is_up(started, other, "QueueWorkers"), REFUSED)
        eventually(lambda: is_reason(kubectl, other, "Suspended"), REFUSED)
        log = started.log.read_text()
        assert log.count(f"QueueWorkers in namespace {other} cannot be watched") == 1
        assert log.count(f"QueueWorkers in namespace {other} can be watched again") == 1
        assert "draining" not in log


def test_an_object_that_vanishes_while_its_watch_is_refused_is_routed_for_no_longer(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    with leading(control_plane, tmp_path, namespace) as started:
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
        eventually(lambda: is_reason(kubectl, namespace, "Routing"))
        unbind(kubectl, namespace)
        eventually(lambda: not is_up(started, namespace, "QueueWorkers"), REFUSED)
        kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        kubectl("delete", "qw", "legacy", "-n", namespace)
        bind(kubectl, namespace)
        eventually(lambda: readiness(started) == "leading, with 0 QueueWorkers", REFUSED)
        submit(queue, 1)
        time.sleep(2)
        assert account(queue)["handed_out"] == 0


def test_a_crd_that_is_deleted_and_made_again_needs_no_restart(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    with leading(control_plane, tmp_path, namespace) as started:
        body = worker("legacy", **spec(queue, shared_redis, executor))
        kubectl("apply", "-n", namespace, "-f", "-", input=body)
        eventually(lambda: is_reason(kubectl, namespace, "Routing"))
        kubectl("delete", "crd", "queueworkers.crucible.dev", "--timeout=60s")
        eventually(lambda: not is_ready(started), REFUSED)
        assert "404 Not Found" in readiness(started)
        install_crd(kubectl)
        kubectl("apply", "-n", namespace, "-f", "-", input=body)
        eventually(lambda: is_reason(kubectl, namespace, "Routing"), REFUSED)
        submit(queue, 5)
        eventually(lambda: done(queue, 5))
        assert is_ready(started)


def test_a_term_that_begins_without_a_crd_waits_for_it(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    bind(kubectl, namespace)
    kubectl("delete", "crd", "queueworkers.crucible.dev", "--timeout=60s")
    with operator(control_plane, tmp_path, "--namespace", namespace) as started:
        eventually(lambda: "QueueWorkers" in started.log.read_text())
        eventually(lambda: "404 Not Found" in readiness(started))
        assert not is_ready(started)
        install_crd(kubectl)
        eventually(lambda: is_ready(started), REFUSED)


def journalled(server: RedisServer, group: str) -> int:
    """Tasks in flight that the journals of a group hold."""
    with Redis(port=server.port) as redis:
        return sum(int(redis.hlen(key)) for key in redis.scan_iter(f"queueworker:{{{group}}}:journal:*"))


def test_what_was_in_flight_when_nobody_led_is_reported_before_a_deleted_object_goes(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    submit(queue, 4)
    with leading(control_plane, tmp_path, namespace) as first:
        body = worker("legacy", **spec(queue, shared_redis, slow_executor))
        kubectl("apply", "-n", namespace, "-f", "-", input=body)
        eventually(lambda: journalled(shared_redis, f"{namespace}/legacy") == 4)
        first.kill()
    kubectl("delete", "qw", "legacy", "-n", namespace, "--wait=false")
    assert not done(queue, 4)
    submit(queue, 1, prefix="later")
    with leading(control_plane, tmp_path, namespace):
        kubectl("wait", "--for=delete", "qw/legacy", "-n", namespace, "--timeout=50s")
        counts = account(queue)
        check_account(counts, completed=4, reported_twice=0, handed_out=4)


def test_a_takeover_makes_no_false_event_of_an_object_that_uses_a_service(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    item = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "one", "labels": {"kubernetes.io/service-name": "executor"}},
        "addressType": "FQDN",
        "ports": [{"name": "http", "port": int(executor.url.rpartition(":")[2])}],
        "endpoints": [{"addresses": ["0x7f.1"], "conditions": {"ready": True}}],
    }
    kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump(item))
    by_service = spec(queue, shared_redis) | {"executors": {"service": {"name": "executor", "port": "http"}}}
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **by_service))
    for _ in range(2):
        with leading(control_plane, tmp_path, namespace) as started:
            eventually(lambda: is_reason(kubectl, namespace, "Routing"))
            time.sleep(2)
            assert started.stop() == 0
        shown: list[dict[str, Any]] = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json").stdout)[
            "items"
        ]
        assert [e["reason"] for e in shown if e["type"] == "Warning"] == []
        assert "Routing" in {e["reason"] for e in shown}


def test_a_wrong_token_is_an_api_server_that_is_away_until_the_right_one_is_there(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    right = Path(control_plane.kubeconfig_for(*OPERATOR_ACCOUNT)).read_text()
    config = tmp_path / "kubeconfig"
    config.write_text(right.replace(control_plane.token_for(*OPERATOR_ACCOUNT), "wrong"))
    lease = ("--lease-name", f"lease-{namespace}", "--namespace", namespace)
    with operator(control_plane, tmp_path, *lease, environment={"KUBECONFIG": str(config)}) as started:
        eventually(lambda: "401 Unauthorized" in started.log.read_text())
        assert "has not answered" in readiness(started)
        config.write_text(right)
        eventually(lambda: is_ready(started))
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
        eventually(lambda: is_reason(kubectl, namespace, "Routing"))

        control_plane.stop_apiserver()
        control_plane.rotate_token(*OPERATOR_ACCOUNT)
        control_plane.start_apiserver()
        eventually(lambda: not is_ready(started), 60)
        submit(queue, 20)
        eventually(lambda: done(queue, 20))
        config.write_text(Path(control_plane.kubeconfig_for(*OPERATOR_ACCOUNT)).read_text())
        eventually(lambda: is_ready(started), REFUSED)
        patch = json.dumps({"spec": {"suspend": True}})
        kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", patch)
        eventually(lambda: is_reason(kubectl, namespace, "Suspended"), REFUSED)
        assert "draining" not in started.log.read_text()
    assert status(kubectl, namespace, "legacy")["tasks"]["completed"] == 20


def uninstall(plane: ControlPlane, *args: str) -> subprocess.CompletedProcess[str]:
    """As the operator's own service account."""
    return subprocess.run(
        [sys.executable, "-m", "queueworker.cli.main", "uninstall", *args],
        env=os.environ | {"KUBECONFIG": plane.kubeconfig_for(*OPERATOR_ACCOUNT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def test_objects_that_the_operator_holds_are_named_and_released(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    where = ("--namespace", namespace, "--lease-name", f"lease-{namespace}")
    with leading(control_plane, tmp_path, namespace) as started:
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
        eventually(lambda: is_reason(kubectl, namespace, "Routing"))
        said = uninstall(control_plane, *where)
        assert (said.returncode, f"{namespace}/legacy" in said.stderr) == (1, True)
        said = uninstall(control_plane, *where, "--release")
        assert (said.returncode, said.stderr) == (0, "")
        assert "queueworker-uninstall leads" in readiness(started)
        assert uninstall(control_plane, *where).returncode == 0
        kubectl("delete", "qw", "legacy", "-n", namespace, "--timeout=5s")


def test_a_rollout_pulls_on_while_the_old_leader_drains_and_no_count_is_lost(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    queue: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    bind(kubectl, namespace)
    where = ("--namespace", namespace, "--lease-name", f"lease-{namespace}")
    with (
        demo_process("executor", "--port", "0", "--fast", "--delay-ms", "8000", "--max-concurrent", "64") as slow,
        demo_process("executor", "--port", "0", "--fast", "--delay-ms", "50", "--max-concurrent", "64") as quick,
        leading(control_plane, tmp_path, namespace) as old,
        operator(control_plane, tmp_path, *where) as new,
    ):
        body = spec(queue, shared_redis, slow, quick)
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **body))
        eventually(lambda: is_reason(kubectl, namespace, "Routing"))
        eventually(lambda: is_ready(new))
        submit(queue, 40)
        eventually(lambda: account(queue)["completed"] >= 20)
        old.process.send_signal(signal.SIGTERM)
        eventually(lambda: "leading" in readiness(new), 10)
        assert old.process.poll() is None, "it drains"
        submit(queue, 40, prefix="later")
        eventually(lambda: account(queue)["completed"] >= 60, 8)
        old.process.wait(45)
        eventually(lambda: done(queue, 80), 40)
        counts = account(queue)
        check_account(counts, completed=80, reported_twice=0, unknown_reports=0)
        eventually(lambda: status(kubectl, namespace, "legacy")["tasks"]["routed"] == 80, 40)
        assert status(kubectl, namespace, "legacy")["tasks"]["recovered"] == 0
