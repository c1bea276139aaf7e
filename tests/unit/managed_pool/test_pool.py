"""How a plan is carried out: what is deleted with which grace, in which order, and how often."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.managed_pool.objects import Owner, pool_bodies
from queueworker.controller.managed_pool.observed import PoolObjects
from queueworker.controller.managed_pool.pool import (
    MAX_ENDS,
    RETRY_SECONDS,
    ManagedPool,
    tasks_given_up,
)
from queueworker.resource.reasons import Reason
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.snapshot import Link, LinkReason, Snapshot
from tests.support.fake_cluster import FakeCluster
from tests.support.web_source import executor, snapshot

if TYPE_CHECKING:
    from queueworker.controller.events import ObjectEvent

OWNER = Owner("team", "legacy", "uid-1")
IDLE = snapshot(executors=())
WITHOUT_REDIS = snapshot(executors=(), journal=Link(LinkReason.CONNECTION_FAILED, "refused"))


def spec_of(count: int, image: str = "executor:1") -> QueueWorkerSpec:
    template = {"spec": {"containers": [{"name": "executor", "image": image}]}}
    return QueueWorkerSpec.model_validate({"executors": {"template": template, "count": count}})


class Run:
    """A pool of three pods."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.objects = PoolObjects()
        self.now = 0.0
        self.events: list[ObjectEvent] = []
        self.pool = ManagedPool(
            *(OWNER, self.cluster, self.objects, self.events.append),
            clock=lambda: self.now,
            wall_clock=lambda: self.now,
        )
        self.objects.stateful_sets.listed("", [], ())
        self.objects.pods.listed("", [], ())

    async def started(self) -> Run:
        await self.follow(spec_of(3))
        for ordinal in (1, 2, 3):
            self.make_pod(ordinal)
        await self.follow(spec_of(3))
        self.cluster.requests.clear()
        return self

    def edit(self, kind: str, spec: dict[str, Any]) -> None:
        """Somebody else changes the spec, and leaves no trace in managedFields."""
        before = self.cluster.objects[kind, "legacy-executor"]
        metadata = before["metadata"] | {"generation": before["metadata"]["generation"] + 1}
        body = self.cluster.objects[kind, "legacy-executor"] = before | {"metadata": metadata, "spec": spec}
        if kind == "StatefulSet":
            self.objects.stateful_sets.changed(None, body)

    def make_pod(self, ordinal: int) -> None:
        template = pool_bodies(OWNER, spec_of(3)).stateful_set["spec"]["template"]
        name = f"legacy-executor-{ordinal}"
        metadata = template["metadata"] | {"namespace": "team", "name": name, "uid": f"uid-{ordinal}"}
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.objects.pods.changed(None, {"metadata": metadata, "status": ready})

    async def follow(self, spec: QueueWorkerSpec, seconds: float = 1.0, seen: Snapshot = IDLE) -> None:
        self.pool.decide(spec, 1, seen)
        await self.pool.act()
        self.now += seconds

    def reason(self) -> str:
        """Of PoolReady."""
        condition = self.pool.view().condition
        assert condition is not None
        return condition.reason

    def told(self) -> list[str]:
        """What the API server was asked for, in a few words; not the patches of Service and budget."""
        words = [_words(*request) for request in self.cluster.requests]
        return [word for word in words if word not in {"patch Service", "patch PodDisruptionBudget"}]


def _words(method: str, kind: str, name: str, body: Any) -> str:
    number = name.rpartition("-")[2]
    if kind == "Pods":
        return f"end {number}" if body.get("gracePeriodSeconds") == 1 else f"delete {number}"
    return f"{method.lower()} {kind}" + (
        f" {body['spec']['replicas']}" if kind == "StatefulSet" and method == "PATCH" else ""
    )


