"""The routes: the legacy shapes to the letter, the operator's, the probes, and what describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import yaml
from fastapi.openapi.models import OpenAPI

from queueworker.routing.config import Intent
from queueworker.routing.counters import Counters
from queueworker.routing.snapshot import Link, LinkReason, Phase
from queueworker.web.app import Mode, create_app
from queueworker.web.source import OperatorView
from tests.support.web_source import DOWN, FakeSource, executor, snapshot

if TYPE_CHECKING:
    from queueworker.web.source import Source


async def get(source: Source, path: str, mode: Mode = Mode.WORKER, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(source, mode))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        return await client.get(path, headers=headers)


def one(**fields: object) -> FakeSource:
    return FakeSource([snapshot("worker/queue:8081", **fields)])


async def test_status_of_a_worker_has_the_legacy_shape() -> None:
    pool = (executor(1), executor(2, healthy=False), executor(3, leaving=True))
    answer = await get(one(executors=pool, counters=Counters(completed=5, failed=2)), "/status")
    assert answer.status_code == 200
    assert answer.json() == {
        "worker_id": "queue-worker-1",
        "status": "healthy",
        "tasks_routed": 7,
        "executors": {
            "total": 2,
            "healthy": 1,
            "health": {"http://executor-1:8083": True, "http://executor-2:8083": False},
        },
    }


async def test_health_of_a_worker_has_the_legacy_shape() -> None:
    source = one()
    answer = await get(source, "/health")
    assert answer.json() == {
        "status": "healthy",
        "service": "queue-worker",
        "details": (await get(source, "/status")).json(),
    }


@pytest.mark.parametrize(
    ("fields", "health", "status"),
    [
        ({}, "healthy", "healthy"),
        ({"executors": (executor(1, healthy=False),)}, "degraded", "degraded"),
        ({"executors": ()}, "degraded", "degraded"),
        ({"executors": (executor(1, leaving=True),)}, "degraded", "degraded"),
        ({"executors": (executor(1, healthy=False, last_check=None),)}, "starting", "degraded"),
        ({"phase": Phase.STARTING, "executors": ()}, "starting", "degraded"),
        ({"phase": Phase.STOPPED, "executors": ()}, "degraded", "degraded"),
        ({"intent": Intent.STANDBY, "phase": Phase.IDLE}, "healthy", "healthy"),
        ({"queue": DOWN, "events": DOWN}, "healthy", "healthy"),
    ],
)
async def test_a_worker_is_degraded_when_no_executor_is_healthy_and_answers_200(
    fields: dict[str, object], health: str, status: str
) -> None:
    source = one(**fields)
    answers = [await get(source, path) for path in ("/health", "/status")]
    assert [a.json()["status"] for a in answers] == [health, status]
    assert [a.status_code for a in answers] == [200, 200]


async def test_a_worker_shows_the_rest_under_its_group() -> None:
    answer = await get(one(queue=DOWN), "/status/worker/queue:8081")
    found = answer.json()
    assert answer.status_code == 200
    assert found["queue"]["connected"] is False
    assert found["queue"]["message"] == "queue http://queue:8081 refused the connection"
    assert found["tasks"]["per_minute"] == 42
    assert [e["name"] for e in found["executors"]] == ["executor-1", "executor-2"]


async def test_an_operator_lists_every_queue_worker_by_name() -> None:
    source = FakeSource([snapshot("team-b/legacy"), snapshot("team-a/legacy", intent=Intent.SUSPEND)])
    found = (await get(source, "/status", Mode.OPERATOR)).json()
    assert [(q["name"], q["intent"]) for q in found["queue_workers"]] == [
        ("team-a/legacy", "Suspended"),
        ("team-b/legacy", "Routing"),
    ]
    single = (await get(source, "/status/team-b/legacy", Mode.OPERATOR)).json()
    assert single == found["queue_workers"][1]


async def test_an_unknown_queue_worker_is_answered_with_a_sentence_that_names_the_known() -> None:
    answer = await get(FakeSource([snapshot("team-a/legacy")]), "/status/team-a/other", Mode.OPERATOR)
    assert answer.status_code == 404
    assert answer.json() == {
        "detail": "this process does not route for a QueueWorker team-a/other; it routes for: team-a/legacy"
    }


@pytest.mark.parametrize(
    ("source", "status"),
    [
        (FakeSource(), "healthy"),
        (FakeSource([]), "healthy"),
        (FakeSource([snapshot("a/a"), snapshot("a/b", executors=())]), "degraded"),
        (FakeSource([snapshot("a/a", executors=(), intent=Intent.SUSPEND)]), "healthy"),
        (FakeSource(readiness=(False, "the API server has not answered")), "starting"),
    ],
)
async def test_an_operator_is_as_healthy_as_the_queue_workers_that_should_route(
    source: FakeSource, status: str
) -> None:
    answer = await get(source, "/health", Mode.OPERATOR)
    assert answer.status_code == 200
    assert answer.json()["status"] == status
    assert answer.json()["details"]["message"] == source.readiness[1]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(("ok", "code"), [(True, 200), (False, 503)])
async def test_probes_answer_with_their_reason(mode: Mode, ok: bool, code: int) -> None:
    source = FakeSource(liveness=(ok, "the loop turns"), readiness=(ok, "draining"))
    live, ready = await get(source, "/livez", mode), await get(source, "/readyz", mode)
    assert (live.status_code, live.json()) == (code, {"ok": ok, "reason": "the loop turns"})
    assert (ready.status_code, ready.json()) == (code, {"ok": ok, "reason": "draining"})


async def test_metrics_are_in_the_format_that_is_asked_for() -> None:
    plain = await get(one(), "/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert 'queueworker_tasks_per_minute{queueworker="worker/queue:8081"} 42.0' in plain.text
    asked = await get(one(), "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    for version in ("next", '"1.0.0"', "1..0"):
        other = await get(one(), "/metrics", accept=f"application/openmetrics-text; version={version}")
        assert other.status_code == 200
        assert other.headers["content-type"] == plain.headers["content-type"]
    assert asked.text.endswith("# EOF\n")


@pytest.mark.parametrize("mode", Mode)
async def test_openapi_is_the_same_in_json_and_yaml_and_describes_every_route(mode: Mode) -> None:
    found = (await get(one(), "/openapi.json", mode)).json()
    text = await get(one(), "/openapi.yaml", mode)
    assert text.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(text.text) == found
    OpenAPI.model_validate(found)
    routes = {"/health", "/status", "/status/{namespace}/{name}", "/livez", "/readyz", "/metrics"}
    routes |= {"/api/overview", "/api/sparklines", "/api/objects/{namespace}/{name}"}
    retry = "/api/objects/{namespace}/{name}/failures/{eval_id}/retry"
    assert set(found["paths"]) == {*routes, retry}
    for operation in [found["paths"][retry]["post"], *(found["paths"][path]["get"] for path in routes)]:
        assert operation["summary"]
        assert operation["description"]
        assert operation["responses"]["200"]["description"] != "Successful Response"


@pytest.mark.parametrize("mode", Mode)
async def test_every_field_that_is_answered_is_described(mode: Mode) -> None:
    schemas = (await get(one(), "/openapi.json", mode)).json()["components"]["schemas"]
    bare = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        if "ValidationError" not in name
        for field, node in schema.get("properties", {}).items()
        if not ({"description", "$ref", "const"} & node.keys())
    ]
    assert bare == []


@pytest.mark.parametrize("mode", Mode)
async def test_credentials_in_a_url_are_shown_nowhere(mode: Mode) -> None:
    url = "http://user:hunter2@host:8083"
    down = Link(LinkReason.CONNECTION_FAILED, f"no answer from {url}/status: refused")
    pool = (executor(1, url=url, name="user:hunter2@host:8083", reason=f"no answer from {url}/health"),)
    source = one(queue_url=url, queue=down, events=down, journal=down, executors=pool)
    texts = [(await get(source, path, mode)).text for path in ("/health", "/status", "/metrics")]
    single = await get(source, "/status/worker/queue:8081", mode)
    assert [text for text in [*texts, single.text] if "hunter2" in text] == []
    assert single.json()["queue"]["url"] == "http://host:8083"
    assert single.json()["queue"]["message"] == "no answer from http://host:8083/status: refused"
    assert single.json()["executors"][0]["reason"] == "no answer from http://host:8083/health"
    assert 'queueworker_executor_healthy{executor="host:8083"' in texts[2]


async def test_an_operators_status_tells_who_leads_and_a_standby_does_not_say_that_an_object_is_unknown() -> None:
    source = FakeSource([], view=OperatorView(leading=False, leader="pod-b"))
    found = (await get(source, "/status", Mode.OPERATOR)).json()
    assert found == {"leading": False, "leader": "pod-b", "queue_workers": []}
    answer = await get(source, "/status/team/legacy", Mode.OPERATOR)
    assert (answer.status_code, "pod-b" in answer.json()["detail"]) == (503, True)
    source.view = OperatorView(leading=False, leader="")
    answer = await get(source, "/status/team/legacy", Mode.OPERATOR)
    assert "no replica leads" in answer.json()["detail"]
    source.view = OperatorView(leading=True, leader="me")
    assert (await get(source, "/status/team/legacy", Mode.OPERATOR)).status_code == 404
