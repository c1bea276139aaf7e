"""What the page asks for: levels, compact rows, one object in depth, and how often it is built."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from queueworker.routing.config import Intent
from queueworker.routing.snapshot import ExecutorFailure, ExecutorState, Phase, TaskFailure, Transition
from queueworker.web.app import Mode, create_app
from queueworker.web.options import Failures
from queueworker.web.overview import MAX_ERROR_BYTES, cut, detail, row
from queueworker.web.shared import BUILD_SECONDS, MAX_KEPT, Body, Shared
from queueworker.web.source import ObjectView
from queueworker.web.state import Level, advice, state_of
from tests.support.web_source import DOWN, FakeSource, executor, object_of, snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

SICK = executor(2, healthy=False, reason="refused", state=ExecutorState.UNHEALTHY)
FAILURE = TaskFailure("t-1", 1.0, "it broke\nhttp://u:hunter2@x refused", "executor-1", 2, ambiguous=True)


@pytest.mark.parametrize(
    ("fields", "level", "reason"),
    [
        ({}, Level.OK, "Routing"),
        ({"phase": Phase.STARTING}, Level.WARNING, "Starting"),
        ({"phase": Phase.DRAINING}, Level.WARNING, "Draining"),
        ({"intent": Intent.SUSPEND, "phase": Phase.IDLE}, Level.OFF, "Suspended"),
        ({"executors": (executor(1), SICK)}, Level.WARNING, "Degraded"),
        ({"events": DOWN}, Level.WARNING, "Degraded"),
        ({"executors": (SICK,)}, Level.ERROR, "NoExecutors"),
        ({"queue": DOWN}, Level.ERROR, "QueueUnreachable"),
    ],
)
def test_conditions_come_to_one_level_and_one_word(fields: dict[str, Any], level: Level, reason: str) -> None:
    view = object_of(snapshot(**fields))
    state = state_of(view)
    assert (state.level, state.reason) == (level, reason)
    assert bool(state.why) == (level is not Level.OK)
    assert all(text for _, text in advice(view)), "says what to do about each of them"
    assert bool(advice(view)) == (level is Level.ERROR or reason == "Degraded")


def test_an_object_without_a_router_has_a_row_too() -> None:
    found = row(ObjectView("team/bad", None, []))
    assert (found[0], len(found)) == ("team/bad", len(row(object_of(snapshot()))))


def test_a_row_has_a_letter_and_the_slots_of_each_executor() -> None:
    pool = (executor(1, in_flight=1, capacity=4), SICK, executor(3, leaving=True, state=ExecutorState.LEAVING))
    found = row(object_of(snapshot(executors=pool, journal=DOWN)))
    assert found[9:13] == [1, 4, "h1/4 u0/1 l0/1", "++-"]


def test_errors_are_cut_and_shown_as_far_as_the_setting_allows() -> None:
    view = object_of(snapshot(failures=(FAILURE,)))
    assert detail(view, "boot", Failures.FULL)["failures"][0]["error"] == FAILURE.error
    assert detail(view, "boot", Failures.SUMMARY)["failures"] == [
        {**detail(view, "boot", Failures.FULL)["failures"][0], "error": ""}
    ]
    assert detail(view, "boot", Failures.OFF)["failures"] == []
    assert cut("ä" * MAX_ERROR_BYTES) == "ä" * (MAX_ERROR_BYTES // 2) + "…"
    assert cut("\ud800") == "\ud800"


# --- how it is served


def client(source: FakeSource, mode: Mode = Mode.OPERATOR) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(source, mode)), base_url="http://operator")


@pytest.mark.parametrize("mode", Mode)
async def test_the_overview_has_a_value_for_each_field_in_each_row(mode: Mode) -> None:
    async with client(FakeSource([snapshot("a/a")]), mode) as http:
        found = (await http.get("/api/overview")).json()
    assert [row["name"] for row in rows(found)] == ["a/a"]
    assert rows(found)[0]["queued"] == 7
    assert found["kind"] == mode


def rows(overview: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(overview["fields"], values, strict=True)) for values in overview["objects"]]


async def test_many_viewers_share_one_answer() -> None:
    source = FakeSource([snapshot("a/a")])
    async with client(source) as http:
        answers = [await http.get("/api/overview") for _ in range(5)]
        assert source.taken == 1
        tag = answers[0].headers["etag"]
        again = await http.get("/api/overview", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert len({answer.content for answer in answers}) == 1


async def test_one_object_is_shown_in_depth_without_credentials() -> None:
    failing = executor(1, failures=(ExecutorFailure(1.0, "http://u:hunter2@x refused"),))
    change = Transition(1.0, "queue", well=False, message="http://u:hunter2@x refused")
    shown = snapshot("a/a", executors=(failing,), failures=(FAILURE,), transitions=(change,))
    async with client(FakeSource([shown])) as http:
        answer = await http.get("/api/objects/a/a")
        missing = await http.get("/api/objects/a/b")
    found = answer.json()
    assert "hunter2" not in answer.text
    assert found["failures"][0]["error"] == "it broke\nhttp://x refused"
    assert found["router"]["executors"][0]["failures"][0]["reason"] == "http://x refused"
    assert found["transitions"][0]["subject"] == "queue"
    assert found["history"]["series"]["p95_seconds"] == []
    assert missing.status_code == 404


async def test_an_answer_is_compressed_when_the_client_can_read_it() -> None:
    source = FakeSource([snapshot(f"a/object-{n}") for n in range(50)])
    async with client(source) as http:
        zipped = await http.get("/api/overview", headers={"Accept-Encoding": "gzip"})
        plain = await http.get("/api/overview", headers={"Accept-Encoding": "identity"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert zipped.json() == plain.json()
    assert int(zipped.headers["content-length"]) < len(plain.content) / 4


def test_an_answer_is_built_again_after_a_second_and_its_tag_is_that_of_its_content() -> None:
    now = 0.0
    shared = Shared(lambda: now)
    built = [shared.keep("x", Body.of({"a": 1}, 0.0))]
    assert shared.get("x") is built[0]
    now = BUILD_SECONDS
    assert shared.get("x") is None
    built += [Body.of({"a": 1}, 5.0), Body.of({"a": 2}, 0.0)]
    assert built[0].etag == built[1].etag != built[2].etag
    assert list(json.loads(built[0].raw)) == ["time", "a"]
    assert built[0].zipped == b"", "too small"


def test_the_answers_that_are_kept_are_bounded() -> None:
    shared = Shared(lambda: 0.0)
    for n in range(MAX_KEPT + 1):
        shared.keep(str(n), Body.of({"n": n}, 0.0))
    assert shared.get("0") is None
    assert shared.get(str(MAX_KEPT)) is not None


def test_what_is_compressed_is_what_is_plain() -> None:
    body = Body.of({"a": "x" * 5000}, 12.0)
    assert gzip.decompress(body.zipped) == body.raw


def test_a_snapshot_is_equal_to_another_of_the_same_state() -> None:
    shown = snapshot()
    assert replace(shown) == shown
