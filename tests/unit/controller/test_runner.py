"""One object: its router follows its spec, its status follows its router."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from queueworker.controller.discovery import Slices
from queueworker.controller.runner import ObjectRunner
from queueworker.routing.recovery import Unfinished
from queueworker.routing.snapshot import Phase
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_router import FakeRouters
from tests.support.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIRST = {"queue": {"url": "http://queue:8081"}}
SECOND = {"queue": {"url": "http://other:8081"}}


def body(spec: dict[str, Any], generation: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "legacy", "generation": generation},
        "spec": spec,
        "status": status,
    }


class Run:
    def __init__(self, first: dict[str, Any], **secrets: str) -> None:
        self.cluster = FakeCluster(**secrets)
        self.routers = FakeRouters()
        self.announced: list[tuple[str, str]] = []
        self.runner = ObjectRunner(*(first, self.cluster, Slices(), "worker-1", self._announce), factory=self.routers)

    def _announce(self, kind: str, reason: str, message: str) -> None:
        assert message
        self.announced.append((kind, reason))

    async def has_written(self, reason: str) -> None:
        await until(lambda: self.cluster.reasons()[-1:] == [reason])


@asynccontextmanager
async def running(first: dict[str, Any], **secrets: str) -> AsyncIterator[Run]:
    run = Run(first, **secrets)
    task = asyncio.create_task(run.runner.run())
    yield run
    await run.runner.stop(final=True)
    await asyncio.wait_for(task, 5)


async def test_a_valid_spec_starts_a_router_and_the_status_says_so() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        (router,) = run.routers.made
        assert router.config.group == "default/legacy"
        assert [e.url for e in router.endpoints] == ["http://executor-1:8083"]
        assert ("Normal", "Routing") in run.announced


async def test_an_invalid_spec_is_a_condition_and_the_router_goes_on_as_it_was() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.runner.observe(body({"queue": {"url": "queue"}}, 2))
        await run.has_written("InvalidSpec")
        (router,) = run.routers.made
        assert (router.phase, router.config.spec.queue.url) == (Phase.ROUTING, "http://queue:8081")


async def test_the_observed_generation_is_that_of_what_runs() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.runner.observe(body({"queue": {"url": "queue"}}, 2))
        await run.has_written("InvalidSpec")
        assert run.cluster.statuses[-1]["observedGeneration"] == 1
        ready = run.cluster.statuses[-1]["conditions"][0]
        assert (ready["type"], ready["observedGeneration"]) == ("Ready", 2)
        run.runner.observe(body(SECOND, 3))
        await run.has_written("Draining")
        assert run.cluster.statuses[-1]["observedGeneration"] == 1
        run.routers.made[0].end()
        await run.has_written("Routing")
        assert run.cluster.statuses[-1]["observedGeneration"] == 3


async def test_suspension_wins_over_an_invalid_spec() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.runner.observe(body({"queue": {"url": "queue"}, "suspend": True}, 2))
        await until(lambda: run.routers.made[0].config.spec.suspend)
        await until(lambda: run.cluster.statuses[-1]["conditions"][0]["observedGeneration"] == 2)
        assert run.cluster.statuses[-1]["observedGeneration"] == 1


async def test_a_new_object_that_is_suspended_is_ready_whatever_is_wrong_with_it() -> None:
    keyed = FIRST["queue"] | {"apiKeySecretRef": {"name": "key", "key": "k"}}
    async with running(body({"queue": keyed, "suspend": True})) as run:
        await run.has_written("Suspended")
        assert run.routers.made == []
        assert "Secret default/key does not exist" in run.cluster.statuses[-1]["conditions"][0]["message"]


async def test_a_failure_of_the_operator_is_a_condition_until_it_is_over() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.routers.made[0].refuses = RuntimeError("a defect")
        run.runner.observe(body(FIRST | {"suspend": True}, 2))
        await run.has_written("ReconcileFailed")
        status = run.cluster.statuses[-1]
        assert status["observedGeneration"] == 1
        assert "a defect" not in status["conditions"][0]["message"]
        assert "reconciling failed (RuntimeError)" in status["conditions"][0]["message"]
        run.routers.made[0].refuses = None
        await until(lambda: run.cluster.statuses[-1]["observedGeneration"] == 2)


async def test_the_status_shows_the_draining_router_until_its_successor_routes() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        (old,) = run.routers.made
        old.counters.completed = 4
        run.runner.observe(body(SECOND, 2))
        await run.has_written("Draining")
        shown = run.runner.snapshot()
        assert shown is not None
        assert (shown.phase, shown.queue_url) == (Phase.DRAINING, "http://queue:8081")
        old.end()
        await run.has_written("Routing")
        assert run.routers.made[1].config.spec.queue.url == "http://other:8081"
        assert run.cluster.statuses[-1]["tasks"]["completed"] == 4
        assert run.cluster.statuses[-1]["observedGeneration"] == 2


@pytest.mark.parametrize("final", [True, False])
async def test_a_stop_does_not_wait_for_the_tasks_of_a_router_that_is_being_replaced(final: bool) -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.runner.observe(body(SECOND, 2))
        await run.has_written("Draining")
        run.routers.made[0].leaves = Unfinished({"task-1": b"entry"})
        await asyncio.wait_for(run.runner.stop(final=final), 5)
        assert run.routers.made[0].stopped_with == [final]
        assert len(run.routers.made) == (1 if final else 2)


async def test_counts_continue_from_the_status_that_an_earlier_operator_wrote() -> None:
    async with running(body(FIRST, tasks={"completed": 40, "failed": 2})) as run:
        await run.has_written("Routing")
        assert run.cluster.statuses[-1]["tasks"]["routed"] == 42


async def test_the_last_counts_are_written_when_the_operator_ends() -> None:
    run = Run(body(FIRST))
    task = asyncio.create_task(run.runner.run())
    await run.has_written("Routing")
    run.routers.made[0].counters.completed = 9
    await run.runner.stop(final=False)
    await asyncio.wait_for(task, 5)
    assert run.cluster.statuses[-1]["tasks"]["completed"] == 9


async def test_an_api_server_that_is_away_stops_neither_router_nor_deletion() -> None:
    async with running(body(FIRST)) as run:
        run.cluster.error = OSError("refused")
        await until(lambda: run.routers.made)
        await until(lambda: run.routers.made[0].phase is Phase.ROUTING)
        assert run.cluster.statuses == []


async def test_a_missing_secret_is_a_condition_until_it_is_there() -> None:
    keyed = FIRST["queue"] | {"apiKeySecretRef": {"name": "key", "key": "k"}}
    async with running(body({"queue": keyed})) as run:
        await run.has_written("SecretNotFound")
        assert run.routers.made == []
        run.cluster.secrets["key"] = "s3cret"
        run.runner.observe(body({"queue": keyed}))
        await run.has_written("Routing")
        assert run.routers.made[0].config.api_key == "s3cret"


async def test_a_secret_is_read_once_while_it_is_accepted() -> None:
    keyed = FIRST["queue"] | {"apiKeySecretRef": {"name": "key", "key": "k"}}
    async with running(body({"queue": keyed}), key="s3cret") as run:
        await run.has_written("Routing")
        run.runner.observe(body({"queue": keyed, "suspend": True}, 2))
        await until(lambda: run.routers.made[0].config.spec.suspend)
        assert run.cluster.reads == 1
