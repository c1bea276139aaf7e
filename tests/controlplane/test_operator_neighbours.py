"""Several objects in one operator: on one queue, in two namespaces, and beside one that is in trouble."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from redis import Redis

from tests.support.accounts import check_account
from tests.support.demo_processes import demo_process
from tests.support.operating import account, condition, done, eventually, spec, status, submit, worker

if TYPE_CHECKING:
    from devcluster.redis_server import RedisServer
    from tests.controlplane.conftest import Kubectl
    from tests.support.demo_processes import DemoProcess
    from tests.support.operating import Operator


def test_objects_of_two_namespaces_share_a_queue_and_report_each_task_once(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    kubectl("create", "namespace", f"{namespace}-b")
    for where in (namespace, f"{namespace}-b"):
        kubectl("apply", "-n", where, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, slow_executor)))
        eventually(lambda: condition(kubectl, where, "legacy", "Ready")[1] == "Routing")  # noqa: B023 -- called in this turn only
    submit(queue, 32)
    with Redis.from_url(shared_redis.url, decode_responses=True) as redis:

        def in_flight(group: str) -> set[str]:
            return {i for key in redis.scan_iter(f"queueworker:{{{group}}}:journal:*") for i in redis.hkeys(key)}

        eventually(lambda: in_flight(f"{namespace}/legacy") and in_flight(f"{namespace}-b/legacy"))
        assert not in_flight(f"{namespace}/legacy") & in_flight(f"{namespace}-b/legacy")
    eventually(lambda: done(queue, 32), 40)
    counts = account(queue)
    check_account(counts, completed=32, reported_twice=0, unknown_reports=0)
    for where in (namespace, f"{namespace}-b"):
        eventually(lambda: status(kubectl, where, "legacy").get("tasks", {}).get("routed", 0) > 0)  # noqa: B023 -- called in this turn only


def test_an_object_that_moves_to_another_queue_reports_the_old_ones_tasks_to_the_old_one(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    slow_executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, slow_executor)))
    submit(queue, 4, prefix="old")
    with queue.client() as client:
        eventually(lambda: client.get("/status").json()["processing"] == 4)
    with demo_process("queue", "--port", "0") as other:
        submit(other, 4, prefix="new")
        patch = json.dumps({"spec": {"queue": {"url": other.url}}})
        kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", patch)
        eventually(lambda: done(other, 4) and done(queue, 4))
        for of in (queue, other):
            counts = account(of)
            check_account(counts, completed=4, reported_twice=0, unknown_reports=0)


def test_an_object_whose_queue_hangs_does_not_hold_up_another(
    running: Operator,
    kubectl: Kubectl,
    namespace: str,
    queue: DemoProcess,
    executor: DemoProcess,
    shared_redis: RedisServer,
) -> None:
    with demo_process("queue", "--port", "0") as hanging:
        sick = spec(hanging, shared_redis, executor)
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("sick", **sick))
        kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", **spec(queue, shared_redis, executor)))
        eventually(lambda: condition(kubectl, namespace, "sick", "Ready")[1] == "Routing")
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            submit(queue, 100)
            eventually(lambda: done(queue, 100))
        finally:
            hanging.process.send_signal(signal.SIGCONT)
        submit(hanging, 5)
        eventually(lambda: done(hanging, 5))
