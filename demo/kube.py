"""The cluster of the demo: a local control plane or the user's own, with our CRD, role and namespace in it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from demo.processes import DemoError
from devcluster import binaries
from devcluster.server import ESTABLISHED, OPERATOR_ACCOUNT

ROOT = Path(__file__).parents[1]
NAMESPACE = "queueworker-demo"
NAME = "legacy"
INSTALL_SECONDS = 20.0
COMMAND_SECONDS = 240.0


class Kubectl:
    """kubectl, and helm, with that kubeconfig."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig

    def __call__(self, *args: str, text: str | None = None) -> str:
        """Run kubectl and return its output. Raises DemoError with its standard error."""
        return _run(self.command(*args), text)

    def command(self, *args: str) -> list[str]:
        """The command line."""
        return [binaries.kubectl(), "--kubeconfig", self.kubeconfig, *args]

    def helm(self, *args: str) -> str:
        """Run helm, which is built the first time, and return its output. Raises BinaryError, DemoError."""
        return _run([binaries.helm(), "--kubeconfig", self.kubeconfig, *args])


def _run(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
        start_new_session=True,
    )
    if done.returncode != 0:
        raise DemoError(f"{Path(command[0]).name} {' '.join(command[3:])}: {done.stderr.strip()}")
    return done.stdout


def as_list(objects: list[dict[str, Any]]) -> str:
    """A manifest of them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def manifest(queue_url: str, redis_url: str, executor_url: str, executors: int) -> str:
    """The sample object, with the addresses of this machine."""
    sample: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "samples" / "minimal.yaml").read_text())
    sample["metadata"] = {"name": NAME, "namespace": NAMESPACE}
    sample["spec"] = {
        "queue": {"url": queue_url},
        "executors": {"count": executors, "baseURL": executor_url, "concurrency": 2},
        "events": {"redisURL": redis_url},
    }
    return yaml.safe_dump(sample)


def install(kubectl: Kubectl) -> None:
    """Apply namespaces, CRD and role, and return when QueueWorkers can be created."""
    for namespace in (OPERATOR_ACCOUNT[0], NAMESPACE):
        made = kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "yaml")
        kubectl("apply", "-f", "-", text=made)
    kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "crd" / "queueworkers.crucible.dev.yaml"))
    kubectl("wait", ESTABLISHED, "crd/queueworkers.crucible.dev", "--timeout=60s")
    kubectl("apply", "-f", str(ROOT / "manifests" / "rbac" / "role.yaml"))
    deadline = time.monotonic() + INSTALL_SECONDS
    while True:  # for about a second after a CRD is created, requests for its resources are answered with 429
        try:
            kubectl("get", "qw", "-A")
        except DemoError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def delete_worker(kubectl: Kubectl) -> None:
    kubectl("delete", "queueworker", NAME, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")


def delete_namespace(kubectl: Kubectl) -> None:
    kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


def kubeconfig_of(context: str, folder: Path) -> str:
    """A kubeconfig with that context only, so that the demo cannot touch another cluster."""
    command = [binaries.kubectl(), "config", "view", "--minify", "--flatten", "--context", context]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"DEMO_CONTEXT={context}: {done.stderr.strip()}; see `kubectl config get-contexts`")
    config = yaml.safe_load(done.stdout) | {"current-context": context}
    return _written(folder / "kubeconfig", config)


def operator_kubeconfig(kubectl: Kubectl, folder: Path) -> str:
    """A kubeconfig with a token of the operator's service account: the operator gets its own rights and no others."""
    namespace, name = OPERATOR_ACCOUNT
    token = kubectl("create", "token", name, "-n", namespace, "--duration=24h").strip()
    config = yaml.safe_load(Path(kubectl.kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    return _written(folder / "operator-kubeconfig", config)


def _written(path: Path, config: dict[str, Any]) -> str:
    path.touch(0o600)
    path.write_text(yaml.safe_dump(config))
    return str(path)
