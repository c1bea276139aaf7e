"""One runner for each object, for as long as the object exists."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from queueworker.controller.objects import Objects
from queueworker.controller.registry import Registry
from queueworker.resource.names import FINALIZER
from tests.support.stubs import until


def body(name: str, uid: str = "1", namespace: str = "team", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "uid": uid, **metadata}}


def deleted(name: str, *finalizers: str) -> dict[str, Any]:
    return body(name, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=list(finalizers))


class Runner:
    def __init__(self, body: dict[str, Any]) -> None:
        self.namespace, self.name = body["metadata"]["namespace"], body["metadata"]["name"]
        self.uid = body["metadata"]["uid"]
        self.seen = [body]
        self.told: list[str] = []
        self.drained = asyncio.Event()
        """`stop` after a failure ends then."""
        self._ended = asyncio.Event()
        self._error: BaseException | None = None

    def observe(self, body: dict[str, Any]) -> None:
        self.seen.append(body)

    @property
    def body(self) -> dict[str, Any]:
        return self.seen[-1]

    def gone(self) -> None:
        self.told.append("gone")

    async def stop(self) -> None:
        self.told.append("stop")
        if self._error is not None:
            await self.drained.wait()
        self.end()

    async def run(self) -> None:
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def end(self, error: BaseException | None = None) -> None:
        self._error = error
        self._ended.set()


class Run:
    def __init__(self) -> None:
        self.registry = Registry()
        self.made: list[Runner] = []
        self.objects = Objects(self.registry, self._make, restart_seconds=0)

    def _make(self, body: dict[str, Any]) -> Any:
        self.made.append(Runner(body))
        return self.made[-1]

    def known(self) -> list[str]:
        return sorted(name for _, name in self.registry.runners)


async def test_an_object_has_one_runner_that_sees_its_changes() -> None:
    run = Run()
    run.objects.changed(None, body("a"))
    run.objects.changed("MODIFIED", body("a", generation=2))
    (runner,) = run.made
    assert len(runner.seen) == 2
    await run.objects.close()
    assert runner.told == ["stop"]
    assert run.known() == []


async def test_a_deletion_and_an_absence_in_the_list_both_mean_that_the_object_is_gone() -> None:
    run = Run()
    for name in ("a", "b", "c", "new"):
        run.objects.changed(None, body(name))
    run.objects.changed(None, body("other", namespace="elsewhere"))
    run.objects.changed("DELETED", body("a"))
    run.objects.listed("team", [body("a"), body("c"), body("d")], {("team", "a"), ("team", "new")})
    assert {r.name: r.told for r in run.made} == {
        "a": ["gone"],
        "b": ["gone"],
        "c": [],
        "new": [],
        "other": [],
        "d": [],
    }
    run.objects.listed("", [body("c")], ())
    assert {r.name for r in run.made if not r.told} == {"c"}


async def test_an_object_of_the_same_name_starts_when_its_predecessor_has_ended() -> None:
    run = Run()
    run.objects.changed(None, body("a"))
    run.objects.changed("ADDED", body("a", uid="2"))
    run.objects.changed("MODIFIED", body("a", uid="2", generation=2))
    run.objects.changed("DELETED", body("a"))
    (first,) = run.made
    assert set(first.told) == {"gone"}
    first.end()
    await until(lambda: len(run.made) == 2)
    assert run.made[1].seen[0]["metadata"]["generation"] == 2
    assert run.made[1].told == []


async def test_a_successor_that_is_deleted_too_never_starts() -> None:
    run = Run()
    run.objects.changed(None, body("a"))
    run.objects.changed("ADDED", body("a", uid="2"))
    run.objects.changed("DELETED", body("a", uid="2"))
    run.made[0].end()
    await until(lambda: not run.known())
    assert len(run.made) == 1


async def test_a_deleted_object_is_ours_only_while_it_has_our_finalizer() -> None:
    run = Run()
    run.objects.changed(None, deleted("theirs", "other"))
    run.objects.changed(None, deleted("ours", "other", FINALIZER))
    assert run.known() == ["ours"]
    run.made[0].end()
    await until(lambda: not run.known())
    run.objects.changed("MODIFIED", deleted("ours", FINALIZER))
    assert run.known() == [], "a late event does not begin its end again"


@pytest.mark.parametrize("error", [RuntimeError("a defect"), asyncio.CancelledError()])
async def test_a_runner_that_failed_drains_its_router_before_another_one_starts(error: BaseException) -> None:
    run = Run()
    for found in (body("a"), deleted("b", FINALIZER)):
        run.objects.changed(None, found)
    first = list(run.made)
    for runner in first:
        runner.end(error)
    await until(lambda: all(runner.told == ["stop"] for runner in first))
    run.objects.changed("MODIFIED", body("a", generation=2))
    assert len(run.made) == 2, "a second router of an object would not know of the first one"
    assert run.registry.present == {("team", "a"), ("team", "b")}
    for runner in first:
        runner.drained.set()
    await until(lambda: len(run.made) == 4)
    assert run.known() == ["a", "b"]
    assert {runner.name: runner.seen[0]["metadata"].get("generation") for runner in run.made[2:]} == {"a": 2, "b": None}


async def test_a_runner_that_failed_at_the_end_of_its_object_has_no_successor() -> None:
    run = Run()
    run.objects.changed(None, body("a"))
    run.objects.changed("DELETED", body("a"))
    (runner,) = run.made
    runner.drained.set()
    runner.end(RuntimeError("a defect"))
    await until(lambda: not run.known())
    assert run.registry.present == set()
    assert len(run.made) == 1


async def test_nothing_starts_when_the_term_ends() -> None:
    run = Run()
    await run.objects.close()
    run.objects.changed(None, body("a"))
    assert run.made == []


async def test_an_object_without_a_runner_makes_the_operator_unready() -> None:
    run = Run()
    run.objects.changed(None, body("a"))
    run.registry.mark_alive()
    run.registry.leading = True
    del run.registry.runners["team", "a"]
    run.registry.watches = [_Up()]  # type: ignore[list-item]
    assert run.registry.ready() == (False, "leading, but nothing runs for team/a")


async def test_a_leader_that_lost_the_lease_is_unready_until_its_routers_have_drained() -> None:
    run = Run()
    run.registry.mark_alive()
    run.objects.changed(None, body("a"))
    run.registry.see_leader("other")
    assert run.registry.ready() == (False, "other leads; draining 1 router of the last term")
    await run.objects.close()
    assert run.registry.ready() == (True, "standing by; other leads")


class _Up:
    def __init__(self) -> None:
        from queueworker.controller.kinds import QUEUE_WORKERS

        self.kind, self.up, self.problem = QUEUE_WORKERS, True, ""


def test_a_replica_that_the_api_server_does_not_answer_says_what_that_means() -> None:
    registry = Registry("pod-b")
    assert registry.operator().unready == "the API server has not answered since the start; no standby can take over"
    registry.leading = True
    assert registry.operator().unready.endswith("; routing continues with the last known objects")
    registry.leading = False
    registry.mark_alive()
    assert registry.operator().unready == ""


def test_a_replica_that_may_not_have_the_lease_is_no_standby() -> None:
    registry = Registry("pod-b")
    registry.mark_alive()
    registry.see_lease_refusal("the Lease is refused: 403 Forbidden")
    assert registry.ready() == (False, "this replica cannot lead: the Lease is refused: 403 Forbidden")
    registry.leading = True
    assert "cannot lead" not in registry.ready()[1]
    registry.leading = False
    registry.see_lease_refusal("")
    assert registry.ready() == (True, "standing by; nobody leads")
