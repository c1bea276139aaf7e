"""`make demo`: the whole platform on one machine, with a QueueWorker that routes real tasks through it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.services.storage_worker import summarize
from devcluster import binaries
from devcluster.children import Child
from devcluster.redis_server import RedisServer
from devcluster.server import OPERATOR_ACCOUNT, ControlPlane, ControlPlaneError, free_ports

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).parents[1]
NAMESPACE = "queueworker-demo"
NAME = "legacy"
SETTLE_SECONDS = 90.0
PLAIN_PERIOD_SECONDS = 5.0


class DemoError(Exception):
    """The demo cannot continue. The message says why and what to do."""


class Kubectl:
    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        self._binary = binaries.kubectl()

    def __call__(self, *args: str, text: str | None = None) -> str:
        """Run kubectl and return its output. Raises DemoError with its standard error."""
        command = [self._binary, "--kubeconfig", self.kubeconfig, *args]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=90, start_new_session=True
        )
        if done.returncode != 0:
            raise DemoError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout


@dataclass
class Platform:
    """The running platform, with access to the object, the queue and the stored outcomes."""

    kubectl: Kubectl
    queue_url: str
    database: Path
    load: Child

    def account(self) -> dict[str, int]:
        """The queue's counts of submitted, handed out and reported tasks."""
        counts: dict[str, int] = httpx.get(f"{self.queue_url}/account", timeout=10, trust_env=False).json()
        return counts

    def worker(self) -> dict[str, Any]:
        text = self.kubectl("get", "queueworker", NAME, "-n", NAMESPACE, "-o", "json", "--request-timeout=5s")
        found: dict[str, Any] = json.loads(text)
        return found


def manifest(queue_url: str, redis_url: str, gateway_url: str, executors: int) -> str:
    """The sample object, with the addresses of this machine."""
    sample: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "samples" / "minimal.yaml").read_text())
    sample["metadata"] = {"name": NAME, "namespace": NAMESPACE}
    sample["spec"] = {
        "queue": {"url": queue_url},
        "executors": {"count": executors, "baseURL": f"{gateway_url}/executors/{{n}}", "concurrency": 2},
        "events": {"redisURL": redis_url},
    }
    return yaml.safe_dump(sample)


def start(stack: ExitStack, context: str, executors: int, rate: float, console: Console) -> Platform:
    """Start everything; `stack` ends it in reverse order."""
    logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="queueworker-demo-")))
    console.print("preparing the control plane's binaries (they are built the first time, which takes about 5 minutes)")
    if not context:
        binaries.assets()
        console.print("starting etcd and kube-apiserver")
        plane = stack.enter_context(ControlPlane())
        kubectl = Kubectl(plane.admin_kubeconfig)
        operator_config = plane.kubeconfig_for(*OPERATOR_ACCOUNT)
    else:
        kubectl = Kubectl(_kubeconfig_of(context, logs))
        operator_config = ""
    console.print("starting Redis, queue, executors, storage worker")
    redis = stack.enter_context(RedisServer())
    database = logs / "evaluations.db"
    storage = ("demo.services.storage_worker", "--redis-url", redis.url, "--database", str(database))
    stack.enter_context(Child(*storage, log=logs / "storage.log")).first_line()
    queue = stack.enter_context(Child("demo.services.queue", "--port", "0", log=logs / "queue.log"))
    queue_url = queue.first_line().split()[-1]
    gateway = stack.enter_context(Child("demo.services.gateway", log=logs / "gateway.log"))
    gateway_url = gateway.first_line().split()[-1]

    console.print("installing the CRD and the operator's role, and starting the operator")
    _install(kubectl)
    stack.callback(_remove, kubectl)
    port = _port()
    operator = Child(
        *("queueworker.cli.main", "operator", "--host", "127.0.0.1", "--port", str(port)),
        log=logs / "operator.log",
        env={"KUBECONFIG": operator_config or _operator_kubeconfig(kubectl, logs)},
    )
    stack.enter_context(operator)
    stack.callback(_show_errors, logs / "operator.log", console)
    kubectl("apply", "-f", "-", text=manifest(queue_url, redis.url, gateway_url, executors))
    stack.callback(_delete_worker, kubectl)
    load = stack.enter_context(
        Child("demo.services.load", "--queue-url", queue_url, "--rate", str(rate), log=logs / "load.log")
    )
    platform = Platform(kubectl, queue_url, database, load)
    console.print(f"""
In another terminal:
  export KUBECONFIG={kubectl.kubeconfig}
  kubectl get qw -n {NAMESPACE} -w
  kubectl describe qw {NAME} -n {NAMESPACE}
  kubectl scale qw/{NAME} -n {NAMESPACE} --replicas=5
  kubectl edit qw {NAME} -n {NAMESPACE}
  curl http://127.0.0.1:{port}/status
""")
    return platform


def watch(platform: Platform, seconds: float, console: Console) -> None:
    """Show what happens until the time is over or the user interrupts. `seconds` 0 means forever."""
    ends = time.monotonic() + seconds if seconds else float("inf")
    if console.is_terminal:
        with Live(_table(platform), console=console, auto_refresh=False) as live:
            while time.monotonic() < ends:
                time.sleep(min(1.0, max(0.0, ends - time.monotonic())))
                live.update(_table(platform), refresh=True)
        return
    while time.monotonic() < ends:
        time.sleep(min(PLAIN_PERIOD_SECONDS, max(0.0, ends - time.monotonic())))
        account, status = platform.account(), platform.worker().get("status", {})
        executors = status.get("executors", {}).get("summary", "-")
        console.print(
            f"{_ready(status)}, executors {executors}: submitted {account['submitted']}, "
            f"completed {account['completed']}, failed {account['failed']}"
        )


