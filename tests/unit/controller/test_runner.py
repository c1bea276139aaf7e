"""One object: its router follows its spec, its status follows its router."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import ObjectGone, SecretUnavailable, StalePatch
from queueworker.controller.discovery import Slices
from queueworker.controller.handover import handing_over
from queueworker.controller.managed_pool.observed import PoolObjects
from queueworker.controller.runner import ObjectRunner
from queueworker.controller.status import Totals
from queueworker.resource.names import FINALIZER, LABEL_QUEUEWORKER
from queueworker.resource.reasons import Reason
from queueworker.routing.recovery import Unfinished
from queueworker.routing.snapshot import Phase
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_router import FakeRouters
from tests.support.stubs import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from queueworker.controller.events import ObjectEvent

FIRST = {"queue": {"url": "http://queue:8081"}}
SECOND = {"queue": {"url": "http://other:8081"}}


def deleted(spec: dict[str, Any], *finalizers: str) -> dict[str, Any]:
    found = body(spec)
    found["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": list(finalizers)}
    return found


def body(spec: dict[str, Any], generation: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "default",
            "name": "legacy",
            "uid": "uid-1",
            "generation": generation,
            "finalizers": [FINALIZER],
        },
        "spec": spec,
        "status": status,
    }


class Run:
    def __init__(self, first: dict[str, Any], **secrets: str) -> None:
        self.cluster = FakeCluster(**secrets)
        self.routers = FakeRouters()
        self.slices = Slices()
        self.task: asyncio.Task[None] | None = None
        self.announced: list[tuple[str, str]] = []
        self.pool_objects = PoolObjects()
        self.runner = ObjectRunner(
            *(first, self.cluster, self.slices, "worker-1", self._announce),
            factory=self.routers,
            pool_objects=self.pool_objects,
        )

    def _announce(self, event: ObjectEvent) -> None:
        assert event.message
        self.announced.append((event.type, event.reason))

    async def ends(self) -> None:
        assert self.task is not None
        await asyncio.wait_for(self.task, 15)

    async def has_written(self, reason: str) -> None:
        await until(lambda: self.cluster.reasons()[-1:] == [reason])


@asynccontextmanager
async def running(first: dict[str, Any], **secrets: str) -> AsyncIterator[Run]:
    run = Run(first, **secrets)
    run.task = asyncio.create_task(run.runner.run())
    yield run
    await run.runner.stop()
    await run.ends()


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


async def test_a_failure_that_goes_on_has_one_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.routers.made[0].refuses = RuntimeError("a defect")
        for times in range(1, 4):
            run.runner.observe(body(FIRST | {"suspend": True}, 1 + times))
            await until(lambda: run.routers.made[0].refusals >= times)  # noqa: B023 -- called in this turn only
    assert caplog.text.count("a defect") == 1


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
async def test_the_end_does_not_wait_for_the_tasks_of_a_router_that_is_being_replaced(final: bool) -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.runner.observe(body(SECOND, 2))
        await run.has_written("Draining")
        run.routers.made[0].leaves = Unfinished({"task-1": b"entry"})
        if final:
            run.runner.gone()
        await asyncio.wait_for(run.runner.stop(), 5)
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
    await run.runner.stop()
    await asyncio.wait_for(task, 5)
    assert run.cluster.statuses[-1]["tasks"]["completed"] == 9


async def test_an_api_server_that_is_away_stops_neither_router_nor_deletion() -> None:
    async with running(body(FIRST)) as run:
        run.cluster.error = OSError("refused")
        await until(lambda: run.routers.made)
        await until(lambda: run.routers.made[0].phase is Phase.ROUTING)
        assert run.cluster.statuses == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("refused"), "the API server cannot be reached: OSError: refused"),
        (ApiException(status=503, reason="Unavailable"), "the API server answered 503 Unavailable"),
        (ApiException(status=422, reason="Invalid"), "answered 422 Invalid; is its CRD of another version"),
    ],
)
async def test_a_call_that_fails_is_named_with_what_the_api_server_said(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(body(FIRST)) as run:
        run.cluster.error = error
        await until(lambda: said in caplog.text)


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


RELEASE = [
    {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
    {"op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER},
    {"op": "remove", "path": "/metadata/finalizers/1"},
]


async def test_a_new_object_gets_the_finalizer_and_one_that_has_it_is_left_alone() -> None:
    new = body(FIRST)
    new["metadata"] |= {"finalizers": ["other"], "resourceVersion": "7"}
    async with running(new) as run:
        await run.has_written("Routing")
    (patch,) = run.cluster.patches
    assert {"op": "test", "path": "/metadata/resourceVersion", "value": "7"} in patch
    assert patch[-1] == {"op": "add", "path": "/metadata/finalizers", "value": ["other", FINALIZER]}
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
    assert run.cluster.patches == []


async def test_the_answer_to_the_finalizer_is_no_newer_than_an_event_that_came_before_it() -> None:
    new = body(FIRST)
    new["metadata"]["finalizers"] = []
    run = Run(new)

    async def answer_late(*_: object) -> dict[str, Any]:
        run.runner.observe(body(FIRST | {"suspend": True}, 2))
        return body(FIRST)

    run.cluster.patch_object = answer_late  # type: ignore[assignment,method-assign]
    run.task = asyncio.create_task(run.runner.run())
    await run.has_written("Routing")
    await until(lambda: run.routers.made[0].config.spec.suspend)
    await run.runner.stop()
    await run.ends()


async def test_an_object_is_routed_for_although_its_finalizer_cannot_be_set_which_the_log_has_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = body(FIRST)
    new["metadata"]["finalizers"] = []
    run = Run(new)
    run.cluster.patch_errors = [ApiException(status=403, reason="Forbidden")] * 3
    run.task = asyncio.create_task(run.runner.run())
    await run.has_written("Routing")
    for times in range(2, 4):
        run.runner.surroundings_changed()
        await until(lambda: len(run.cluster.patches) >= times)  # noqa: B023 -- called in this turn only
    await run.runner.stop()
    await run.ends()
    assert caplog.text.count("the finalizer cannot be set: 403 Forbidden: allow patch on queueworkers") == 1


async def test_what_is_wrong_with_the_spec_or_a_secret_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(body({"queue": FIRST["queue"] | {"apiKeySecretRef": {"name": "key", "key": "k"}}})) as run:
        await run.has_written("SecretNotFound")
        run.runner.observe(body({"queue": {"url": "queue"}}, 2))
        await run.has_written("InvalidSpec")
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert ["Secret default/key" in text for text in warnings] == [True, False]
    assert warnings[1].startswith("default/legacy: spec.queue.url: ")


async def test_a_deleted_object_is_drained_for_good_and_then_released() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.runner.observe(deleted(FIRST, "other", FINALIZER))
        await run.ends()
        assert run.routers.made[0].stopped_with == [True]
        assert run.cluster.patches == [RELEASE]


async def test_the_release_is_tried_again_until_it_is_done() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.cluster.patch_errors = [ApiException(status=403, reason="Forbidden"), StalePatch()]
        run.cluster.found = deleted(FIRST, FINALIZER)
        run.runner.observe(deleted(FIRST, "other", FINALIZER))
        await run.ends()
        first, second, third = run.cluster.patches
        assert first == second == RELEASE
        assert third[-1] == {"op": "remove", "path": "/metadata/finalizers/0"}, "as the object was read again"


def refused() -> StalePatch:
    """As a validation or a webhook refuses a patch, which looks like a test of the patch that failed."""
    error = StalePatch()
    error.__cause__ = ApiException(status=422, reason="Unprocessable Entity")
    return error


async def test_a_finalizer_whose_removal_is_refused_is_named_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.cluster.patch_errors = [refused(), refused()]
        run.cluster.found = deleted(FIRST, FINALIZER)
        run.runner.observe(deleted(FIRST, FINALIZER))
        await run.ends()
        assert len(run.cluster.patches) == 3
    assert caplog.text.count("the finalizer cannot be removed yet: 422 Unprocessable Entity") == 1


async def test_the_end_of_the_term_does_not_wait_for_a_release_that_is_refused() -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.cluster.patch_errors = [ApiException(status=403)] * 100
        run.runner.observe(deleted(FIRST, "other", FINALIZER))
        await until(lambda: run.cluster.patches)
        await asyncio.wait_for(run.runner.stop(), 5)
        await run.ends()


@pytest.mark.parametrize("how", ["event", "status"])
async def test_an_object_that_is_gone_ends_its_runner(how: str) -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        written = len(run.cluster.statuses)
        if how == "event":
            run.runner.gone()
        else:
            run.cluster.error = ObjectGone()
            run.runner.observe(body(FIRST | {"suspend": True}, 2))
        await run.ends()
        assert run.routers.made[0].stopped_with == [True]
        assert run.cluster.patches == [], "there is nothing to release"
        assert len(run.cluster.statuses) == written, "another object may have its name by now"


async def test_what_is_in_the_journal_of_an_object_that_was_deleted_while_nobody_led_is_reported_first() -> None:
    async with running(deleted(FIRST, "other", FINALIZER)) as run:
        await until(lambda: run.routers.made)
        (router,) = run.routers.made
        assert router.config.spec.suspend, "nothing new is pulled"
        router.in_flight = 1
        await asyncio.sleep(0.3)
        assert run.cluster.patches == []
        router.in_flight = 0
        await run.ends()
        assert router.stopped_with == [True]
        assert run.cluster.patches == [RELEASE]


KEYED = {"queue": FIRST["queue"] | {"apiKeySecretRef": {"name": "key", "key": "k"}}}


@pytest.mark.parametrize("error", [TimeoutError(), SecretUnavailable("503", Reason.SECRET_READ_FAILED)])
async def test_a_deleted_object_waits_for_a_secret_that_the_api_server_does_not_hand_out_yet(error: Exception) -> None:
    run = Run(deleted(KEYED, "other", FINALIZER), key="s3cret")
    run.cluster.secret_errors = [error]
    run.task = asyncio.create_task(run.runner.run())
    await run.ends()
    assert [router.stopped_with for router in run.routers.made] == [[True]], "what is in its journal is reported"
    assert run.cluster.patches == [RELEASE]


async def test_a_deleted_object_waits_for_the_first_list_of_slices() -> None:
    run = Run(deleted(BY_SERVICE, "other", FINALIZER))
    run.task = asyncio.create_task(run.runner.run())
    await asyncio.sleep(0.1)
    assert run.cluster.patches == []
    run.slices.listed("default", [], ())
    await run.ends()
    assert [router.stopped_with for router in run.routers.made] == [[True]], "what is in its journal is reported"
    assert run.cluster.patches == [RELEASE]


async def test_the_next_leader_finds_the_finalizer_of_a_deleted_object_whose_secret_could_not_be_read() -> None:
    run = Run(deleted(KEYED, "other", FINALIZER), key="s3cret")
    run.cluster.secret_errors = [TimeoutError()] * 100
    run.task = asyncio.create_task(run.runner.run())
    await until(lambda: run.cluster.reads)
    await asyncio.wait_for(run.runner.stop(), 5)
    await run.ends()
    assert run.cluster.patches == []


async def test_a_deleted_object_whose_secret_is_gone_is_released_at_once() -> None:
    async with running(deleted(KEYED, "other", FINALIZER)) as run:
        await run.ends()
        assert run.routers.made == []
        assert run.cluster.patches == [RELEASE]


async def test_a_deleted_object_without_a_usable_spec_is_released_at_once() -> None:
    async with running(deleted({"queue": {"url": "queue"}}, "other", FINALIZER)) as run:
        await run.ends()
        assert run.routers.made == []
        assert run.cluster.patches == [RELEASE]


async def test_a_deleted_object_goes_although_its_end_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with running(body(FIRST)) as run:
        await run.has_written("Routing")
        run.routers.made[0].cannot_stop = RuntimeError("a defect")
        run.runner.observe(deleted(FIRST, "other", FINALIZER))
        await run.ends()
        assert run.cluster.patches == [RELEASE]
    assert "a step of the end failed" in caplog.text


TEMPLATE = {"spec": {"containers": [{"name": "executor", "image": "executor:1"}]}}


async def test_the_http_api_has_the_condition_of_the_pool_as_the_status_has_it() -> None:
    async with running(body(FIRST | {"executors": {"template": TEMPLATE}})) as run:
        run.slices.listed("default", [], ())
        await until(lambda: "PoolReady" in str(run.cluster.statuses[-1:]))
        written = [(c["type"], c["reason"]) for c in run.cluster.statuses[-1]["conditions"]]
        assert [(c.type, c.reason) for c in run.runner.view().conditions][-1] == written[-1]


async def test_the_status_is_written_although_changes_of_the_pool_are_not_answered_in_time() -> None:
    """A webhook that hangs holds them up for longer than we wait; the rest of the API server works."""
    run = Run(body(FIRST | {"executors": {"template": TEMPLATE}}))
    run.cluster.refusals = {"StatefulSet": TimeoutError()}
    for watched in (run.slices, run.pool_objects.stateful_sets, run.pool_objects.pods):
        watched.listed("", [], ())
    run.task = asyncio.create_task(run.runner.run())
    await until(lambda: "not answer" in str(run.cluster.statuses[-1:]))
    (pool,) = [c for c in run.cluster.statuses[-1]["conditions"] if c["type"] == "PoolReady"]
    assert (pool["status"], pool["reason"]) == ("False", "Progressing")
    await run.runner.stop()
    await run.ends()


async def test_the_pool_of_an_object_that_is_deleted_without_it_stays() -> None:
    async with running(body(FIRST | {"executors": {"template": TEMPLATE}})) as run:
        run.slices.listed("default", [], ())
        for watched in (run.pool_objects.stateful_sets, run.pool_objects.pods):
            watched.listed("", [], ())
        await until(lambda: ("StatefulSet", "legacy-executor") in run.cluster.objects)
        run.runner.observe(deleted(FIRST | {"executors": {"template": TEMPLATE}}, "orphan", FINALIZER))
        await run.ends()
        assert "DELETE" not in [method for method, *_ in run.cluster.requests]
        assert len(run.cluster.patches) == 1, "our finalizer is removed"


@pytest.mark.parametrize("refusals", [{}, {"Pods": ApiException(status=403)}, {"StatefulSet": TimeoutError()}])
async def test_the_pool_of_a_deleted_object_goes_before_its_finalizer_which_waits_for_no_error(
    refusals: dict[str, Exception],
) -> None:
    async with running(body(FIRST | {"executors": {"template": TEMPLATE}})) as run:
        run.slices.listed("default", [], ())
        for watched in (run.pool_objects.stateful_sets, run.pool_objects.pods):
            watched.listed("", [], ())
        await until(lambda: ("StatefulSet", "legacy-executor") in run.cluster.objects)
        metadata = {"namespace": "default", "name": "legacy-executor-1", "uid": "uid-2"}
        run.pool_objects.pods.changed(None, {"metadata": metadata | {"labels": {LABEL_QUEUEWORKER: "legacy"}}})
        run.cluster.requests.clear()
        run.cluster.refusals = refusals
        run.runner.observe(deleted(FIRST | {"executors": {"template": TEMPLATE}}, "other", FINALIZER))
        await run.ends()
        deletions = [(kind, name) for method, kind, name, _ in run.cluster.requests if method == "DELETE"]
        assert deletions[:1] == [("Pods", "legacy-executor-1")]
        assert "Pods" in refusals or deletions[1:] == [("StatefulSet", "legacy-executor")]
        assert run.cluster.patches == [RELEASE]


@pytest.mark.parametrize("name", ["my.worker", "x" * 63])
async def test_a_name_that_no_service_can_have_ends_neither_the_reading_of_a_template_nor_the_deletion(
    name: str,
) -> None:
    given = body(FIRST | {"executors": {"template": TEMPLATE}})
    given["metadata"]["name"] = name
    async with running(given) as run:
        run.slices.listed("default", [], ())
        run.runner.surroundings_changed()
        await run.has_written("NoExecutors")
        run.runner.observe(given | {"metadata": given["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        await run.ends()
        assert len(run.cluster.patches) == 1


BY_SERVICE = FIRST | {"executors": {"service": {"name": "executor"}}}


async def test_an_object_waits_for_the_first_list_of_slices() -> None:
    async with running(body(BY_SERVICE)) as run:
        await run.has_written("Starting")
        assert run.routers.made == []
        run.slices.listed("default", [], ())
        run.runner.surroundings_changed()
        await run.has_written("NoExecutors")


async def test_slices_that_cannot_be_watched_are_a_problem_of_the_objects_that_use_them_only() -> None:
    for spec, problem in ((BY_SERVICE, True), (FIRST, False)):
        run = Run(body(spec))
        run.slices.watch_changed("default", "403 Forbidden")
        run.task = asyncio.create_task(run.runner.run())
        await until(lambda: run.cluster.statuses)  # noqa: B023 -- called in this turn only
        text = str(run.cluster.statuses[-1]["conditions"])
        assert ("DiscoveryFailed" in text and "403 Forbidden" in text) is problem
        await run.runner.stop()
        await run.ends()


async def test_counts_that_an_earlier_leader_left_are_added_once() -> None:
    first = body(FIRST, tasks={"completed": 40, "failed": 2})
    first["metadata"]["annotations"] = handing_over("old", Totals(completed=5))["metadata"]["annotations"]
    async with running(first) as run:
        await run.has_written("Routing")
        assert run.cluster.statuses[-1]["tasks"]["completed"] == 45
        (patch,) = run.cluster.patches
        assert [op["op"] for op in patch] == ["test", "remove"]
        run.cluster.patch_errors = [StalePatch()]
        run.cluster.found = first
        run.runner.observe(first)
        await until(lambda: len(run.cluster.patches) == 2)
    assert run.cluster.statuses[-1]["tasks"]["completed"] == 45


async def test_an_object_is_routed_for_although_the_counts_that_were_left_cannot_be_taken() -> None:
    left = body(FIRST)
    left["metadata"]["annotations"] = handing_over("old-1", Totals(completed=7))["metadata"]["annotations"]
    run = Run(left)
    run.cluster.patch_errors = [ApiException(status=500, reason="the webhook is away")] * 100
    run.task = asyncio.create_task(run.runner.run())
    await run.has_written("Routing")
    await run.runner.stop()
    await run.ends()


async def test_a_leader_whose_successor_routes_already_leaves_it_the_counts_and_no_status() -> None:
    run = Run(body(FIRST))
    run.task = asyncio.create_task(run.runner.run())
    await run.has_written("Routing")
    (router,) = run.routers.made
    router.waits_to_end = True
    router.counters.completed = 9
    stopping = asyncio.create_task(run.runner.stop())
    await run.has_written("Draining")
    assert run.cluster.statuses[-1]["tasks"]["completed"] == 9
    written = len(run.cluster.statuses)
    router.rivals, router.counters.completed = 1, 12
    router.end()
    await asyncio.wait_for(stopping, 5)
    assert len(run.cluster.statuses) == written
    assert run.cluster.patches == [handing_over("worker-1", Totals(completed=3))]
