"""`kubectl queueworker …` as kubectl runs it, on a real API server, with a real operator behind its Service."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster import binaries
from devcluster.server import OPERATOR_ACCOUNT
from tests.support.demo_processes import demo_process
from tests.support.operating import condition, done, eventually, spec, submit, worker
from tests.support.reachable_operator import SERVICE, SYSTEM, reachable_operator
from tools.terminal import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcluster.redis_server import RedisServer
    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess
    from tests.support.operating import Operator


PATIENCE = 60
"""Each look starts a command, so a busy machine needs more seconds than for others."""


def soon(check: Callable[[], object]) -> None:
    eventually(check, timeout=PATIENCE)


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    with reachable_operator(control_plane, kubectl, folder) as started:
        yield started


class Plugin:
    """Runs `kubectl queueworker …`; kubectl finds the plugin beside Python."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        beside = str(Path(sys.executable).parent)
        self.environ = os.environ | {"PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "KUBECONFIG": kubeconfig}
        self.environ.pop("QUEUEWORKER_OPERATOR", None)
        self._namespace = namespace

    def __call__(self, *args: str, status: int = 0) -> str:
        """Standard output, and standard error if the command is to fail."""
        command = [binaries.kubectl(), "queueworker", *args]
        if not args[0].startswith("-"):
            command += ["-n", self._namespace]
        return self.run(command, status)

    def json(self, *args: str, status: int = 0) -> Any:
        return json.loads(self(*args, "-o", "json", status=status))

    def run(self, command: list[str], status: int = 0) -> str:
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")


@pytest.fixture
def plugin(control_plane: ControlPlane, running: Operator, namespace: str) -> Plugin:
    return Plugin(control_plane.admin_kubeconfig, namespace)


@pytest.fixture
def legacy(
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    shared_redis: RedisServer,
    redis_url: str,
    executor: DemoProcess,
) -> str:
    """A QueueWorker that routes."""
    made = spec(queue, shared_redis, executor)
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **made))
    return "legacy"


def test_status_shows_what_the_leader_says_now(plugin: Plugin, legacy: str, queue: DemoProcess) -> None:
    plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
    submit(queue, 5)
    soon(lambda: done(queue, 5))
    seen = plugin.json("status", legacy)
    assert seen["source"]["live"], seen["source"]
    assert (seen["state"]["word"], seen["completed"], seen["per_minute"]) == ("Routing", 5, 5)
    assert seen["pipeline"] == {"pulled": 0, "executing": 0, "to_report": 0, "to_publish": 0}
    text = plugin("status")
    assert text.startswith(f"{seen['namespace']}/legacy  ● Routing")
    assert "live from" in text
    assert "Tasks      5 completed, 0 failed in all" in text


def test_status_without_the_right_to_ask_the_operator_falls_back_and_names_the_right(
    control_plane: ControlPlane, plugin: Plugin, legacy: str, namespace: str, kubectl: Kubectl
) -> None:
    plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
    limited = Plugin(control_plane.kubeconfig_for(*OPERATOR_ACCOUNT), namespace)
    text = limited("top", "-n", namespace)
    assert "● Routing" in text
    assert f"not live: you may not ask the operator: allow `get services/proxy` in the namespace {SYSTEM}" in text


def test_suspend_and_resume_are_the_field_of_the_spec(
    plugin: Plugin, legacy: str, namespace: str, kubectl: Kubectl
) -> None:
    plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
    assert plugin.json("suspend", legacy)["changed"]
    plugin("status", legacy, "--wait", "Ready=Suspended", "--timeout", "60s")
    assert not plugin.json("suspend", legacy)["changed"]
    assert plugin("resume", legacy) == f"{namespace}/legacy: resumed\n"
    plugin("status", legacy, "--wait", "Ready=Routing", "--timeout", "60s")


