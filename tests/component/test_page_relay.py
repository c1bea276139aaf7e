"""Any replica answers for all: a standby says what the leader says, over real HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web

from queueworker.web.app import Mode, create_app
from queueworker.web.options import WebOptions
from queueworker.web.server import serve
from queueworker.web.source import OperatorView
from tests.support.foreign_answers import FOREIGN, ForeignAnswer
from tests.support.stubs import Server
from tests.support.web_source import FakeSource, snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEADING = OperatorView(leading=True, leader="pod-a", identity="pod-a")
STANDBY = OperatorView(leading=False, leader="pod-a", identity="pod-b", address="http://127.0.0.1:1")
TOKEN = "a-token-of-some-length"


@asynccontextmanager
async def replica(source: FakeSource, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(source, Mode.OPERATOR, WebOptions(**options))
    async with (
        serve(app, "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client,
    ):
        yield client


@asynccontextmanager
async def both(leader: FakeSource, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A standby of that leader."""
    async with replica(leader, **options) as led:
        view = replace(STANDBY, address=str(led.base_url).rstrip("/"))
        async with replica(FakeSource([], view=view), **options) as standby:
            yield standby


@pytest.mark.parametrize("path", ["/api/overview", "/api/sparklines", "/api/objects/a/b"])
async def test_a_standby_says_what_the_leader_says_and_that_it_stands_by(path: str) -> None:
    async with both(FakeSource([snapshot("a/b")], view=LEADING)) as standby:
        answer = await standby.get(path)
    assert answer.status_code == 200
    assert "a/b" in answer.text
    assert answer.headers["x-answered-by"] == "pod-b"


async def test_viewers_of_a_standby_cost_the_leader_one_answer() -> None:
    leader = FakeSource([snapshot("a/b")], view=LEADING)
    async with both(leader) as standby:
        answers = [await standby.get("/api/overview") for _ in range(5)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert leader.taken == 1


async def test_what_the_leader_does_not_know_the_standby_does_not_know() -> None:
    async with both(FakeSource([snapshot("a/b")], view=LEADING)) as standby:
        answer = await standby.get("/api/objects/a/other")
    assert (answer.status_code, "a/other" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (STANDBY, "pod-b stands by, and pod-a, which holds the Lease, does not answer (Connection refused): if"),
        (replace(STANDBY, address=""), "pod-b stands by; ask pod-a, which leads"),
        (replace(STANDBY, leader=""), "pod-b stands by, and nobody leads: a standby takes over within seconds"),
        (replace(STANDBY, leader="", unready="the API server is away"), "nobody leads: the API server is away"),
    ],
)
async def test_a_standby_without_a_leader_says_so(view: OperatorView, says: str) -> None:
    async with replica(FakeSource([], view=view)) as standby:
        answer = await standby.get("/api/overview")
    assert answer.status_code == 503
    assert says in answer.json()["detail"]
    assert answer.headers["x-answered-by"] == "pod-b"


ANOTHERS = {
    **FOREIGN,
    "nothing": ForeignAnswer(204, b"", ""),
    "not modified": ForeignAnswer(304, b"", ""),
    "a list": ForeignAnswer(200, b"[1]", "application/json"),
    "another object": ForeignAnswer(200, b'{"status": "ok"}', "application/json"),
    "words of a validation": ForeignAnswer(422, b'{"detail": [{"loc": ["path"]}]}', "application/json"),
    "a status of its own": ForeignAnswer(599, b'{"detail": "what?"}', "application/json"),
}


class Another(Server):
    """Whoever is at the leader's address by now: another pod, a proxy, an operator of another version."""

    says = ForeignAnswer(200, b"", "")

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/{path:.*}", self._answer)]

    async def _answer(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": self.says.content_type} if self.says.content_type else {}
        return web.Response(status=self.says.status, body=self.says.body, headers=headers)


@pytest.mark.parametrize(
    ("verb", "path"), [("GET", "/api/overview"), ("POST", "/api/objects/a/b/failures/t/retry")], ids=["GET", "POST"]
)
async def test_what_is_not_the_leaders_own_answer_is_not_passed_on(verb: str, path: str) -> None:
    async with (
        Another() as another,
        replica(FakeSource([], view=replace(STANDBY, address=another.url)), token=TOKEN) as standby,
    ):
        for name, another.says in ANOTHERS.items():
            answer = await standby.request(verb, path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 503, name
            assert "what answers at the address of pod-a, which leads, is no operator" in answer.json()["detail"], name


async def test_two_standbys_that_take_each_other_for_the_leader_do_not_ask_in_a_circle() -> None:
    source = FakeSource([snapshot("a/b")])
    async with replica(source) as first:
        source.view = replace(STANDBY, address=str(first.base_url).rstrip("/"))
        answer = await first.get("/api/overview")
    assert answer.status_code == 200
    assert source.taken == 1


@pytest.mark.parametrize("eval_id", ["t%2F1", "t%0A1", "t%2Fretry"])
async def test_a_standby_passes_the_token_on_and_the_leader_checks_it(eval_id: str) -> None:
    path = f"/api/objects/a/b/failures/{eval_id}/retry"
    async with both(FakeSource([snapshot("a/b")], view=LEADING), token=TOKEN) as standby:
        wrong = await standby.post(path, headers={"Authorization": "Bearer wrong"})
        right = await standby.post(path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert wrong.status_code == 401
    assert (right.status_code, "does not route for a QueueWorker a/b" in right.json()["detail"]) == (404, True)
