"""The show on pods, with the answers of an API server made by hand."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from rich.console import Console

from demo.kube import NAME, NAMESPACE, Kubectl
from demo.pods import PORT, QUEUE_PATH, SYSTEM, PodPlatform, last_counts, shown
from demo.processes import Service
from demo.show.acts import EXECUTOR_POD, LEADER_POD, POD_ACTS, Command, Kind
from demo.show.facts import Facts, Stored, pod_from, router_from
from demo.show.run import Lines
from demo.show.show import Show
from demo.show.view import View

if TYPE_CHECKING:
    from pathlib import Path

LEADER, STANDBY = "queueworker-operator-5c-aaaaa", "queueworker-operator-5c-bbbbb"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/queueworker-operator"
CREATED = "2026-01-01T00:00:00Z"
NOW = 1767225600.0 + 90
FACTS = Facts(0.0, None, queue_answers=True, submitted=0, handed_out=0, reported=0, stored=Stored())


def pod(name: str, *, ready: bool = True, deleted: bool = False, waiting: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {
        "phase": "Pending" if waiting else "Running",
        "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"state": {"waiting": {"reason": waiting}} if waiting else {"running": {}}}],
    }
    metadata = {"name": name, "creationTimestamp": CREATED} | ({"deletionTimestamp": CREATED} if deleted else {})
    return {"metadata": metadata, "status": status}


def status(*executors: str) -> dict[str, Any]:
    """What the leader answers."""
    well = {"connected": True, "reason": ""}
    return {
        "executors": [
            {"name": name, "healthy": True, "in_flight": 1, "capacity": 2, "leaving": False} for name in executors
        ],
        "queue": well,
        "journal": well,
        "events": well | {"buffered": 0},
        "tasks": {"in_flight": 1, "recovered": 3},
    }


class Api:
    """Answers of the API server by path; 404 for others."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            f"/api/v1/namespaces/{SYSTEM}/pods": {"items": [pod(LEADER), pod(STANDBY)]},
            f"/api/v1/namespaces/{NAMESPACE}/pods": {"items": [pod("queue-1"), pod("legacy-executor-1")]},
            f"{QUEUE_PATH}/account": {"submitted": 9, "handed_out": 8, "completed": 6, "failed": 1},
            LEASE: {"spec": {"holderIdentity": f"{LEADER}_1"}},
            f"/api/v1/namespaces/{SYSTEM}/pods/{LEADER}:{PORT}/proxy/status/{NAMESPACE}/{NAME}": status("x-executor-1"),
        }

    def client(self) -> httpx.Client:
        def answer(request: httpx.Request) -> httpx.Response:
            found = self.answers.get(request.url.path)
            return httpx.Response(404) if found is None else httpx.Response(200, json=found)

        return httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer))


class Calls(Kubectl):
    """Keeps what kubectl was called with."""

    def __init__(self) -> None:
        super().__init__("a-kubeconfig")
        self.calls: list[str] = []

    def __call__(self, *args: str, text: str | None = None) -> str:
        self.calls.append(" ".join(args))
        return text or ""


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def kubectl() -> Calls:
    return Calls()


@pytest.fixture
def platform(api: Api, kubectl: Calls, tmp_path: Path) -> PodPlatform:
    counts = tmp_path / "counts.jsonl"
    counts.write_text("[5,1,1]\n")
    return PodPlatform(kubectl, api.client(), Service(tmp_path, "load", "no.module"), counts)


def test_what_the_cluster_says_becomes_facts(platform: PodPlatform) -> None:
    facts = platform.observe()
    assert (facts.submitted, facts.handed_out, facts.reported, facts.stored) == (9, 8, 7, Stored(5, 1, 1))
    assert facts.router is not None
    assert (facts.router.url, facts.router.recovered) == ("http://10.0.0.7:8084", 3)
    assert facts.calm
    assert [found.name for found in facts.pods] == [LEADER, STANDBY, "legacy-executor-1", "queue-1"]
    assert [found.name for found in facts.pods if found.leads] == [LEADER]


def test_a_leader_whose_pod_is_gone_is_no_router(platform: PodPlatform, api: Api) -> None:
    api.answers[f"/api/v1/namespaces/{SYSTEM}/pods"] = {"items": [pod(STANDBY)]}
    assert platform.observe().router is None


