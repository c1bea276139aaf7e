"""Queue, executors, Redis and the operator's own HTTP API by IPv6."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from devcluster.redis_server import RedisServer
from tests.support.demo_processes import DemoProcess, demo_process
from tests.support.operating import account, done, eventually, install, is_ready, operator, status, submit, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.operating import Operator

TASKS = 10


def own_address() -> str:
    """An IPv6 address of this machine that the API server takes for an endpoint's: not of the loopback, nor local to a
    link. Empty if there is none. Nothing is sent.
    """
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("2001:db8::1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return "" if address == "::1" or address.startswith("fe80") else address


pytestmark = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    """An operator that listens on `::`, as the chart's does."""
    install(kubectl)
    with operator(control_plane, folder, "--host", "::") as started:
        eventually(lambda: is_ready(started))
        yield started


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """A URL with an IPv6 address."""
    with RedisServer(0, "--bind", "127.0.0.1", "::1") as server:
        yield f"redis://[::1]:{server.port}"


@pytest.fixture
def queue() -> Iterator[DemoProcess]:
    with demo_process("queue", "--host", "::1", "--port", "0") as process:
        yield process


def executor(host: str) -> Any:
    return demo_process("executor", "--host", host, "--port", "0", "--fast", "--max-concurrent", "64")


def route(kubectl: Kubectl, namespace: str, queue: DemoProcess, redis: str, executors: dict[str, Any]) -> None:
    """Make a QueueWorker, and wait until tasks are reported and every condition of it is True."""
    spec = {"queue": {"url": queue.url}, "events": {"redisURL": redis}, "executors": executors | {"concurrency": 8}}
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec))
    submit(queue, TASKS)
    eventually(lambda: done(queue, TASKS))
    assert account(queue)["completed"] == TASKS
    eventually(lambda: {item["status"] for item in status(kubectl, namespace, "legacy")["conditions"]} == {"True"})


@pytest.mark.usefixtures("running")
def test_tasks_are_routed_between_ipv6_addresses(
    kubectl: Kubectl, namespace: str, queue: DemoProcess, redis: str
) -> None:
    with executor("::1") as one:
        assert one.url.startswith("http://[::1]:")
        route(kubectl, namespace, queue, redis, {"endpoints": [one.url]})


@pytest.mark.usefixtures("running")
def test_executors_are_found_by_the_ipv6_slices_of_their_service(
    kubectl: Kubectl, namespace: str, queue: DemoProcess, redis: str
) -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no IPv6 address but those of loopback and links")
    with executor("::") as one:
        item = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "one", "labels": {"kubernetes.io/service-name": "executor"}},
            "addressType": "IPv6",
            "ports": [{"name": "http", "port": int(one.url.rpartition(":")[2])}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        }
        kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump(item))
        route(kubectl, namespace, queue, redis, {"service": {"name": "executor"}})
        assert status(kubectl, namespace, "legacy")["executors"]["desired"] == 1


def test_the_http_api_answers_on_both_families(running: Operator) -> None:
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{running.port}/readyz", trust_env=False).status_code == 200
