"""An operator that the API server reaches by a Service, as `kubectl queueworker` asks it."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from devcluster.server import OPERATOR_ACCOUNT
from tests.support.operating import eventually, install, is_ready, operator
from tests.support.played_kubelet import NODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.operating import Operator

SYSTEM, SERVICE = OPERATOR_ACCOUNT


@contextmanager
def reachable_operator(plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    """Its Service, and a pod that stands for it, are there until the end of the block. Skips where it cannot be."""
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address but the loopback, to which an API server does not proxy")
    install(kubectl)
    with operator(plane, folder, "--host", "0.0.0.0") as started:
        eventually(lambda: is_ready(started), timeout=90)
        kubectl("apply", "--server-side", "-f", "-", input=service(address, started.port))
        running = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        kubectl("patch", "pod", SERVICE, "-n", SYSTEM, "--subresource=status", "-p", json.dumps(running))
        yield started
        kinds, now = "service,endpoints,endpointslice,pod", ("--force", "--grace-period=0", "--ignore-not-found")
        kubectl("delete", kinds, SERVICE, "-n", SYSTEM, *now)


def own_address() -> str:
    """An address of this machine that the API server may proxy to; it refuses the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def service(address: str, port: int) -> str:
    """The operator's Service and pod; the controllers that would make its endpoints are not here."""
    ports = [{"name": "http", "port": port}]
    made = {"namespace": SYSTEM, "name": SERVICE}
    pod = {"kind": "Pod", "namespace": SYSTEM, "name": SERVICE}
    subset = {"addresses": [{"ip": address, "targetRef": pod}], "ports": ports}
    containers = [{"name": "operator", "image": "queueworker-operator"}]
    documents = [
        {"apiVersion": "v1", "kind": "Service", "metadata": made, "spec": {"ports": ports}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": made | {"labels": {"app.kubernetes.io/name": SERVICE}},
            "spec": {"nodeName": NODE, "containers": containers},
        },
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": made, "subsets": [subset]},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": made | {"labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}, "targetRef": pod}],
            "ports": ports,
        },
    ]
    return yaml.safe_dump_all(documents)