def settle(platform: Platform, console: Console) -> bool:
    """Stop the load, wait until no task is left, and print the totals. Returns whether no task was lost."""
    console.print("stopping the load and waiting for the tasks in flight")
    submitted = int(platform.load.stop().rpartition("=")[2] or -1)
    deadline = time.monotonic() + SETTLE_SECONDS
    routed, stored = -1, summarize(platform.database)
    while time.monotonic() < deadline:
        stored = summarize(platform.database)
        routed = platform.worker().get("status", {}).get("tasks", {}).get("routed", 0)
        if stored.completed + stored.failed == submitted == routed:
            break
        time.sleep(0.5)
    lost = submitted - stored.completed - stored.failed
    print(
        f"submitted={submitted} routed={routed} completed={stored.completed} failed={stored.failed} lost={lost}",
        flush=True,
    )
    return lost == 0


def _table(platform: Platform) -> Table:
    account, worker = platform.account(), platform.worker()
    status = worker.get("status", {})
    table = Table(title=f"QueueWorker {NAMESPACE}/{NAME}: {_ready(status)}", expand=False)
    for name in ("executor", "healthy", "in flight", "capacity"):
        table.add_column(name)
    for e in status.get("executors", {}).get("endpoints", []):
        table.add_row(e["name"], "yes" if e["healthy"] else "no", str(e["inFlight"]), str(e["capacity"]))
    tasks = status.get("tasks", {})
    table.caption = (
        f"queue: {account['submitted']} submitted, {account['completed']} completed, {account['failed']} failed. "
        f"status: {tasks.get('routed', 0)} routed, {tasks.get('perMinute', 0)} a minute"
    )
    return table


def _ready(status: dict[str, Any]) -> str:
    found = [c for c in status.get("conditions", []) if c["type"] == "Ready"]
    return f"{found[0]['reason']}" if found else "no status yet"


def _install(kubectl: Kubectl) -> None:
    for namespace in (OPERATOR_ACCOUNT[0], NAMESPACE):
        made = kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "yaml")
        kubectl("apply", "-f", "-", text=made)
    kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "crd" / "queueworkers.crucible.dev.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/queueworkers.crucible.dev", "--timeout=60s")
    kubectl("apply", "-f", str(ROOT / "manifests" / "rbac" / "role.yaml"))
    deadline = time.monotonic() + 20
    while True:  # for about a second after a CRD is created, requests for its resources are answered with 429
        try:
            kubectl("get", "qw", "-A")
        except DemoError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _delete_worker(kubectl: Kubectl) -> None:
    kubectl("delete", "queueworker", NAME, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")


def _remove(kubectl: Kubectl) -> None:
    kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


def _show_errors(log: Path, console: Console) -> None:
    """Print the errors in the operator's log, because the log is deleted with its folder."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line or "Traceback" in line]
    for line in lines[-10:]:
        console.print(f"operator: {line}", markup=False)


def _kubeconfig_of(context: str, folder: Path) -> str:
    """A kubeconfig with that context only, so that the demo cannot touch another cluster."""
    command = [binaries.kubectl(), "config", "view", "--minify", "--flatten", "--context", context]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"DEMO_CONTEXT={context}: {done.stderr.strip()}; see `kubectl config get-contexts`")
    config = yaml.safe_load(done.stdout) | {"current-context": context}
    path = folder / "kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(config))
    return str(path)


def _operator_kubeconfig(kubectl: Kubectl, folder: Path) -> str:
    """A kubeconfig with a token of the operator's service account: the operator gets its own rights and no others."""
    namespace, name = OPERATOR_ACCOUNT
    token = kubectl("create", "token", name, "-n", namespace, "--duration=24h").strip()
    config = yaml.safe_load(Path(kubectl.kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = folder / "operator-kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(config))
    return str(path)


def _port() -> int:
    """The usual port of the HTTP API, or a free one if it is taken."""
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8084))
        except OSError:
            return free_ports(1)[0]
    return 8084


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(
    *,
    seconds: Annotated[
        float,
        typer.Option(envvar="DEMO_SECONDS", help="Seconds until the demo ends by itself; 0: it runs until Ctrl-C."),
    ] = 0,
    context: Annotated[
        str, typer.Option(envvar="DEMO_CONTEXT", help="Kubeconfig context of the cluster to use; empty: a local one.")
    ] = "",
    executors: Annotated[int, typer.Option(min=1, max=20, help="Number of executors at the start.")] = 3,
    rate: Annotated[float, typer.Option(help="Tasks submitted per second.")] = 20,
) -> None:
    """Run a queue, executors, a storage worker and the operator around a real API server, and show tasks being routed.

    The exit status is 0 only if every submitted task was stored as completed or failed.
    """
    console = Console(stderr=False, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            platform = start(stack, context, executors, rate, console)
            try:
                watch(platform, seconds, console)
            except KeyboardInterrupt:
                console.print()
            nothing_lost = settle(platform, console)
            console.print("stopping everything")
    except KeyboardInterrupt:
        sys.exit(130)
    except (DemoError, binaries.BinaryError, ControlPlaneError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if nothing_lost else 1)


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    typer.run(main)
