"""Starts operators as a pod would: a process with the service account's own rights, in a folder of one test run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from devcluster.server import ESTABLISHED, OPERATOR_ACCOUNT, ControlPlane, free_ports
from devcluster.spawning import bound_to_us, end
from queueworker.resource.generate import crd_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcluster.redis_server import RedisServer
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
"""For a loaded machine: where it has more to do than cores, an operator alone takes half a minute to start."""
END_SECONDS = 15.0
"""After it, an operator is killed at the end of its block: its routers may wait for queues that have ended already. A
test of the end itself calls `Operator.stop`."""


def install(kubectl: Kubectl) -> None:
    """CRD, namespace and the operator's rights: as manifests/default, less the Deployment."""
    namespace = OPERATOR_ACCOUNT[0]
    if kubectl("get", "namespace", namespace, check=False).returncode != 0:
        kubectl("create", "namespace", namespace)
    install_crd(kubectl)
    kubectl("apply", "-f", str(ROOT / "manifests" / "rbac" / "role.yaml"))
    allow_leases_of_other_names(kubectl)


def allow_leases_of_other_names(kubectl: Kubectl) -> None:
    """The operator's rights are for its own Lease; many a test has one with another name."""
    namespace, account = OPERATOR_ACCOUNT
    rules = ("--verb=get,update", "--resource=leases.coordination.k8s.io")
    created = kubectl("create", "role", "leases-of-tests", "-n", namespace, *rules, "--dry-run=client", "-o", "json")
    kubectl("apply", "-f", "-", input=created.stdout)
    to = ("--role=leases-of-tests", f"--serviceaccount={namespace}:{account}")
    bound = kubectl("create", "rolebinding", "leases-of-tests", "-n", namespace, *to, "--dry-run=client", "-o", "json")
    kubectl("apply", "-f", "-", input=bound.stdout)


def install_crd(kubectl: Kubectl) -> None:
    """Return when its resources are served: for about a second they answer 429."""
    kubectl("apply", "--server-side", "-f", "-", input=crd_yaml())
    kubectl("wait", ESTABLISHED, "crd/queueworkers.crucible.dev", "--timeout=30s")
    eventually(lambda: kubectl("get", "qw", "-A", check=False).returncode == 0)


def operator_calls(plane: ControlPlane) -> Iterator[dict[str, Any]]:
    """The audit log of what operators did; not what a test did with kubectl in an operator's name."""
    for call in plane.audit_events():
        if call["user"]["username"].endswith(":queueworker-operator") and not call["userAgent"].startswith("kubectl/"):
            yield call


def label_selectors(plane: ControlPlane, resource: str) -> set[str]:
    """Of all lists and watches that operators asked for; the empty one stands for all objects."""
    uris = {
        call["requestURI"]
        for call in operator_calls(plane)
        if (call.get("objectRef") or {}).get("resource") == resource and call["verb"] in {"list", "watch"}
    }
    return {httpx.URL(uri).params.get("labelSelector", "") for uri in uris}


@dataclass
class Operator:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 45) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@contextmanager
def operator(
    plane: ControlPlane, folder: Path, *args: str, environment: dict[str, str] | None = None
) -> Iterator[Operator]:
    """An operator that runs until the end of the block; what it logged is shown when the block fails."""
    port = free_ports(1)[0]
    log = folder / f"operator-{port}.log"
    with log.open("wb") as output:
        process = bound_to_us(
            [
                sys.executable,
                "-m",
                "queueworker.cli.main",
                "operator",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                *args,
            ],
            env=os.environ | {"KUBECONFIG": plane.kubeconfig_for(*OPERATOR_ACCOUNT)} | (environment or {}),
            stdout=output,
            stderr=output,
        )
    running = Operator(process, port, log)
    try:
        yield running
    except BaseException:
        print(log.read_text(errors="replace")[-5000:])
        raise
    finally:
        end(process, patience=END_SECONDS)


def worker(name: str, **spec: Any) -> str:
    """A QueueWorker as YAML."""
    return yaml.safe_dump(
        {"apiVersion": "crucible.dev/v1alpha1", "kind": "QueueWorker", "metadata": {"name": name}, "spec": spec}
    )


def status(kubectl: Kubectl, namespace: str, name: str) -> dict[str, Any]:
    """The object's status; empty while it has none."""
    got = kubectl("get", "qw", name, "-n", namespace, "-o", "json", check=False)
    found: dict[str, Any] = json.loads(got.stdout).get("status", {}) if got.returncode == 0 else {}
    return found


def condition(kubectl: Kubectl, namespace: str, name: str, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition."""
    for item in status(kubectl, namespace, name).get("conditions", []):
        if item["type"] == kind:
            return item["status"], item["reason"], item["message"]
    return "", "", ""


def eventually(check: Callable[[], object], timeout: float = PATIENCE_SECONDS) -> float:
    """Return when the check holds; the seconds that it took. Raises AssertionError."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        if check():
            return time.monotonic() - started
        time.sleep(0.1)
    raise AssertionError(f"it did not come to hold within {timeout} s; last: {check()!r}")


def is_ready(started: Operator) -> bool:
    try:
        return httpx.get(f"{started.url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def submit(queue: DemoProcess, count: int, prefix: str = "t") -> None:
    with queue.client() as client:
        for i in range(count):
            client.post("/tasks", json={"eval_id": f"{prefix}-{i}", "code": "print(1)"}).raise_for_status()


def account(queue: DemoProcess) -> dict[str, int]:
    with queue.client() as client:
        counts: dict[str, int] = client.get("/account").json()
        return counts


def done(queue: DemoProcess, count: int) -> bool:
    counts = account(queue)
    return counts["completed"] + counts["failed"] == count


def spec(queue: DemoProcess, redis: RedisServer, *executors: DemoProcess, **more: Any) -> dict[str, Any]:
    return {
        "queue": {"url": queue.url},
        "events": {"redisURL": redis.url},
        "executors": {"endpoints": [e.url for e in executors], "concurrency": 8},
    } | more


@contextmanager
def leading(plane: ControlPlane, folder: Path, *namespaces: str, **environment: str) -> Iterator[Operator]:
    """An operator of these namespaces, with a Lease of its own, from when it leads."""
    where = [word for namespace in namespaces for word in ("--namespace", namespace)]
    lease = ("--lease-name", f"lease-{namespaces[0]}")
    with operator(plane, folder, *lease, *where, environment=environment) as started:
        eventually(lambda: is_ready(started) and "leading" in readiness(started))
        yield started


def readiness(started: Operator) -> str:
    return str(httpx.get(f"{started.url}/readyz", timeout=5).json()["reason"])


def calls_of_operators(plane: ControlPlane, since: datetime) -> Iterator[dict[str, Any]]:
    """The audit events of what operators have asked of the API server; several for one call."""
    user = "system:serviceaccount:" + ":".join(OPERATOR_ACCOUNT)
    for event in plane.audit_events():
        if event["user"]["username"] == user and datetime.fromisoformat(event["requestReceivedTimestamp"]) > since:
            yield event
