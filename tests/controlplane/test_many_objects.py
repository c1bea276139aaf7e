"""Many QueueWorkers that are applied at once, and deleted at once, with one operator and one queue.

`MANY_OBJECTS=300` tries more than CI does; the account that is printed says how many calls the API server got.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.accounts import check_account
from tests.support.operating import (
    account,
    calls_of_operators,
    done,
    eventually,
    install,
    is_ready,
    leading,
    spec,
    submit,
    worker,
)

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer
    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess
    from tests.support.operating import Operator

COUNT = int(os.environ.get("MANY_OBJECTS", "60"))
PATIENCE_SECONDS = 60 + COUNT
CALLS_FOR_EACH = 12
"""In the life of an object: its finalizer, some changes of its status, and their Events."""
CALLS_A_SECOND = 4
"""Of the operator, beside those: the Lease, probes, lists and watches."""


def objects(kubectl: Kubectl, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(kubectl("get", "qw", "-n", namespace, "-o", "json").stdout)["items"]
    return items


def is_routing(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["reason"] == "Routing" for c in conditions)


def calls(plane: ControlPlane, since: datetime) -> Counter[str]:
    """What the operator has asked of the API server, by verb and resource."""
    return Counter(
        f"{event['verb']} {event['objectRef']['resource']}"
        for event in calls_of_operators(plane, since)
        if event["stage"] == "ResponseComplete" and "objectRef" in event
    )


def test_many_objects_at_once_are_all_routed_for_and_all_go_again(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    folder: Path,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    install(kubectl)
    with leading(control_plane, folder, namespace) as started:
        began, since = datetime.now(UTC), time.monotonic()
        body = spec(queue, shared_redis, executor)
        documents = "\n---\n".join(worker(f"many-{number}", **body) for number in range(COUNT))
        kubectl("create", "-n", namespace, "-f", "-", input=documents)
        eventually(lambda: sum(map(is_routing, objects(kubectl, namespace))) == COUNT, PATIENCE_SECONDS)
        ready_seconds = time.monotonic() - since
        files = len(list(Path(f"/proc/{started.process.pid}/fd").iterdir()))
        submit(queue, 2 * COUNT)
        eventually(lambda: done(queue, 2 * COUNT), PATIENCE_SECONDS)
        delete_seconds = delete_all(kubectl, namespace)
        asked, seconds = calls(control_plane, began), time.monotonic() - since
        print(f"{COUNT} objects: Ready after {ready_seconds:.1f} s, gone after {delete_seconds:.1f} s; {files} files")
        print(f"calls in {seconds:.0f} s: {asked}")
        assert asked.total() < CALLS_FOR_EACH * COUNT + CALLS_A_SECOND * seconds
        check(started, queue)


def delete_all(kubectl: Kubectl, namespace: str) -> float:
    """Returns the seconds until the last one is gone."""
    since = time.monotonic()
    kubectl("delete", "qw", "--all", "-n", namespace, "--wait=false")
    eventually(lambda: not objects(kubectl, namespace), PATIENCE_SECONDS)
    return time.monotonic() - since


def check(started: Operator, queue: DemoProcess) -> None:
    check_account(account(queue), completed=2 * COUNT, failed=0, reported_twice=0)
    log = started.log.read_text(errors="replace")
    assert is_ready(started)
    assert "Traceback" not in log
    assert "was lost" not in log, "the Lease is renewed all the while"