async def test_idle_pods_are_deleted_with_a_short_grace_before_the_replicas_go_down() -> None:
    run = await Run().started()
    await run.follow(spec_of(1))
    assert run.told() == [], "the router has to know first"
    await run.follow(spec_of(1))
    assert run.told() == ["end 2", "end 3", "patch StatefulSet 1"]


async def test_pods_that_seem_idle_while_redis_is_away_keep_their_grace() -> None:
    """Another leader's router may have tasks on them: Redis would tell of it."""
    run = await Run().started()
    for _ in range(2):
        await run.follow(spec_of(1), seen=WITHOUT_REDIS)
    assert run.told() == ["patch StatefulSet 1"]
    assert await tasks_given_up(asyncio.create_task(asyncio.sleep(0)), 30, lambda: WITHOUT_REDIS) is None


async def test_a_pod_that_is_replaced_while_redis_is_away_keeps_its_grace() -> None:
    """As above, for a new template: the old leader's router may still have a task on the pod."""
    run = await Run().started()
    for _ in range(3):
        await run.follow(spec_of(3, image="executor:2"), seen=WITHOUT_REDIS)
    assert "delete 1" in run.told()
    assert "end 1" not in run.told()


async def test_a_pod_that_comes_back_because_the_replicas_cannot_go_down_is_deleted_a_few_times() -> None:
    run = await Run().started()
    run.cluster.refusals["StatefulSet"] = ApiException(status=500, reason="webhook")
    for _ in range(MAX_ENDS + 5):
        await run.follow(spec_of(2))
    assert run.told().count("end 3") == MAX_ENDS
    run.cluster.refusals.clear()
    await run.follow(spec_of(2))
    assert run.told()[-1] == "patch StatefulSet 2"


def refusal(status: int, message: str) -> ApiException:
    error = ApiException(status=status)
    error.body = json.dumps({"message": message})
    return error


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (403, 'User "operator" cannot delete resource "pods"', "NotPermitted"),
        (422, "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: no", "NotPermitted"),
        (400, 'admission webhook "w.example" denied the request: no', "NotPermitted"),
        (500, "the webhook is away", "Progressing"),
    ],
)
async def test_a_pod_whose_deletion_is_refused_holds_the_replicas_up_for_a_few_tries(
    status: int, message: str, reason: str
) -> None:
    run = await Run().started()
    run.cluster.refusals["legacy-executor-2"] = refusal(status, message)
    for _ in range(MAX_ENDS + 1):  # at first the router has to know
        await run.follow(spec_of(1), RETRY_SECONDS)
    assert "patch StatefulSet 1" not in run.told()
    condition = run.pool.view().condition
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", reason)
    assert message in condition.message or reason == "Progressing"
    await run.follow(spec_of(1))
    assert run.told().count("end 3") <= MAX_ENDS
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling(), "the next timeout would be taken for a cancellation (Python 3.11.2)"
    assert run.told().count("patch StatefulSet 1") == 1


async def test_a_removed_template_deletes_idle_pods_before_the_stateful_set() -> None:
    run = await Run().started()
    without = QueueWorkerSpec.model_validate({})
    for _ in range(2):
        await run.follow(without)
    told = run.told()
    assert told[:2] == ["delete Service", "delete PodDisruptionBudget"]
    assert told[2:] == ["end 1", "end 2", "end 3", "delete StatefulSet"]


async def test_the_pool_of_an_object_that_goes_is_deleted_but_for_pods_that_may_have_a_task() -> None:
    run = await Run().started()
    await run.pool.end({"legacy-executor-2": 1, "legacy-executor-3": 0})
    assert run.told() == ["end 1", "end 3", "delete StatefulSet"]


async def test_the_pool_of_an_object_that_goes_is_left_alone_if_nobody_knows_its_tasks() -> None:
    run = await Run().started()
    await run.pool.end(None)
    assert run.told() == []


