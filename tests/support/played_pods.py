"""Plays the StatefulSet controller, the kubelet and the EndpointSlice controller of one namespace.

A pod is an HTTP server in this process. An image with "bad" in its name cannot be pulled, one with "slow" takes a
second for each task.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from queueworker.resource.names import LABEL_QUEUEWORKER

if TYPE_CHECKING:
    from devcluster.server import ControlPlane

    Body = dict[str, Any]

# 127.0.0.1 in a spelling that the API server, which refuses loopback addresses in slices, does not know
LOOPBACK = "0x7f.1"
PERIOD_SECONDS = 0.1
SLOW_SECONDS = 1.0


class ExecutorServer(ThreadingHTTPServer):
    """An executor for one pod. `running` are the tasks that it has not answered."""

    daemon_threads = True

    def __init__(self, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay = delay
        self.running = 0
        self.killed = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> int:
        """End at once. Returns how many tasks were running."""
        lost = self.running
        self.killed.set()
        self.shutdown()
        self.server_close()
        return lost


class _Handler(BaseHTTPRequestHandler):
    server: ExecutorServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"status": "healthy", "max_concurrent": 2})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.running += 1
        killed = self.server.killed.wait(self.server.delay)
        self.server.running -= 1
        if killed:
            self.close_connection = True
            return
        self._answer({"eval_id": body["eval_id"], "status": "completed", "output": "ok", "error": "", "exit_code": 0})

    def _answer(self, body: Body) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@dataclass
class Played:
    """Use with `with`."""

    plane: ControlPlane
    namespace: str
    servers: dict[str, ExecutorServer] = field(default_factory=dict)
    """By the uid of the pod."""
    lost: int = 0
    """Tasks that were running when their pod was killed."""
    history: list[str] = field(default_factory=list)
    """`created`, `ready`, `terminating` and `gone` with the pod's name, in their order."""
    cpu_quota: int = 1_000_000
    """Millicores that all pods together may request: others are not created."""

    def __post_init__(self) -> None:
        user = yaml.safe_load(Path(self.plane.admin_kubeconfig).read_text())["users"][0]["user"]
        self._api = httpx.Client(
            base_url=self.plane.url,
            headers={"Authorization": f"Bearer {user['token']}"},
            verify=ssl.create_default_context(cafile=str(self.plane.ca_file)),
            timeout=20,
            trust_env=False,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._dies_at: dict[str, float] = {}
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for server in self.servers.values():
            server.kill()
        self._api.close()

    # --- what tests ask and do

    def items(self, path: str) -> list[Body]:
        """Such as `pods` or `apis/apps/v1/statefulsets`."""
        group, _, plural = path.rpartition("/")
        found = self._api.get(f"/{group or 'api/v1'}/namespaces/{self.namespace}/{plural}")
        return list(found.raise_for_status().json()["items"])

    def pods(self) -> dict[str, Body]:
        return {pod["metadata"]["name"]: pod for pod in self.items("pods")}

    def evict(self, pod: str) -> int:
        """The status of the eviction's answer."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        return self._api.post(f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction", json=body).status_code

    # --- the controllers

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            try:
                sets, pods = self.items("apis/apps/v1/statefulsets"), self.items("pods")
                for item in sets:
                    self._scale(item, pods)
                for pod in pods:
                    self._keep(pod)
                self._write_slices(pods)
                self._collect(sets, pods)
            except httpx.HTTPError as error:
                self.errors.append(repr(error))

    def _scale(self, item: Body, pods: list[Body]) -> None:
        spec, name = item["spec"], item["metadata"]["name"]
        start = spec.get("ordinals", {}).get("start", 0)
        wanted = [f"{name}-{start + n}" for n in range(spec["replicas"])]
        own = {p["metadata"]["name"]: p for p in pods if p["metadata"]["name"].rpartition("-")[0] == name}
        for pod in wanted:
            if pod not in own and self._fits(item, pods):
                self._create(item, pod)
                pods = list(self.pods().values())
        for pod, body in own.items():
            if pod not in wanted and not body["metadata"].get("deletionTimestamp"):
                self._call("DELETE", f"pods/{pod}")
        ready = sum(_is_ready(pod) for pod in own.values())
        status = {"replicas": len(own), "readyReplicas": ready, "observedGeneration": item["metadata"]["generation"]}
        self._patch(f"statefulsets/{name}/status", {"status": status}, "apis/apps/v1")

    def _fits(self, item: Body, pods: list[Body]) -> bool:
        return sum(map(_millicores, [*pods, item["spec"]["template"]])) <= self.cpu_quota

    def _create(self, item: Body, name: str) -> None:
        template = item["spec"]["template"]
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": item["metadata"]["name"]}
        owner |= {"uid": item["metadata"]["uid"], "controller": True}
        metadata = template["metadata"] | {"name": name, "ownerReferences": [owner]}
        self._call("POST", "pods", {"metadata": metadata, "spec": template["spec"] | {"nodeName": "node-1"}})
        self.history.append(f"created {name}")

    def _keep(self, pod: Body) -> None:
        metadata = pod["metadata"]
        uid, name = metadata["uid"], metadata["name"]
        if metadata.get("deletionTimestamp"):
            self._end(pod)
            return
        if uid in self.servers or _is_waiting(pod):
            return
        container = pod["spec"]["containers"][0]
        if "bad" in container["image"]:
            waiting = {"reason": "ImagePullBackOff", "message": f"Back-off pulling image {container['image']}"}
            state = {"name": container["name"], "state": {"waiting": waiting}, "ready": False, "restartCount": 0}
            state |= {"image": container["image"], "imageID": ""}
            self._patch(f"pods/{name}/status", {"status": _status("False") | {"containerStatuses": [state]}})
            return
        self.servers[uid] = ExecutorServer(SLOW_SECONDS if "slow" in container["image"] else 0.0)
        self._patch(f"pods/{name}/status", {"status": _status("True") | {"podIP": "10.0.0.9"}})
        self.history.append(f"ready {name}")

    def _end(self, pod: Body) -> None:
        """The preStop hook sleeps, but not longer than the grace; then the container is killed."""
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        uid, name = metadata["uid"], metadata["name"]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if uid not in self._dies_at:
            self.history.append(f"terminating {name}")
            self._dies_at[uid] = time.monotonic() + min(hook, metadata["deletionGracePeriodSeconds"])
        if time.monotonic() >= self._dies_at[uid]:
            server = self.servers.pop(uid, None)
            self.lost += server.kill() if server is not None else 0
            self._call("DELETE", f"pods/{name}", {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
            self.history.append(f"gone {name}")

    def _write_slices(self, pods: list[Body]) -> None:
        """One for each pod, because each has a port of its own."""
        services = {s["metadata"]["name"]: s["spec"].get("selector") for s in self.items("services")}
        wanted: dict[str, Body] = {}
        for pod in pods:
            labels, server = pod["metadata"].get("labels", {}), self.servers.get(pod["metadata"]["uid"])
            for service, selector in services.items():
                if selector and server is not None and selector.items() <= labels.items():
                    wanted[f"{service}-{pod['metadata']['name']}"] = _slice(service, pod, server.server_address[1])
        found = {s["metadata"]["name"]: s for s in self.items("apis/discovery.k8s.io/v1/endpointslices")}
        for name, body in wanted.items():
            old = found.get(name, {})
            if {k: old.get(k) for k in ("ports", "endpoints")} != {k: body[k] for k in ("ports", "endpoints")}:
                verb, path = ("PUT", f"endpointslices/{name}") if old else ("POST", "endpointslices")
                body["metadata"]["name"] = name
                self._call(verb, path, body, "apis/discovery.k8s.io/v1")
        for name in found.keys() - wanted.keys():
            self._call("DELETE", f"endpointslices/{name}", None, "apis/discovery.k8s.io/v1")

    def _collect(self, sets: list[Body], pods: list[Body]) -> None:
        """Pods whose StatefulSet is gone."""
        uids = {item["metadata"]["uid"] for item in sets}
        for pod in pods:
            owners = pod["metadata"].get("ownerReferences", [])
            if owners and owners[0]["uid"] not in uids and not pod["metadata"].get("deletionTimestamp"):
                self._call("DELETE", f"pods/{pod['metadata']['name']}")

    def _call(self, method: str, path: str, body: Body | None = None, api: str = "api/v1") -> None:
        answer = self._api.request(method, f"/{api}/namespaces/{self.namespace}/{path}", json=body)
        if answer.status_code not in {200, 201, 202, 404, 409}:
            self.errors.append(f"{method} {path}: {answer.text}")

    def _patch(self, path: str, body: Body, api: str = "api/v1") -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        self._api.patch(f"/{api}/namespaces/{self.namespace}/{path}", content=json.dumps(body), headers=headers)


def _millicores(pod: Body) -> int:
    requests = pod["spec"]["containers"][0].get("resources", {}).get("requests", {})
    return int(requests.get("cpu", "0m").removesuffix("m"))


def _status(ready: str) -> Body:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}


def _is_ready(pod: Body) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _is_waiting(pod: Body) -> bool:
    return bool(pod.get("status", {}).get("containerStatuses"))


def _slice(service: str, pod: Body, port: int) -> Body:
    metadata = pod["metadata"]
    terminating = bool(metadata.get("deletionTimestamp"))
    conditions = {"ready": _is_ready(pod) and not terminating, "serving": _is_ready(pod), "terminating": terminating}
    target = {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": service, LABEL_QUEUEWORKER: metadata["name"]}},
        "addressType": "FQDN",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [LOOPBACK], "conditions": conditions, "targetRef": target}],
    }
