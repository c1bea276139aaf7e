"""The object's status as a function of what its router shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queueworker.controller.conditions import Problems, SecretProblem, condition_states
from queueworker.controller.events import event_for
from queueworker.controller.status import Totals, build, merge_patch, migration, read, transition
from queueworker.resource.reasons import ConditionType, Reason
from queueworker.resource.spec import MigrationSpec, QueueWorkerSpec
from queueworker.resource.status import MAX_ENDPOINTS, MAX_MESSAGE, Condition, MigrationStatus, QueueWorkerStatus
from queueworker.routing.config import Intent
from queueworker.routing.counters import Counters
from queueworker.routing.snapshot import ExecutorSnapshot, Link, LinkReason, Phase, Snapshot

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
GOOD = Link(LinkReason.CONNECTED)
AWAY = Link(LinkReason.CONNECTION_FAILED, "queue cannot be reached")


def executor(number: int, **changed: Any) -> ExecutorSnapshot:
    made = ExecutorSnapshot(f"executor-{number}", f"http://executor-{number}", True, 1, 2, 1_767_323_000.5, "")
    return replace(made, **changed)


def sick(number: int, **changed: Any) -> ExecutorSnapshot:
    return executor(number, healthy=False, reason="no answer", **changed)


NO_EXECUTORS = "there are no executors that may get tasks: see spec.executors (count, endpoints, service, drained)"
HEALTHY = Snapshot(
    group="ns/legacy",
    worker_id="w",
    intent=Intent.ROUTE,
    phase=Phase.ROUTING,
    executors=(executor(1), executor(2)),
    queue=GOOD,
    events=GOOD,
    journal=GOOD,
    queue_url="http://queue",
    queue_depth=3,
    consecutive_errors=0,
    last_task_time=1_767_323_045.9,
    in_flight=2,
    events_buffered=0,
    per_minute=7,
    counters=Counters(completed=5, failed=2, retried=1),
)


def found(snapshot: Snapshot | None, **problems: str) -> dict[str, tuple[str, str, str]]:
    made: Any = {name: SecretProblem(text) if name.endswith("secret") else text for name, text in problems.items()}
    return {
        str(kind): (status, str(reason), text)
        for kind, status, reason, text in condition_states(snapshot, Problems(**made))
    }


@pytest.mark.parametrize(
    ("snapshot", "problems", "status", "reason", "message"),
    [
        (HEALTHY, {}, "True", "Routing", "routing to 2 of 2"),
        (HEALTHY, {"spec": "spec.x: bad"}, "False", "InvalidSpec", "spec.x: bad"),
        (HEALTHY, {"queue_secret": "no Secret"}, "False", "SecretNotFound", "no Secret"),
        (HEALTHY, {"redis_secret": "no Secret"}, "False", "SecretNotFound", "no Secret"),
        (None, {}, "False", "Starting", "starting"),
        (replace(HEALTHY, phase=Phase.STARTING), {}, "False", "Starting", "starting"),
        (
            replace(HEALTHY, executors=(executor(1, last_check=None),)),
            {},
            "False",
            "Starting",
            "first health check",
        ),
        (replace(HEALTHY, phase=Phase.DRAINING), {}, "False", "Draining", "2 tasks"),
        (replace(HEALTHY, phase=Phase.IDLE, intent=Intent.SUSPEND), {}, "True", "Suspended", "spec.suspend"),
        (replace(HEALTHY, phase=Phase.IDLE, intent=Intent.STANDBY), {}, "True", "Standby", "celeryPercent 100"),
        (replace(HEALTHY, phase=Phase.IDLE, intent=Intent.SUSPEND, queue=AWAY), {}, "True", "Suspended", ""),
        (replace(HEALTHY, queue=AWAY), {}, "False", "QueueUnreachable", "cannot be reached"),
        (replace(HEALTHY, queue=Link()), {}, "True", "Routing", ""),
        (
            replace(HEALTHY, executors=(sick(1), sick(2))),
            {},
            "False",
            "NoExecutors",
            "executor-1: no answer; executor-2",
        ),
        (replace(HEALTHY, executors=()), {}, "False", "NoExecutors", NO_EXECUTORS),
        (replace(HEALTHY, executors=()), {"discovery": "no slices"}, "False", "NoExecutors", "no slices"),
        (replace(HEALTHY, executors=(executor(1), sick(2))), {}, "True", "Routing", "routing to 1 of 2"),
        (
            replace(HEALTHY, executors=(executor(1, leaving=True),)),
            {},
            "False",
            "NoExecutors",
            NO_EXECUTORS,
        ),
        (replace(HEALTHY, journal=AWAY, events=AWAY), {}, "True", "Routing", ""),
    ],
)
def test_ready_says_what_the_router_does_or_why_it_does_not(
    snapshot: Snapshot | None, problems: dict[str, str], status: str, reason: str, message: str
) -> None:
    got = found(snapshot, **problems)["Ready"]
    assert got[:2] == (status, reason)
    assert message in got[2]
    assert got[2], "a reader is always told why"


SUSPENDED = replace(HEALTHY, phase=Phase.IDLE, intent=Intent.SUSPEND)


@pytest.mark.parametrize(
    ("snapshot", "problems", "status", "reason"),
    [
        (None, Problems(spec="spec.x: bad", suspended=True), "True", "Suspended"),
        (SUSPENDED, Problems(queue_secret=SecretProblem("no Secret"), suspended=True), "True", "Suspended"),
        (SUSPENDED, Problems(failure="failed", suspended=True), "True", "Suspended"),
        (replace(SUSPENDED, phase=Phase.DRAINING), Problems(spec="bad", suspended=True), "False", "Draining"),
        (HEALTHY, Problems(failure="failed", suspended=True), "False", "ReconcileFailed"),
        (SUSPENDED, Problems(spec="spec.x: bad"), "False", "InvalidSpec"),
        (HEALTHY, Problems(queue_secret=SecretProblem("bad", Reason.INVALID_SECRET)), "False", "InvalidSecret"),
    ],
)
def test_suspension_wins_over_everything_that_is_wrong_once_it_holds(
    snapshot: Snapshot | None, problems: Problems, status: str, reason: str
) -> None:
    ready = condition_states(snapshot, problems)[0]
    assert (ready.status, str(ready.reason)) == (status, reason)
    if status == "True":
        assert all(text in ready.message for text in problems.texts)


def test_a_value_of_a_secret_that_is_gone_is_named_in_the_conditions() -> None:
    got = found(HEALTHY, queue_note="Secret ns/key is gone")
    assert got["QueueReachable"] == ("True", "Connected", "Secret ns/key is gone")
    assert got["Ready"][2].endswith("; Secret ns/key is gone")
    got = found(HEALTHY, redis_note="Secret ns/redis is gone")
    assert got["JournalWritable"][2] == got["EventsPublished"][2] == "Secret ns/redis is gone"


def test_credentials_in_urls_are_shown_in_no_status() -> None:
    url = "http://user:hunter2@executor"
    shown = built(
        replace(
            HEALTHY,
            queue=Link(LinkReason.CONNECTION_FAILED, f"queue {url} is away"),
            executors=(executor(1, healthy=False, url=url, reason=f"no answer from {url}"),),
        )
    )
    assert "hunter2" not in shown.model_dump_json()


@pytest.mark.parametrize(
    ("executors", "status", "reason"),
    [
        ((executor(1), executor(2)), "True", "AllHealthy"),
        ((executor(1), sick(2)), "True", "SomeUnhealthy"),
        ((executor(1), sick(2, leaving=True)), "True", "AllHealthy"),
        ((sick(1),), "False", "NoneHealthy"),
        ((), "False", "NoneHealthy"),
        ((executor(1, healthy=False, last_check=None),), "Unknown", "Unknown"),
    ],
)
def test_executors_available(executors: tuple[ExecutorSnapshot, ...], status: str, reason: str) -> None:
    assert found(replace(HEALTHY, executors=executors))["ExecutorsAvailable"][:2] == (status, reason)
    assert found(HEALTHY, discovery="none")["ExecutorsAvailable"] == ("False", "DiscoveryFailed", "none")


def test_many_sick_executors_are_named_in_part() -> None:
    text = found(replace(HEALTHY, executors=tuple(sick(i) for i in range(10))))["ExecutorsAvailable"][2]
    assert text.count("no answer") == 3
    assert text.endswith("and 7 more")


@pytest.mark.parametrize("part", ["queue", "events", "journal"])
@pytest.mark.parametrize("reason", LinkReason)
def test_each_link_has_its_condition(part: str, reason: LinkReason) -> None:
    kind = {"queue": "QueueReachable", "events": "EventsPublished", "journal": "JournalWritable"}[part]
    status, said, _ = found(replace(HEALTHY, **{part: Link(reason, "why")}))[kind]  # type: ignore[arg-type]
    assert status == {LinkReason.CONNECTED: "True", LinkReason.UNKNOWN: "Unknown"}.get(reason, "False")
    assert said == reason.value


NO_STATUS = QueueWorkerStatus()


def built(
    snapshot: Snapshot | None = HEALTHY, previous: QueueWorkerStatus = NO_STATUS, **changed: Any
) -> QueueWorkerStatus:
    options: dict[str, Any] = {
        "spec": QueueWorkerSpec(),
        "problems": Problems(),
        "totals": Totals.of(previous.tasks),
        "generation": 4,
        "applied": 4,
        "name": "legacy",
        "now": NOW,
    }
    values = options | changed
    return build(values.pop("spec"), snapshot, values.pop("problems"), previous=previous, **values)


def written(*arguments: Any, **changed: Any) -> dict[str, Any]:
    return merge_patch(built(*arguments, **changed))


def test_the_written_status_is_what_the_schema_says() -> None:
    status = written()
    assert QueueWorkerStatus.model_validate(status) == built()
    assert {c["type"] for c in status["conditions"]} == set(ConditionType) - {ConditionType.POOL_READY}
    assert status["executors"] == {
        "desired": 2,
        "healthy": 2,
        "summary": "2/2",
        "endpoints": [
            {
                "name": f"executor-{number}",
                "url": f"http://executor-{number}",
                "healthy": True,
                "inFlight": 1,
                "capacity": 2,
                "lastCheckTime": "2026-01-02T03:03:20Z",
                "reason": "",
            }
            for number in (1, 2)
        ],
    }
    assert status["tasks"] == {
        "routed": 7, "completed": 5, "failed": 2, "retried": 1, "recovered": 0, "inFlight": 2, "perMinute": 7,
    }  # fmt: skip
    assert status["queue"] == {
        "url": "http://queue", "depth": 3, "consecutiveErrors": 0, "lastTaskTime": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    assert status["migration"] == {"phase": "Split", "standbySince": None}
    assert status["selector"] == "crucible.dev/queueworker=legacy"
    assert status["observedGeneration"] == 4


def test_a_condition_is_written_with_all_its_fields() -> None:
    (ready,) = [c for c in written()["conditions"] if c["type"] == "Ready"]
    assert ready == {
        "type": "Ready",
        "status": "True",
        "reason": "Routing",
        "message": "routing to 2 of 2 executors",
        "observedGeneration": 4,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }


def test_null_is_written_where_a_value_has_gone_because_a_merge_patch_keeps_what_is_absent() -> None:
    gone = replace(HEALTHY, queue_depth=None, last_task_time=None, executors=(executor(1, last_check=None),))
    status = written(gone)
    assert status["queue"] == {
        "url": "http://queue",
        "depth": None,
        "consecutiveErrors": 0,
        "lastTaskTime": None,
    }
    assert status["executors"]["endpoints"][0]["lastCheckTime"] is None


def test_parts_that_nothing_is_known_of_are_not_written() -> None:
    assert written(None, spec=None).keys() == {"observedGeneration", "conditions", "selector"}
    assert written(None).keys() == {"observedGeneration", "conditions", "selector", "migration"}


def test_a_status_that_was_written_is_read_again() -> None:
    assert read(written()) == built()
    assert read({}) == NO_STATUS


def test_a_part_of_a_status_that_cannot_be_read_is_dropped_and_the_rest_is_kept() -> None:
    newer = written() | {"inventory": {"parts": 3}, "migration": {"phase": 7}}
    newer["tasks"]["cancelled"] = 3
    newer["conditions"].append({"type": "Paused", "status": "True", "reason": "Night"})
    status = read(newer)
    assert status.tasks == built().tasks
    assert (status.conditions, status.migration) == ((), None)


def test_messages_names_and_lists_stay_within_their_bounds() -> None:
    executors = tuple(executor(i, name="n" * 300, healthy=False, reason="x" * 5000) for i in range(150))
    status = written(replace(HEALTHY, executors=executors))
    QueueWorkerStatus.model_validate(status)
    assert len(status["executors"]["endpoints"]) == MAX_ENDPOINTS
    assert status["executors"]["desired"] == 150
    assert max(len(c["message"]) for c in status["conditions"]) == MAX_MESSAGE


def test_counters_continue_from_the_values_of_the_last_operator() -> None:
    tasks = built(replace(HEALTHY, counters=Counters(completed=1)), built()).tasks
    assert tasks is not None
    assert (tasks.completed, tasks.failed, tasks.routed) == (6, 2, 8)
    assert Totals.of(None) == Totals()


def test_the_last_task_is_remembered_across_a_restart() -> None:
    assert written(replace(HEALTHY, last_task_time=None), built())["queue"]["lastTaskTime"] == "2026-01-02T03:04:05Z"


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = built()
    later = NOW + timedelta(hours=1)

    def ready(status: QueueWorkerStatus) -> Condition:
        return next(c for c in status.conditions if c.type == "Ready")

    suspended = built(replace(HEALTHY, phase=Phase.IDLE, intent=Intent.SUSPEND), first, now=later)
    assert ready(suspended).reason == "Suspended"
    assert ready(suspended).last_transition_time == ready(first).last_transition_time == NOW.replace(microsecond=0)
    away = built(replace(HEALTHY, queue=AWAY), first, now=later)
    assert ready(away).last_transition_time == later.replace(microsecond=0)


@pytest.mark.parametrize(
    ("percent", "force", "phase"),
    [(0, False, "Split"), (50, False, "Split"), (51, False, "Reduction"), (99, False, "Reduction"),
     (100, False, "Standby"), (100, True, "Reduction")],
)  # fmt: skip
def test_migration_goes_from_split_to_standby(percent: int, force: bool, phase: str) -> None:
    got = migration(MigrationSpec(celery_percent=percent, force_legacy_queue=force), None, NOW)
    assert (got.phase, got.standby_since) == (phase, NOW if phase == "Standby" else None)


def test_standby_remembers_since_when_and_leaving_it_forgets() -> None:
    full, half = MigrationSpec(celery_percent=100), MigrationSpec(celery_percent=50)
    since = MigrationStatus(phase="Standby", standby_since=NOW - timedelta(days=1))
    assert migration(full, since, NOW) == since
    assert migration(half, since, NOW).standby_since is None


@pytest.mark.parametrize(
    ("changed", "at_once"),
    [
        ({"in_flight": 9}, False),
        ({"queue_depth": 900}, False),
        ({"counters": Counters(completed=99)}, False),
        ({"executors": (executor(1, in_flight=2), executor(2, last_check=9.0))}, False),
        ({"executors": (executor(1), sick(2))}, True),
        ({"executors": (executor(1), executor(3))}, True),
        ({"queue": AWAY}, True),
        ({"journal": AWAY}, True),
        ({"phase": Phase.DRAINING}, True),
    ],
)
def test_what_people_wait_for_is_written_at_once_and_counts_on_the_beat(changed: dict[str, Any], at_once: bool) -> None:
    before, after = built(), built(replace(HEALTHY, **changed))
    assert before != after
    assert (transition(before) != transition(after)) is at_once


def test_what_a_newer_operator_wrote_is_read() -> None:
    condition = {"type": "PoolReady", "status": "False", "reason": "NoSuchReasonYet", "message": "m"}
    newer = {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}], "migration": {"phase": "Done"}}
    status = read(newer)
    assert [str(c.reason) for c in status.conditions] == ["NoSuchReasonYet"]
    assert merge_patch(status)["migration"] == {"phase": "Done"}


def test_a_new_generation_or_migration_phase_is_written_at_once() -> None:
    assert transition(built()) != transition(built(applied=5))
    moved = QueueWorkerSpec.model_validate({"migration": {"celeryPercent": 80}})
    assert transition(built()) != transition(built(spec=moved))


def told(before: QueueWorkerStatus, after: QueueWorkerStatus) -> tuple[str, str] | None:
    event = event_for(before, after)
    assert event is None or event.message
    return None if event is None else (event.type, event.reason)


def test_a_change_of_ready_is_one_event_and_other_conditions_are_none() -> None:
    well = built()
    assert told(NO_STATUS, well) == ("Normal", "Routing")
    assert told(well, well) is None
    assert told(NO_STATUS, built(None)) is None, "starting is no news"
    assert told(built(None), well) == ("Normal", "Routing")
    away = built(replace(HEALTHY, queue=AWAY, journal=AWAY, events=AWAY, executors=(sick(1),)))
    assert told(well, away) == ("Warning", "QueueUnreachable")
    assert told(away, well) == ("Normal", "Routing")
    some = built(replace(HEALTHY, executors=(executor(1), sick(2))))
    assert told(well, some) is None
    assert told(some, well) is None
    assert told(well, built(replace(HEALTHY, phase=Phase.DRAINING))) == ("Normal", "Draining")
    assert told(well, built(problems=Problems(spec="bad"))) == ("Warning", "InvalidSpec")
