"""A cluster with nodes, as its users see it: kubectl, helm, and namespaces that pod security confines."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from devcluster import binaries
from devcluster.node import processes
from tests.support.demo_processes import wait_until
from tools.image import default_tag
from tools.platform_image import platform_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "queueworker-operator"
NAME = "queueworker-operator"
CRD = "queueworkers.crucible.dev"
# The strictest of Kubernetes' pod security standards: what does not comply is refused.
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
COMMAND_SECONDS = 240
# With them a pod is Ready seconds earlier than with those of the chart, which test_install_page.py has.
FREQUENT_PROBES = (
    "startupProbe.periodSeconds=1",
    "startupProbe.failureThreshold=180",
    "readinessProbe.periodSeconds=1",
)
READY_SECONDS = 180  # upper bounds for a machine that is busy otherwise
SETTLE_SECONDS = 300


@dataclass(frozen=True)
class Cluster:
    """The cluster of this test run, with the names of the images that its nodes have or can pull."""

    kubeconfig: str
    context: str
    image: str
    platform_image: str

    @classmethod
    def of_environment(cls) -> Cluster | None:
        """What E2E_KUBECONFIG, E2E_CONTEXT, E2E_IMAGE and E2E_PLATFORM_IMAGE say; None without the first."""
        kubeconfig = os.environ.get("E2E_KUBECONFIG")
        if not kubeconfig:
            return None
        image = os.environ.get("E2E_IMAGE", default_tag())
        platform_image = os.environ.get("E2E_PLATFORM_IMAGE", platform_tag())
        return cls(kubeconfig, os.environ.get("E2E_CONTEXT", ""), image, platform_image)

    def kubectl(self, *args: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*args), text, check=check)

    def command(self, *args: str) -> list[str]:
        """The command line of kubectl."""
        return [binaries.kubectl(), *self._target("--context"), *args]

    def helm(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run([binaries.helm(), *self._target("--kube-context"), *args], None, check=check)

    def get(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json").stdout)
        return found

    def items(self, *args: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(*args)["items"]
        return found

    def minor_version(self) -> int:
        """29 of Kubernetes 1.29.14."""
        version = json.loads(self.kubectl("version", "-o", "json").stdout)["serverVersion"]
        return int(re.sub(r"\D", "", version["minor"]))

    def apply(self, objects: list[dict[str, Any]], namespace: str) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        done = self.kubectl("apply", "-n", namespace, "-f", "-", text=text)
        assert "Warning" not in done.stderr, done.stderr

    @contextmanager
    def namespace(self, prefix: str, *, unique: bool = True) -> Iterator[str]:
        """A namespace under the standard `restricted`; deleted after the block, without waiting for its end."""
        name = f"{prefix}-{uuid.uuid4().hex[:6]}" if unique else prefix
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, *(f"{key}={value}" for key, value in RESTRICTED.items()))
        try:
            yield name
        except BaseException:
            print(self.story(name))
            raise
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    def delete_crd(self) -> None:
        """Delete the CRD, and with it all QueueWorkers of the cluster."""
        self.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """The URL on this machine of a port in the cluster, such as of `service/queue`."""
        command = self.command("port-forward", "-n", namespace, target, f":{port}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], READY_SECONDS)[0], f"no forwarding to {target}"
            found = re.search(r"127\.0\.0\.1:(\d+)", line := process.stdout.readline())
            assert found, line
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()

    def story(self, namespace: str) -> str:
        """What to read when a test fails: objects, events and logs of the namespace."""
        commands = (
            ("get", "pods,statefulsets,deployments,queueworkers", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "--all-pods", "--prefix", "--tail=40", "deployment/queueworker-operator"),
        )
        outputs = (self.kubectl(*command, "-n", namespace, check=False).stdout[-6000:] for command in commands)
        return f"--- {namespace}\n" + "\n".join(outputs)

    def _target(self, context_option: str) -> list[str]:
        return ["--kubeconfig", self.kubeconfig, *([context_option, self.context] if self.context else [])]

    def _run(self, command: list[str], text: str | None, *, check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stderr}{done.stdout}"
        return done


class Release:
    """The operator, installed in a namespace."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str = NAME, probes: tuple[str, ...] = FREQUENT_PROBES
    ) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.chart = CHART
        self._probes = probes

    def install(self, *values: str, command: str = "install") -> None:
        """`helm install` (or `upgrade`), and wait until its pods are Ready."""
        repository, _, tag = self.cluster.image.rpartition(":")
        sets = (f"image.repository={repository}", f"image.tag={tag}", *self._probes, *values)
        options = [part for value in sets for part in ("--set", value)]
        self.cluster.helm(command, self.name, str(self.chart), *self._waiting(), *options)

    def rollback(self) -> None:
        """`helm rollback` to the revision before."""
        self.cluster.helm("rollback", self.name, *self._waiting())

    def uninstall(self) -> None:
        """`helm uninstall`, which keeps the CRD, and with it all objects."""
        self.cluster.helm("uninstall", self.name, *self._waiting())

    def test(self) -> str:
        """`helm test`, and what it prints."""
        return self.cluster.helm("test", self.name, "-n", self.namespace, "--timeout", f"{READY_SECONDS}s").stdout

    def _waiting(self) -> tuple[str, ...]:
        return ("-n", self.namespace, "--wait", "--timeout", f"{READY_SECONDS}s")

    def pods(self) -> list[dict[str, Any]]:
        """Those that are not on their way out."""
        labels = f"app.kubernetes.io/name={NAME}"
        found = self.cluster.items("pods", "-n", self.namespace, "-l", labels)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod(self, name: str) -> dict[str, Any]:
        return self.cluster.get("pod", name, "-n", self.namespace)

    def leader(self) -> str:
        """The name of the pod that holds the Lease; empty if that pod is gone."""
        lease = self.cluster.kubectl("get", "lease", self.name, "-n", self.namespace, "-o", "json", check=False)
        holder = json.loads(lease.stdout)["spec"].get("holderIdentity") or "" if lease.returncode == 0 else ""
        names = (pod["metadata"]["name"] for pod in self.pods())
        return next((name for name in names if holder.startswith(name)), "")

    def await_leader(self, other_than: str = "") -> str:
        wait_until(lambda: self.leader() not in {"", other_than}, "a pod leads", READY_SECONDS)
        return self.leader()

    def await_ready(self, count: int) -> None:
        def ready() -> bool:
            return sum(is_ready(pod) for pod in self.pods()) == count == len(self.pods())

        wait_until(ready, f"{count} pods of the operator are Ready", READY_SECONDS)


