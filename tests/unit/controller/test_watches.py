"""A watch stands on its own feet: it is refused, ends, and is tried again, and the list is the truth."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import Cluster
from queueworker.controller.kinds import QUEUE_WORKERS, Kind
from queueworker.controller.watches import Watch, WatchTimes
from tests.support.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from queueworker.controller.handlers import Heard

TIMES = WatchTimes(probe=0.02, settle=0.01, retry_first=0.01, retry_max=0.04, list_probes=2)
NO_LISTS = replace(TIMES, list_probes=10**9)
"""None but for a reason."""
FORBIDDEN = ApiException(status=403, reason="Forbidden")


def body(name: str, namespace: str = "team") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}}


class Api(Cluster):
    """Lists what the test says; `error` is raised by every call while it is set."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.bodies: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.served = True
        self.lists = self.probes = 0
        self.during_list: Callable[[], None] = lambda: None

    async def list_all(self, kind: Kind, namespace: str) -> list[dict[str, Any]]:
        self.lists += 1
        found = list(self.bodies)
        self.during_list()
        self._raise()
        return found

    async def probe(self, kind: Kind, namespace: str) -> None:
        self.probes += 1
        self._raise()

    async def is_served(self, kind: Kind) -> bool:
        return self.served

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


class Kopf:
    """Stands in for kopf: `end` ends what runs now."""

    def __init__(self) -> None:
        self.starts = 0
        self.running = 0
        self.refused: Exception | None = None
        """Ends it at once."""
        self.heard: Heard = lambda _type, _body: None
        self.relisted: Callable[[], None] = lambda: None
        self._end: asyncio.Future[None] | None = None

    async def __call__(
        self,
        kind: Kind,
        namespace: str,
        cluster: Cluster,
        heard: Heard,
        on_relist: Callable[[], None],
        claim_signals: Callable[[], None],
        stop: asyncio.Event,
    ) -> None:
        self.starts += 1
        if self.refused is not None:
            raise self.refused
        self.running += 1
        self.heard, self.relisted = heard, on_relist
        self._end = asyncio.get_running_loop().create_future()
        try:
            while not stop.is_set() and not self._end.done():
                await asyncio.sleep(0.001)
            if self._end.done():
                self._end.result()
        finally:
            self.running -= 1

    def end(self, error: BaseException | None = None) -> None:
        assert self._end is not None
        self._end.set_exception(error) if error else self._end.set_result(None)


class Followed:
    def __init__(self) -> None:
        self.events: list[tuple[str | None, str]] = []
        self.lists: list[tuple[list[str], list[str]]] = []
        self.problems: list[str] = []

    def changed(self, event: str | None, body: dict[str, Any]) -> None:
        self.events.append((event, body["metadata"]["name"]))

    def listed(self, namespace: str, bodies: Sequence[dict[str, Any]], newer: Collection[tuple[str, str]]) -> None:
        self.lists.append(([b["metadata"]["name"] for b in bodies], [name for _, name in newer]))

    def watch_changed(self, namespace: str, problem: str) -> None:
        self.problems.append(problem)


class Run:
    def __init__(self, times: WatchTimes) -> None:
        self.api, self.kopf, self.followed = Api(), Kopf(), Followed()
        self.watch = Watch(QUEUE_WORKERS, "team", self.api, self.followed, lambda: None, times=times, server=self.kopf)


@asynccontextmanager
async def watching(times: WatchTimes = TIMES, **api: Any) -> AsyncIterator[Run]:
    run = Run(times)
    for name, value in api.items():
        setattr(run.api, name, value)
    task = asyncio.create_task(run.watch.run())
    yield run
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.kopf.running == 0, "kopf ends with its watch"


async def test_it_is_up_with_the_first_list_and_passes_events_on() -> None:
    async with watching(bodies=[body("a")]) as run:
        assert not run.watch.up
        await until(lambda: run.kopf.starts)
        assert run.watch.up
        assert run.followed.lists == [(["a"], [])]
        run.kopf.heard("MODIFIED", body("a"))
        assert run.followed.events == [("MODIFIED", "a")]
        assert run.followed.problems == []