def test_a_drained_executor_leaves_the_pool_and_comes_back(
    plugin: Plugin, kubectl: Kubectl, namespace: str, legacy: str, slow_executor: DemoProcess, executor: DemoProcess
) -> None:
    kubectl(
        *("patch", "qw", legacy, "-n", namespace, "--type=merge", "-p"),
        json.dumps({"spec": {"executors": {"endpoints": [executor.url, slow_executor.url]}}}),
    )
    name = slow_executor.url.removeprefix("http://")
    soon(lambda: plugin.json("status", legacy)["executors_healthy"] == 2)
    plugin("drain", name, legacy)
    soon(lambda: [e["state"] for e in plugin.json("status", legacy)["executors"]] == ["healthy", "drained"])
    assert "no executor nobody" in plugin("drain", "nobody", legacy, status=1)
    plugin("undrain", name, legacy)
    soon(lambda: plugin.json("status", legacy)["executors_healthy"] == 2)


def test_failed_tasks_are_found_by_the_name_of_their_object(
    plugin: Plugin, kubectl: Kubectl, legacy: str, queue: DemoProcess, shared_redis: RedisServer, namespace: str
) -> None:
    with demo_process("executor", "--port", "0") as real:  # one that runs code
        kubectl("apply", "-n", namespace, "-f", "-", input=worker(legacy, **spec(queue, shared_redis, real)))
        plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
        with queue.client() as client:
            client.post("/tasks", json={"eval_id": "broken", "code": "raise ValueError('no')"}).raise_for_status()
        soon(lambda: len(plugin.json("failed", "list", legacy)) == 1)
        assert "ValueError: no" in plugin("failed", "show", legacy, "broken")
        (sent,) = plugin.json("failed", "retry", legacy, "broken")
        assert (sent["eval_id"], sent["sent"]) == ("broken", True)


def test_the_operators_own_account_may_list_failed_tasks_as_in_its_pod(
    control_plane: ControlPlane, plugin: Plugin, legacy: str, namespace: str
) -> None:
    in_pod = Plugin(control_plane.kubeconfig_for(*OPERATOR_ACCOUNT), namespace)
    assert in_pod.json("failed", "list") == []


def test_check_passes_where_everything_is_there(plugin: Plugin, legacy: str) -> None:
    plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
    found = plugin.json("check", legacy)
    assert found["errors"] == 0
    levels = {f["check"]: f["level"] for f in found["findings"]}
    assert {levels[check] for check in ("crd", "leader", "operator", "rights", "ready", "queue", "executors")} == {"ok"}


def test_check_names_what_is_missing_and_fails(plugin: Plugin, kubectl: Kubectl, namespace: str) -> None:
    made = {
        "queue": {"apiKeySecretRef": {"name": "key", "key": "k"}},
        "executors": {"count": 2},
        "events": {"redisURL": "redis://127.0.0.1:9"},
    }
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("broken", **made))
    soon(lambda: condition(kubectl, namespace, "broken", "Ready")[0] == "False")
    text = plugin("check", "broken", "--short", status=1)
    assert f"✕ DNS: queue (spec.queue.url) is no Service of the namespace {namespace}" in text
    assert "✕ DNS: executor-2 (spec.executors.count)" in text
    assert "✕ queue.apiKeySecretRef: there is no Secret key → create it with the key k" in text
    assert "✔" not in text
    assert "; exit status 1" in text


def test_check_names_the_rights_that_the_operator_lacks(
    plugin: Plugin, kubectl: Kubectl, legacy: str, namespace: str
) -> None:
    rules = json.loads(kubectl("get", "clusterrole", SERVICE, "-o", "json").stdout)
    fewer = [rule for rule in rules["rules"] if "endpointslices" not in rule["resources"]]
    kubectl("patch", "clusterrole", SERVICE, "--type=merge", "-p", json.dumps({"rules": fewer}))
    try:
        message = f"may not list endpointslices.discovery.k8s.io, watch endpointslices.discovery.k8s.io in {namespace}"
        soon(lambda: any(message in f["message"] for f in _findings(plugin, legacy)))
    finally:
        kubectl("patch", "clusterrole", SERVICE, "--type=merge", "-p", json.dumps({"rules": rules["rules"]}))


