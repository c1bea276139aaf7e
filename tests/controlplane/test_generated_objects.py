"""Whatever the API server accepts either runs or says in Ready why not, and disturbs nobody.

200 objects are generated from the CRD's schema, always the same. `make test-objects` tries thousands of new ones.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.accounts import check_account
from tests.support.demo_processes import demo_process
from tests.support.generated_objects import examples, specs
from tests.support.operating import account, condition, done, eventually, is_ready, spec, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.redis_server import RedisServer
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess
    from tests.support.generated_objects import Spec
    from tests.support.operating import Operator

COUNT = int(os.environ.get("GENERATED_OBJECTS", "0"))
ALWAYS = 200
WAVE = 25
"""Objects that are there at the same time."""
READY_SECONDS = 90
DELETION_SECONDS = 90


class Flow:
    """Submits tasks to the healthy object's queue, one after the other, until `stop`."""

    def __init__(self, queue: DemoProcess) -> None:
        self.submitted = 0
        self._queue = queue
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with self._queue.client() as client:
            for number in itertools.count():
                client.post("/tasks", json={"eval_id": f"t-{number}", "code": "1"}).raise_for_status()
                self.submitted = number + 1
                if self._stopping.wait(0.1):
                    return


@contextmanager
def flowing(queue: DemoProcess) -> Iterator[Flow]:
    flow = Flow(queue)
    flow.start()
    try:
        yield flow
    finally:
        flow.stop()


@contextmanager
def silent_server() -> Iterator[str]:
    """Connections are accepted by the kernel, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def make_secrets(kubectl: Kubectl, namespace: str, redis: RedisServer) -> list[tuple[str, str]]:
    """Good and bad ones; what is in a Secret is not for the schema to judge."""
    data = {"key": "a key", "url": redis.url, "password": "redis://:pw@127.0.0.1:1/0", "nonsense": "redis:6379\n\n"}
    literals = [f"--from-literal={name}={value}" for name, value in data.items()]
    kubectl("create", "secret", "generic", "known", "-n", namespace, *literals)
    return [("known", name) for name in data]


def apply(kubectl: Kubectl, namespace: str, wave: list[Spec]) -> None:
    """Create or change the objects; the server may refuse any of them."""
    documents = "\n---\n".join(worker(f"generated-{number}", **spec) for number, spec in enumerate(wave))
    kubectl("apply", "-n", namespace, "-f", "-", input=documents, check=False)


def generated(kubectl: Kubectl, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(kubectl("get", "qw", "-n", namespace, "-o", "json").stdout)["items"]
    return [item for item in items if item["metadata"]["name"].startswith("generated-")]


def silent(item: dict[str, Any]) -> bool:
    """Whether Ready says neither that the object, as it is now, runs, nor why not."""
    conditions = item.get("status", {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None or ready.get("observedGeneration") != item["metadata"]["generation"]:
        return True
    explained = ready["reason"] not in {"Starting", "Unknown"} and ready["message"]
    return ready["status"] != "True" and not (ready["status"] == "False" and explained)


def shown(items: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps({"spec": i["spec"], "status": i.get("status")}) for i in items)


def wait_for_ready(kubectl: Kubectl, namespace: str) -> int:
    """Return the number of objects once each of them says in Ready how it is."""
    found: list[dict[str, Any]] = []

    def settled() -> bool:
        found[:] = generated(kubectl, namespace)
        return not any(map(silent, found))

    try:
        eventually(settled, READY_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"no word in Ready:\n{shown([i for i in found if silent(i)])}") from error
    return len(found)


def test_whatever_the_api_server_accepts_runs_or_says_why_not_and_disturbs_nobody(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("healthy", **spec(queue, shared_redis, executor)))
    eventually(lambda: condition(kubectl, namespace, "healthy", "Ready")[1] == "Routing")
    with flowing(queue) as flow, demo_process("queue", "--port", "0") as idle, silent_server() as nobody:
        strategy = specs(
            queues=[idle.url, nobody, "http://127.0.0.1:9"],
            executors=[executor.url, "http://127.0.0.1:9"],
            redis=[shared_redis.url, "redis://127.0.0.1:9"],
            secrets=make_secrets(kubectl, namespace, shared_redis),
        )
        found = examples(strategy, COUNT or ALWAYS, always_the_same=not COUNT)
        taken = 0
        for number, start in enumerate(range(0, len(found), WAVE)):
            before = account(queue)["completed"]
            apply(kubectl, namespace, found[start : start + WAVE])
            taken += wait_for_ready(kubectl, namespace)
            eventually(lambda: account(queue)["completed"] > before, 30)  # noqa: B023 -- called in this turn only
            if number % 2:  # Those of an even wave are edited by the next one, and go with it.
                delete_all(kubectl, namespace)
        print(f"{len(found)} specs, {taken} objects that were taken")
        assert taken > len(found) / 3
    delete_all(kubectl, namespace)
    eventually(lambda: done(queue, flow.submitted), 60)
    counts = account(queue)
    check_account(counts, completed=flow.submitted, failed=0, reported_twice=0)
    check_operator(running)


def delete_all(kubectl: Kubectl, namespace: str) -> None:
    """Return when the generated objects are gone: each has its finalizer removed."""
    names = [item["metadata"]["name"] for item in generated(kubectl, namespace)]
    if names:
        kubectl("delete", "qw", "-n", namespace, "--wait=false", *names)
    eventually(lambda: not generated(kubectl, namespace), DELETION_SECONDS)


def check_operator(running: Operator) -> None:
    assert is_ready(running)
    assert httpx.get(f"{running.url}/livez", timeout=10, trust_env=False).status_code == 200
    assert "Traceback" not in running.log.read_text(errors="replace")
