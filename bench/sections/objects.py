"""Measures many QueueWorkers in one operator, with a real kube-apiserver."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.page import table
from bench.processes import cpu_seconds, memory_mib
from devcluster import binaries
from devcluster.server import OPERATOR_ACCOUNT, ControlPlane
from queueworker.resource.names import API_VERSION, KIND, PLURAL
from tests.support.operating import install, operator

if TYPE_CHECKING:
    from bench.measure import Bench
    from bench.stub import Stub
    from tests.support.operating import Operator

TITLE = "Many objects"
COUNTS = (50, 100, 250, 500)
EXECUTORS = 3
READY_SECONDS = 300.0
SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Figure:
    objects: int
    ready_seconds: float
    memory_mib: float
    cpu_cores: float
    polls_a_second: float


def run(bench: Bench) -> str:
    counts, seconds = (COUNTS, 20.0) if bench.full else ((5,), 2.0)
    with ControlPlane() as plane, bench.stub(EXECUTORS) as stub, tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(plane)
        install(cluster.kubectl)
        figures = [_measure(bench, cluster, stub, Path(folder), count, seconds) for count in counts]
    rows = [
        (
            f"{f.objects:,}",
            f"{f.ready_seconds:.1f}",
            f"{f.memory_mib:.0f}",
            f"{f.cpu_cores:.1%}",
            f"{f.ready_seconds / f.objects * 1e3:.0f}",
            f"{f.cpu_cores / f.objects:.2%}",
            f"{f.polls_a_second / f.objects:.2f}",
        )
        for f in figures
    ]
    first, last = figures[0], figures[-1]
    grown = (last.memory_mib - first.memory_mib) / max(1, last.objects - first.objects) * 1024
    return f"""\
One operator, started after the objects were created, each with an empty queue and {
        EXECUTORS
    } executors: the time from the start of
the process until all are Ready, then its memory and its CPU over {seconds:.0f} s without tasks. One more object takes {
        grown:.0f} KiB.

{
        table(
            (
                "objects",
                "Ready after s",
                "MiB",
                "CPU of a core",
                "ms per object",
                "CPU per object",
                "polls/s per object",
            ),
            rows,
        )
    }"""


class Cluster:
    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._config = plane.admin_kubeconfig
        token = plane.token_for(*OPERATOR_ACCOUNT)
        self._client = httpx.Client(
            base_url=plane.url,
            verify=httpx.create_ssl_context(str(plane.ca_file)),
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=30,
        )

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [binaries.kubectl(), "--kubeconfig", self._config, *args]
        return subprocess.run(command, input=input, check=check, capture_output=True, text=True)

    def create(self, namespace: str, objects: list[dict[str, Any]]) -> None:
        self.kubectl("create", "namespace", namespace)
        several = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(several))

    def ready(self, namespace: str) -> int:
        """The number of objects that are Ready."""
        return sum(map(_is_ready, self._statuses(namespace).values()))

    def unready(self, namespace: str) -> dict[str, Any]:
        """The status of each object that is not Ready."""
        return {name: status for name, status in self._statuses(namespace).items() if not _is_ready(status)}

    def _statuses(self, namespace: str) -> dict[str, dict[str, Any]]:
        answer = self._client.get(f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}").raise_for_status().json()
        return {item["metadata"]["name"]: item.get("status", {}) for item in answer["items"]}


def _is_ready(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def _measure(bench: Bench, cluster: Cluster, stub: Stub, folder: Path, count: int, seconds: float) -> Figure:
    namespace = f"objects-{count}"
    cluster.create(namespace, [_object(bench, stub, number) for number in range(count)])
    started = time.monotonic()
    with operator(cluster.plane, folder, "--namespace", namespace, "--log-level", "warning") as running:
        took = _await_ready(cluster, namespace, running, count, started)
        time.sleep(SETTLE_SECONDS if bench.full else 0)
        polls, cpu, since = stub.account().polls, cpu_seconds(running.process.pid), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - since
        cores = (cpu_seconds(running.process.pid) - cpu) / passed
        rate = (stub.account().polls - polls) / passed
        figure = Figure(count, took, memory_mib(running.process.pid), cores, rate)
    bench.say(f"{count} objects: {figure}")
    return figure


def _await_ready(cluster: Cluster, namespace: str, running: Operator, count: int, started: float) -> float:
    while (ready := cluster.ready(namespace)) < count:
        took = time.monotonic() - started
        if running.process.poll() is not None or took > READY_SECONDS:
            raise RuntimeError(f"{ready} of {count} objects are Ready after {took:.0f} s: {cluster.unready(namespace)}")
        time.sleep(0.2)
    return time.monotonic() - started


def _object(bench: Bench, stub: Stub, number: int) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"worker-{number}"},
        "spec": {
            "queue": {"url": stub.url},
            "executors": {"endpoints": stub.executors},
            "events": {"redisURL": bench.redis.url},
        },
    }
