"""An operator whose CRD is of an older or of a newer version: what both know works, and the rest is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from queueworker.resource.generate import crd_yaml
from tests.support.operating import (
    account,
    condition,
    done,
    eventually,
    install,
    install_crd,
    is_ready,
    leading,
    spec,
    status,
    submit,
    worker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devcluster.redis_server import RedisServer
    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess

    Schema = dict[str, Any]

OLD_REASONS = ["Starting", "Routing", "Unknown", "Connected", "ConnectionFailed", "AllHealthy", "NoneHealthy"]
HEARTBEAT = 45
"""Seconds, for a status that is tried again every 15 s."""


@contextmanager
def crd(kubectl: Kubectl, change: Callable[[Schema], None], without: str = "") -> Iterator[None]:
    """Ours, with its schema changed, and without that subresource, until the end of the block."""
    body = yaml.safe_load(crd_yaml())
    version = body["spec"]["versions"][0]
    change(version["schema"]["openAPIV3Schema"]["properties"])
    version["subresources"].pop(without, None)
    kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(body))
    try:
        yield
    finally:
        install_crd(kubectl)


def older(schema: Schema) -> None:
    """The reasons are a closed list, as they were once, and a field of status is missing."""
    known = schema["status"]["properties"]
    known["conditions"]["items"]["properties"]["reason"]["enum"] = OLD_REASONS
    del known["migration"]


def newer(schema: Schema) -> None:
    """There are more fields, with and without a default, and one more strategy."""
    known = schema["spec"]["properties"]
    known["priority"] = {"type": "integer", "default": 5}
    known["executors"]["properties"]["sidecar"] = {"type": "object", "properties": {"image": {"type": "string"}}}
    known["routing"]["properties"]["strategy"]["enum"].append("Fancy")
    schema["status"]["properties"]["novel"] = {"type": "string"}


def patch(kubectl: Kubectl, namespace: str, **fields: Any) -> None:
    kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", json.dumps({"spec": fields}))


def ready(kubectl: Kubectl, namespace: str) -> tuple[str, str]:
    """Status and reason."""
    found = condition(kubectl, namespace, "legacy", "Ready")
    return found[0], found[1]


def test_a_status_that_an_older_crd_refuses_is_named_and_written_once_the_crd_is_ours(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    folder: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    install(kubectl)
    with crd(kubectl, older), leading(control_plane, folder, namespace) as started:
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
        eventually(lambda: ready(kubectl, namespace) == ("True", "Routing"))
        patch(kubectl, namespace, suspend=True)
        eventually(lambda: "answered 422" in started.log.read_text(), HEARTBEAT)
        submit(queue, 1)
        time.sleep(2)
        assert account(queue)["handed_out"] == 0, "the spec is followed although its status is refused"
        assert is_ready(started)
        install_crd(kubectl)
        eventually(lambda: ready(kubectl, namespace) == ("True", "Suspended"), HEARTBEAT)
        assert started.log.read_text().count("answered 422") == 1


def test_an_object_is_routed_for_although_its_crd_has_no_status(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    folder: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    """The API server answers a patch of it as if there were no such object."""
    install(kubectl)
    with leading(control_plane, folder, namespace) as started:
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
        eventually(lambda: ready(kubectl, namespace) == ("True", "Routing"))
        with crd(kubectl, lambda _: None, without="status"):
            eventually(lambda: "the API server answered 404" in started.log.read_text(), HEARTBEAT)
            submit(queue, 5)
            eventually(lambda: done(queue, 5))
        patch(kubectl, namespace, suspend=True)
        eventually(lambda: ready(kubectl, namespace) == ("True", "Suspended"), HEARTBEAT)


def test_what_a_command_sets_and_an_older_crd_does_not_know_is_named_and_no_success(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    install(kubectl)
    with crd(kubectl, lambda schema: schema["spec"]["properties"].pop("suspend")):
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy"))
        command = [sys.executable, "-m", "queueworker.cli.plugin.main", "suspend", "legacy", "-n", namespace]
        environ = os.environ | {"KUBECONFIG": control_plane.admin_kubeconfig}
        made = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 1, made.stdout
    assert made.stderr == "error: the cluster's CRD has no spec.suspend: apply the CRD of the operator's version\n"


def test_what_a_newer_crd_adds_is_ignored_or_refused_by_name_and_what_ran_runs_on(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    folder: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    install(kubectl)
    with crd(kubectl, newer), leading(control_plane, folder, namespace) as started:
        body = spec(queue, shared_redis, executor)
        body["executors"]["sidecar"] = {"image": "x"}
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **body))
        eventually(lambda: ready(kubectl, namespace) == ("True", "Routing"))
        ignored = "this version does not know spec.executors.sidecar, spec.priority: ignored"
        eventually(lambda: ignored in started.log.read_text())
        patch(kubectl, namespace, routing={"strategy": "Fancy"}, executors={"concurrency": 3})
        eventually(lambda: ready(kubectl, namespace) == ("False", "InvalidSpec"))
        message = condition(kubectl, namespace, "legacy", "Ready")[2]
        assert message.startswith("spec.routing.strategy: Input should be 'Random', 'RoundRobin'")
        assert status(kubectl, namespace, "legacy")["executors"]["endpoints"][0]["capacity"] == 8
        submit(queue, 5)
        eventually(lambda: done(queue, 5))
        patch(kubectl, namespace, routing={"strategy": "Random"})
        eventually(lambda: ready(kubectl, namespace) == ("True", "Routing"))
        eventually(lambda: status(kubectl, namespace, "legacy")["executors"]["endpoints"][0]["capacity"] == 3)
        assert "Traceback" not in started.log.read_text()
