"""The routers of the demo: two replicas of the operator, or a worker without Kubernetes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from demo.kube import (
    NAME,
    NAMESPACE,
    Kubectl,
    delete_namespace,
    delete_worker,
    install,
    manifest,
    operator_kubeconfig,
)
from demo.processes import Service
from devcluster.ports import free_ports

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from demo.processes import Line

HTTP_PORT = 8084
GROUP = f"{NAMESPACE}/{NAME}"


class Routers(Protocol):
    """Processes of which one routes. `urls` are those of their HTTP APIs, in the order of `services`."""

    urls: list[str]
    services: list[Service]

    def scale(self, executors: int) -> None: ...


def http_ports(count: int) -> list[int]:
    """The usual port of the HTTP API, or a free one if it is taken; and further free ones."""
    ports = free_ports(count)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", HTTP_PORT))
        except OSError:
            return ports
    return [HTTP_PORT, *ports[1:]]


class Worker:
    """`queueworker worker`. Another pool needs a restart, in which the worker first finishes what it has."""

    def __init__(self, stack: ExitStack, folder: Path, line: Line, redis_url: str, executors: int) -> None:
        (port,) = http_ports(1)
        env = {
            "QUEUE_SERVICE_URL": line.queue_url,
            "REDIS_URL": redis_url,
            "EXECUTOR_BASE_URL": line.executor_url(),
            "EXECUTOR_COUNT": str(executors),
            "EXECUTOR_CONCURRENCY": "2",
            "JOURNAL_GROUP": GROUP,
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }
        self.urls = [f"http://127.0.0.1:{port}"]
        self.services = [Service(folder, "worker", "queueworker.cli.main", "worker", env=env)]
        stack.enter_context(self.services[0])

    def scale(self, executors: int) -> None:
        (worker,) = self.services
        worker.stop()
        worker.env = worker.env | {"EXECUTOR_COUNT": str(executors)}
        worker.start()


class Operators:
    """Two replicas of `queueworker operator` with the rights of the manifests; one leads."""

    def __init__(self, stack: ExitStack, folder: Path, kubectl: Kubectl, kubeconfig: str) -> None:
        self._kubectl = kubectl
        install(kubectl)
        stack.callback(delete_namespace, kubectl)
        kubeconfig = kubeconfig or operator_kubeconfig(kubectl, folder)
        self.urls, self.services = [], []
        for number, port in enumerate(http_ports(2), 1):
            command = ("queueworker.cli.main", "operator", "--host", "127.0.0.1", "--port", str(port))
            env = {
                "KUBECONFIG": kubeconfig,
                "POD_IP": "127.0.0.1",
            }  # with it, a standby's page shows what the leader has
            service = Service(folder, f"operator-{number}", *command, env=env)
            self.urls.append(f"http://127.0.0.1:{port}")
            self.services.append(stack.enter_context(service))

    def route(self, stack: ExitStack, line: Line, redis_url: str, executors: int) -> None:
        """Create the QueueWorker."""
        text = manifest(line.queue_url, redis_url, line.executor_url(), executors)
        self._kubectl("apply", "-f", "-", text=text)
        stack.callback(delete_worker, self._kubectl)

    def scale(self, executors: int) -> None:
        self._kubectl("scale", f"queueworker/{NAME}", "-n", NAMESPACE, f"--replicas={executors}")