def test_check_passes_where_the_operator_may_read_only_the_secrets_that_objects_name(
    plugin: Plugin, kubectl: Kubectl, legacy: str, namespace: str
) -> None:
    rules = json.loads(kubectl("get", "clusterrole", SERVICE, "-o", "json").stdout)["rules"]
    named = [rule | ({"resourceNames": ["key"]} if rule["resources"] == ["secrets"] else {}) for rule in rules]
    refers = {"spec": {"queue": {"apiKeySecretRef": {"name": "key", "key": "k"}}}}
    kubectl("create", "secret", "generic", "key", "-n", namespace, "--from-literal=k=v")
    kubectl("patch", "clusterrole", SERVICE, "--type=merge", "-p", json.dumps({"rules": named}))
    try:
        kubectl("patch", "qw", legacy, "-n", namespace, "--type=merge", "-p", json.dumps(refers))
        plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
        assert "the operator has its rights" in plugin("check", legacy)
        refers["spec"]["queue"]["apiKeySecretRef"]["name"] = "other"
        kubectl("patch", "qw", legacy, "-n", namespace, "--type=merge", "-p", json.dumps(refers))
        assert "may not get secrets/other" in plugin("check", legacy, status=1)
    finally:
        kubectl("patch", "clusterrole", SERVICE, "--type=merge", "-p", json.dumps({"rules": rules}))


def _findings(plugin: Plugin, name: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = plugin.json("check", name, status=1)["findings"]
    except AssertionError:
        return []
    return found


@pytest.mark.parametrize("words", [["retry", "far", "a b", "c"], ["retry", "far", "--all", "--ambiguous"]])
def test_a_redis_out_of_reach_is_answered_with_the_same_command_in_a_pod(
    plugin: Plugin, kubectl: Kubectl, namespace: str, words: list[str]
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("far", events={"redisURL": "redis://127.0.0.1:9"}))
    text = plugin("failed", *words, status=1)
    assert f"kubectl-queueworker failed {shlex.join(words)} -n {namespace}`" in text


def test_an_object_that_does_not_exist_is_told_with_those_that_do(plugin: Plugin, legacy: str, namespace: str) -> None:
    text = plugin("status", "lagacy", status=1)
    assert text == f"error: there is no QueueWorker lagacy in the namespace {namespace}: it has: legacy\n"


def test_wait_ends_by_itself(plugin: Plugin, legacy: str) -> None:
    text = plugin("status", legacy, "--wait", "Ready=Standby", "--timeout", "1s", status=1)
    assert text.startswith("error: Ready=Standby did not hold within 1 s: ")


def test_kubectl_completes_the_plugins_verbs_and_the_objects_names(plugin: Plugin, legacy: str, namespace: str) -> None:
    verbs = plugin.run([binaries.kubectl(), "__complete", "queueworker", "st"])
    assert [line.split("\t")[0] for line in verbs.splitlines()][:1] == ["status"]
    names = plugin.run([binaries.kubectl(), "__complete", "queueworker", "status", "-n", namespace, "le"])
    assert names.splitlines()[0] == "legacy"


def test_top_shows_objects_opens_one_and_sums_up(plugin: Plugin, legacy: str, namespace: str) -> None:
    plugin("status", legacy, "--wait", "Ready", "--timeout", "60s")
    with Session([binaries.kubectl(), "queueworker", "top", "-n", namespace], plugin.environ) as seen:
        seen.until(lambda text: "enter open" in text, PATIENCE)
        assert f"{namespace}/legacy" in seen.text
        seen.press("\r")
        seen.until(lambda text: "EXECUTOR" in text, PATIENCE)
        seen.press("\x1b")
        seen.until(lambda text: "enter open" in text, PATIENCE)
        seen.press("q")
        assert seen.wait(PATIENCE) == 0
        assert seen.text.startswith("1 object for "), "the line that stays when the screen is given back"


def test_the_version_is_told(plugin: Plugin) -> None:
    assert plugin("--version").count(".") == 2