async def test_all_objects_are_listed_again_and_again_and_events_that_came_meanwhile_are_newer() -> None:
    async with watching() as run:
        await until(lambda: run.kopf.starts)
        run.api.during_list = lambda: run.kopf.heard("ADDED", body("new"))
        await until(lambda: len(run.followed.lists) > 2)
        assert run.followed.lists[-1] == ([], ["new"])
        assert run.kopf.starts == 1


async def test_all_objects_are_listed_at_the_next_probe_after_kopf_has_listed_again() -> None:
    async with watching(NO_LISTS) as run:
        await until(lambda: run.api.probes > 1)
        assert run.api.lists == 1
        run.kopf.relisted()
        await until(lambda: run.api.lists == 2)
        probes = run.api.probes
        await until(lambda: run.api.probes > probes + 1)
        assert run.api.lists == 2, "once is enough"


async def test_all_objects_are_listed_after_the_api_server_was_away() -> None:
    async with watching(NO_LISTS, bodies=[body("gone")]) as run:
        await until(lambda: run.kopf.starts)
        run.api.error = OSError("refused")
        await until(lambda: not run.watch.up)
        run.api.bodies, run.api.error = [], None
        await until(lambda: run.watch.up)
        assert run.followed.lists[-1] == ([], [])
        assert run.kopf.starts == 1


@pytest.mark.parametrize("error", [FORBIDDEN, ApiException(status=401), ApiException(status=404)])
async def test_a_refusal_is_named_once_and_tried_again_until_it_is_over(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(error=error) as run:
        await until(lambda: run.api.lists > 3)
        assert (run.watch.up, run.watch.tried.is_set(), run.kopf.starts) == (False, True, 0)
        assert len([r for r in caplog.records if "cannot be watched" in r.message]) == 1
        assert "QueueWorkers in namespace team" in caplog.text
        run.api.error = None
        await until(lambda: run.watch.up)
        await until(lambda: "can be watched again" in caplog.text)
        assert run.followed.problems == [str(error.status) + (" Forbidden" if error is FORBIDDEN else ""), ""]  # type: ignore[attr-defined]


async def test_a_right_that_is_lost_while_the_watch_is_open_ends_kopf_and_its_return_starts_it_anew() -> None:
    async with watching() as run:
        await until(lambda: run.kopf.starts)
        run.api.error = FORBIDDEN
        await until(lambda: not run.watch.up and run.kopf.running == 0)
        run.api.error = None
        await until(lambda: run.watch.up)
        assert run.kopf.starts == 2


async def test_kopf_goes_on_while_the_api_server_is_away() -> None:
    async with watching() as run:
        await until(lambda: run.kopf.starts)
        run.api.error = OSError("refused")
        await until(lambda: not run.watch.up)
        probes = run.api.probes
        await until(lambda: run.api.probes > probes + 2)
        run.api.error = None
        await until(lambda: run.watch.up)
        assert (run.kopf.starts, run.kopf.running) == (1, 1)


async def test_kopf_is_started_again_when_it_ends_by_itself() -> None:
    async with watching() as run:
        for n, error in enumerate((None, RuntimeError("a bug"), FORBIDDEN, asyncio.CancelledError()), 1):
            await until(lambda: run.kopf.starts == n and run.kopf.running)  # noqa: B023 -- called in this turn only
            run.kopf.end(error)
            await until(lambda: run.kopf.starts == n + 1)  # noqa: B023 -- called in this turn only
        await until(lambda: run.watch.up)


async def test_a_watch_that_is_refused_although_the_list_is_not_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async with watching() as run:
        run.kopf.refused = FORBIDDEN
        await until(lambda: run.kopf.starts > 3)
        assert len([r for r in caplog.records if "cannot be watched: 403" in r.message]) == 1


async def test_kopf_is_not_started_before_the_kind_is_served() -> None:
    async with watching(served=False) as run:
        await until(lambda: run.api.lists > 2)
        assert run.kopf.starts == 0
        run.api.served = True
        await until(lambda: run.watch.up)


async def test_a_restart_lists_again_and_starts_kopf_anew() -> None:
    async with watching() as run:
        await until(lambda: run.kopf.starts)
        run.watch.restart()
        await until(lambda: run.kopf.starts == 2)
        assert run.watch.up
