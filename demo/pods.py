"""The show on a cluster: reads the facts through `kubectl proxy`, and carries out the commands by kubectl."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from demo.account import Account
from demo.answers import get_json
from demo.kube import NAME, NAMESPACE
from demo.objects import DATABASE, RECORD
from demo.services.queue import Account as Counts
from demo.show.acts import POD_ACTS, Kind
from demo.show.facts import Facts, Pod, Router, Stored, pod_from, router_from

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from demo.kube import Kubectl
    from demo.processes import Service
    from demo.show.acts import Command

OPERATOR = "queueworker-operator"
SYSTEM = "queueworker-system"
PORT = 8084
PREFIX = "ours"
QUEUE_PATH = f"/api/v1/namespaces/{NAMESPACE}/services/queue:http/proxy"
ANSWER_SECONDS = 2.0
PYTHON = "/opt/queueworker/bin/python"
FOLLOW = f"from demo.account import follow; follow({DATABASE!r}, {PREFIX!r})"
"""Runs in the storage worker's pod."""
_IDS = f"from demo.account import stored_ids; print(*stored_ids({DATABASE!r}, {PREFIX!r}))"
_CLOCK = "import time; print(time.monotonic())"
_EXECUTOR = f"{NAME}-executor"


class PodPlatform:
    """The platform as pods. See `demo.stage.Platform`.

    `api` reaches the API server without credentials, `counts` is a file with the output of `FOLLOW`.
    """

    acts = POD_ACTS

    def __init__(self, kubectl: Kubectl, api: httpx.Client, load: Service, counts: Path) -> None:
        self._kubectl = kubectl
        self._load = load
        self._counts = counts
        self._api = api
        self._queue = Counts()
        self._leader = ""
        self.hint = f"in another terminal: export KUBECONFIG={kubectl.kubeconfig}"

    def observe(self) -> Facts:
        queue = get_json(self._api, f"{QUEUE_PATH}/account")
        if queue is not None:
            self._queue = Counts(**queue)
        pods = self._operator_pods()
        return Facts(
            at=time.monotonic(),
            router=self._router(pods),
            queue_answers=queue is not None,
            submitted=self._queue.submitted,
            handed_out=self._queue.handed_out,
            reported=self._queue.completed + self._queue.failed,
            stored=last_counts(self._counts.read_bytes()),
            pods=shown(pods, self._pods(NAMESPACE), self._leader, time.time()),
        )

    def carry_out(self, command: Command) -> None:
        """Kubernetes itself starts again what was killed, so the commands that do so are empty here."""
        if command.kind is Kind.SCALE:
            self._kubectl("scale", f"queueworker/{NAME}", "-n", NAMESPACE, f"--replicas={command.number}")
        elif command.kind is Kind.KILL_EXECUTOR:
            self._kill(f"{_EXECUTOR}-{command.number}", NAMESPACE)
        elif command.kind is Kind.KILL_ROUTER and self._leader:
            self._kill(self._leader, SYSTEM)

    def stop_load(self) -> int:
        return int(self._load.stop().rpartition("=")[2] or -1)

    def take_account(self, kills: Sequence[float], submitted: int, _console: Console) -> Account:
        outcomes = set(self._python("storage", _IDS).split())
        actions = self._kubectl("exec", "-n", NAMESPACE, "deployment/queue", "--", "cat", RECORD).encode().splitlines()
        ahead = float(self._python("queue", _CLOCK)) - time.monotonic()  # a node may have another clock
        counts = Counts(**(get_json(self._api, f"{QUEUE_PATH}/account") or {}))
        routed, stored = counts.completed + counts.failed, last_counts(self._counts.read_bytes())
        return Account.of(submitted, routed, stored, outcomes, actions, [kill + ahead for kill in kills])

    def log_lines(self) -> list[str]:
        """Of the pods that are there now."""
        select = ("-l", f"app.kubernetes.io/name={OPERATOR}", "--tail=-1")
        return self._kubectl("logs", "-n", SYSTEM, *select).splitlines()

    def _kill(self, pod: str, namespace: str) -> None:
        self._kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force", "--ignore-not-found")

    def _python(self, deployment: str, program: str) -> str:
        return self._kubectl("exec", "-n", NAMESPACE, f"deployment/{deployment}", "--", PYTHON, "-c", program)

    def _operator_pods(self) -> list[dict[str, Any]]:
        """Takes note of which one leads."""
        pods = self._pods(SYSTEM)
        lease = get_json(self._api, f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{OPERATOR}") or {}
        holder = lease.get("spec", {}).get("holderIdentity") or ""
        self._leader = next((name for pod in pods if holder.startswith(name := pod["metadata"]["name"])), "")
        return pods

    def _router(self, operators: list[dict[str, Any]]) -> Router | None:
        leader = next((pod for pod in operators if pod["metadata"]["name"] == self._leader), None)
        if leader is None:
            return None
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{self._leader}:{PORT}/proxy/status/{NAMESPACE}/{NAME}"
        status = get_json(self._api, path)
        return None if status is None else router_from(f"http://{leader['status'].get('podIP', '')}:{PORT}", status)

    def _pods(self, namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (get_json(self._api, f"/api/v1/namespaces/{namespace}/pods") or {}).get(
            "items", []
        )
        return found


def last_counts(lines: bytes) -> Stored:
    """The counts in the last whole line that `follow` printed."""
    whole = [line for line in lines[: lines.rfind(b"\n") + 1].splitlines() if line.startswith(b"[")]
    return Stored(*orjson.loads(whole[-1])) if whole else Stored()


def shown(operators: list[dict[str, Any]], platform: list[dict[str, Any]], leader: str, now: float) -> tuple[Pod, ...]:
    """The operator's pods, then executors, then the rest, in the order of their names."""
    ours, others = ([pod_from(pod, leader, now) for pod in pods] for pods in (operators, platform))
    return (*ours, *sorted(others, key=lambda pod: (not pod.name.startswith(_EXECUTOR), pod.name)))