@pytest.mark.parametrize("error", [ApiException(status=403, reason="Forbidden"), ConnectionError("refused")])
async def test_an_error_at_the_end_is_logged_and_nothing_else(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    run = await Run().started()
    run.cluster.refusals["Pods"] = error
    await run.pool.end({})
    assert "delete StatefulSet" not in run.told()
    assert "team/legacy: garbage collection deletes the pool" in caplog.text


async def test_tasks_that_a_drain_gives_up_may_still_run() -> None:
    busy = snapshot(executors=(executor(1, in_flight=1), executor(2)))
    shown = [busy]
    ended = asyncio.Event()

    async def drain() -> None:
        await ended.wait()
        shown[0] = IDLE

    late = asyncio.create_task(tasks_given_up(asyncio.create_task(drain()), 0, lambda: shown[0]))
    await asyncio.sleep(0.01)
    ended.set()
    assert await late == {"executor-1": 1, "executor-2": 0}
    shown[0] = busy
    in_time = asyncio.create_task(drain())
    assert await tasks_given_up(in_time, 30, lambda: shown[0]) == {}


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "StatefulSet"])
async def test_an_object_that_somebody_else_creates_just_before_we_do_stays_as_it_is(kind: str) -> None:
    run = Run()
    foreign = {"metadata": {"name": "legacy-executor", "uid": "uid-9"}, "spec": {"theirs": True}}
    run.cluster.appear[kind, "legacy-executor"] = foreign
    await run.follow(spec_of(3))
    assert run.reason() == Reason.PROGRESSING, "409: it is looked at again"
    await run.follow(spec_of(3))
    assert run.reason() == Reason.NAME_TAKEN
    assert run.cluster.objects[kind, "legacy-executor"] == foreign


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
@pytest.mark.parametrize("how", ["changed by kubectl-edit", "deleted"])
async def test_service_and_budget_are_put_back_within_a_minute_with_an_event(kind: str, how: str) -> None:
    """They are not watched."""
    run = await Run().started()
    key = (kind, "legacy-executor")
    before = run.cluster.objects[key]["spec"]
    if how == "deleted":
        del run.cluster.objects[key]
    else:
        edit = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:selector": {}}}}
        changed = run.cluster.objects[key]
        metadata = changed["metadata"] | {"managedFields": [edit]}
        run.cluster.objects[key] = changed | {"metadata": metadata, "spec": before | {"selector": {}}}
    run.now = 59
    await run.follow(spec_of(3), seconds=2)
    assert run.events == []
    await run.follow(spec_of(3))
    (event,) = run.events
    assert (event.type, event.reason) == ("Warning", "PoolRestored")
    assert event.message.startswith(f"{kind} legacy-executor was {how}")
    assert run.cluster.objects[key]["spec"] == before


async def test_a_part_of_the_stateful_set_that_is_removed_by_hand_is_put_back_with_an_event() -> None:
    """managedFields do not tell of it; the generation does."""
    run = await Run().started()
    before = run.cluster.objects["StatefulSet", "legacy-executor"]["spec"]
    run.edit("StatefulSet", before | {"updateStrategy": {}})
    for _ in range(3):
        await run.follow(spec_of(3))
    assert run.told() == ["patch StatefulSet 3"]
    assert [event.message for event in run.events] == ["StatefulSet legacy-executor was changed: its spec was put back"]
    assert run.cluster.objects["StatefulSet", "legacy-executor"]["spec"] == before


async def test_a_change_of_our_own_whose_answer_was_lost_is_not_called_somebody_elses() -> None:
    run = await Run().started()
    run.cluster.refusals["StatefulSet"] = TimeoutError()
    await run.follow(spec_of(4))
    assert run.reason() == Reason.PROGRESSING
    run.edit("StatefulSet", run.cluster.objects["StatefulSet", "legacy-executor"]["spec"] | {"replicas": 4})
    run.cluster.refusals.clear()
    await run.follow(spec_of(4))
    assert run.told()[-1] == "patch StatefulSet 4"
    assert run.events == []