def test_the_counts_of_a_queue_that_does_not_answer_are_the_last_ones(platform: PodPlatform, api: Api) -> None:
    platform.observe()
    del api.answers[f"{QUEUE_PATH}/account"]
    facts = platform.observe()
    assert (facts.queue_answers, facts.submitted) == (False, 9)


def test_the_pod_that_leads_is_killed(platform: PodPlatform, kubectl: Calls) -> None:
    platform.observe()
    platform.carry_out(Command(Kind.KILL_ROUTER))
    assert kubectl.calls == [f"delete pod {LEADER} -n {SYSTEM} --grace-period=0 --force --ignore-not-found"]


def test_the_pool_is_scaled_as_a_person_would_do_it(platform: PodPlatform, kubectl: Calls) -> None:
    platform.carry_out(Command(Kind.SCALE, 5))
    assert kubectl.calls == [f"scale queueworker/{NAME} -n {NAMESPACE} --replicas=5"]


def test_what_kubernetes_brings_back_is_not_started_here(platform: PodPlatform, kubectl: Calls) -> None:
    platform.carry_out(Command(Kind.START_EXECUTORS))
    platform.carry_out(Command(Kind.START_ROUTER))
    assert kubectl.calls == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod("a"), "Running"),
        (pod("a", waiting="ContainerCreating", ready=False), "ContainerCreating"),
        (pod("a", deleted=True), "Terminating"),
        ({"metadata": {"name": "a", "creationTimestamp": CREATED}}, "Unknown"),
    ],
)
def test_the_status_of_a_pod_is_that_of_kubectl(found: dict[str, Any], said: str) -> None:
    assert pod_from(found, "", NOW).status == said


def test_a_pod_has_an_age_and_says_whether_it_leads() -> None:
    found = pod_from(pod("a", ready=False), "a", NOW)
    assert (found.age, found.ready, found.leads) == (90.0, False, True)


def test_executors_come_after_the_operator_and_before_the_rest() -> None:
    names = [found.name for found in shown([pod("z")], [pod("queue-1"), pod("legacy-executor-2")], "", NOW)]
    assert names == ["z", "legacy-executor-2", "queue-1"]


def test_a_log_has_a_line_for_each_pod_that_changes() -> None:
    console = Console(file=StringIO(), width=200)
    lines, view = Lines(console), View(Show(POD_ACTS), FACTS)
    for pods in ([pod("a")], [pod("a"), pod("b", waiting="ContainerCreating")], [pod("b")]):
        view.add(replace(FACTS, pods=shown(pods, [], "", NOW)))
        lines.update(view)
    assert isinstance(console.file, StringIO)
    said = [line for line in console.file.getvalue().splitlines() if "pod " in line]
    assert said == ["  pod a: Running", "  pod b: ContainerCreating", "  pod a: gone", "  pod b: Running"]


@pytest.mark.parametrize(
    ("lines", "counts"),
    [(b"", Stored()), (b"[1,2,2]\n", Stored(1, 2, 2)), (b"[1,2,2]\n[3,", Stored(1, 2, 2)), (b"E: no\n", Stored())],
)
def test_the_last_whole_line_of_counts_is_read(lines: bytes, counts: Stored) -> None:
    assert last_counts(lines) == counts


def with_executors(*names: str) -> Facts:
    return replace(FACTS, router=router_from("http://router", status(*names)))


def test_a_killed_pod_has_healed_when_the_pool_is_whole_again() -> None:
    before, missing = with_executors("x-executor-1", "x-executor-2"), with_executors("x-executor-1")
    noticed, healed = (step.done for step in EXECUTOR_POD.steps)
    assert (noticed(before, before), noticed(before, missing)) == (False, True)
    assert (healed(before, missing), healed(before, before)) == (False, True)


def test_the_acts_on_pods_need_nothing_that_a_cluster_does_not_do() -> None:
    commands = {step.command(FACTS).kind for act in POD_ACTS for step in act.steps}
    assert commands == {Kind.SCALE, Kind.KILL_EXECUTOR, Kind.START_EXECUTORS, Kind.KILL_ROUTER, Kind.START_ROUTER}
    assert LEADER_POD in POD_ACTS