@contextmanager
def installed(
    cluster: Cluster,
    *values: str,
    probes: tuple[str, ...] = FREQUENT_PROBES,
    prepare: Callable[[str], None] | None = None,
) -> Iterator[Release]:
    """The operator, installed by the chart in a namespace of its own; it is gone after the block, and so is the CRD.

    `probes` are values too; empty: those of the chart. `prepare` gets the namespace before the chart does.
    """
    with cluster.namespace("operator") as namespace:
        if prepare is not None:
            prepare(namespace)
        release = Release(cluster, namespace, probes=probes)
        try:
            release.install(*values)
            yield release
        finally:
            cluster.helm("uninstall", release.name, "-n", namespace, "--ignore-not-found", "--no-hooks", "--wait")
            cluster.delete_crd()


def is_ready(pod: dict[str, Any]) -> bool:
    return condition(pod, "Ready") == "True"


def condition(obj: dict[str, Any], kind: str) -> str:
    """The status of a condition; empty if there is none of that type."""
    found = obj.get("status", {}).get("conditions", [])
    return next((item["status"] for item in found if item["type"] == kind), "")


def restarts(pod: dict[str, Any]) -> int:
    """How often the kubelet has started a container of the pod again."""
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def kill_container(pod: dict[str, Any], container: str) -> None:
    """SIGKILL to all processes of a running container, whose node is this machine (`requires("processes")`).

    `kubectl delete --force` is no such thing: the kubelet still sends SIGTERM first.
    """
    name = f"{pod['metadata']['name']}/{container}"
    statuses = {status["name"]: status for status in pod["status"].get("containerStatuses", [])}
    assert container in statuses, f"{name}: the pod has the containers {sorted(statuses)}"
    container_id = statuses[container].get("containerID", "").rpartition("/")[2]
    assert container_id, f"{name} does not run: {statuses[container].get('state')}"
    pids = processes.of_container(container_id)
    assert pids, f"{name}: no process on this machine has the id {container_id} in /proc/PID/cgroup"
    assert processes.kill(pids), f"{name}: not all of the processes {pids} ended after SIGKILL"


class Queue:
    """The platform's queue, by a port on this machine."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def submit(self, prefix: str, count: int, seconds: float) -> list[str]:
        """Queue tasks that sleep, and return their ids."""
        run = uuid.uuid4().hex[:6]  # a test that runs once more has tasks of its own
        ids = [f"{prefix}-{run}-{number}" for number in range(count)]
        for eval_id in ids:
            task = {"eval_id": eval_id, "timeout": 120, "code": f"import time\ntime.sleep({seconds})\nprint('done')"}
            self._http.post("/tasks", json=task).raise_for_status()
        return ids

    def account(self) -> dict[str, int]:
        """The queue's counts since it started, and the numbers of tasks `queued` and `processing`."""
        counts: dict[str, int] = self._http.get("/account").raise_for_status().json()
        status: dict[str, int] = self._http.get("/status").raise_for_status().json()
        return counts | {name: status[name] for name in ("queued", "processing")}

    def is_settled(self) -> bool:
        account = self.account()
        return not account["queued"] and not account["processing"]

    def settle(self, seconds: float = SETTLE_SECONDS) -> dict[str, int]:
        """Wait until every task is reported, and return the account."""
        wait_until(self.is_settled, "every task is reported", seconds)
        return self.account()

    def await_account(self, name: str, condition: Callable[[int], bool], seconds: float = SETTLE_SECONDS) -> None:
        wait_until(lambda: condition(self.account()[name]), f"the account's {name}", seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
