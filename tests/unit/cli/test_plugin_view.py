"""What `kubectl queueworker` makes of an object and of the operator's answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from queueworker.cli.plugin.live import Live
from queueworker.cli.plugin.status import holds
from queueworker.cli.plugin.values import Level
from queueworker.cli.plugin.view import view
from tests.support.plugin_views import AWAY, NOW, body, condition, executor, live, seen


def test_what_the_operator_says_counts_more_than_the_status() -> None:
    found = seen(live())
    assert (found.source.live, found.source.replica) == (True, "pod-a")
    assert (found.queue_depth, found.per_minute, found.in_flight) == (118, 412, 3)
    assert (found.events_buffered, found.completed, found.failed) == (37, 200, 12)


def test_without_the_operator_the_status_is_shown_with_its_age_and_the_reason() -> None:
    found = seen(AWAY)
    assert not found.source.live
    assert found.source.age_seconds == 14
    assert found.source.note == "no replica of the operator is ready"
    assert (found.queue_depth, found.per_minute, found.completed) == (4, 30, 190)
    assert [e.checked_seconds_ago for e in found.executors] == [10, 10]


@pytest.mark.parametrize(
    ("ready", "level", "word"),
    [
        (("True", "Routing"), Level.OK, "Routing"),
        (("True", "Suspended"), Level.OFF, "Suspended"),
        (("True", "Standby"), Level.OFF, "Standby"),
        (("False", "Draining"), Level.WARNING, "Draining"),
        (("False", "Starting"), Level.WARNING, "Starting"),
        (("False", "QueueUnreachable"), Level.ERROR, "QueueUnreachable"),
    ],
)
def test_the_state_is_the_reason_of_ready(ready: tuple[str, str], level: Level, word: str) -> None:
    state = seen(live(), condition("Ready", *ready)).state
    assert (state.level, state.word) == (level, word)


def test_an_object_that_routes_with_a_sick_executor_is_degraded() -> None:
    state = seen(live(executor(1), executor(2, healthy=False, reason="timeout"), executor(3))).state
    assert (state.level, state.word, state.message) == (Level.WARNING, "Degraded", "1 of 3 executors is unhealthy")


def test_an_object_that_routes_without_its_journal_is_degraded() -> None:
    journal = {"connected": False, "reason": "ConnectionFailed", "message": "Redis refused the connection"}
    found = seen(live(journal=journal))
    assert found.state.message == "the journal cannot be written"
    assert (found.journal.level, found.journal.message) == (Level.ERROR, "Redis refused the connection")


def test_what_the_status_says_is_not_believed_when_nobody_leads() -> None:
    state = seen(replace(AWAY, leaderless="nobody leads; pod-a renewed the Lease 12 min ago")).state
    assert (state.level, state.word) == (Level.ERROR, "NoLeader")
    assert state.message.startswith("nobody leads")


def test_a_connection_that_is_back_has_no_message_of_the_status() -> None:
    found = seen(live(), condition("QueueReachable", "False", "ConnectionFailed", "connection refused"))
    assert (found.queue.level, found.queue.message) == (Level.OK, "")


def test_an_object_without_a_status_is_unknown() -> None:
    raw = body()
    del raw["status"]
    found = view(raw, Live(problem="away"), NOW)
    assert (found.state.word, found.executors, found.completed) == ("Unknown", (), None)


def test_executors_are_listed_worst_first_and_by_number() -> None:
    listed = seen(live(executor(10), executor(2), executor(3, healthy=False), executor(1, leaving=True))).executors
    assert [e.name for e in listed] == ["executor-3", "executor-2", "executor-10", "executor-1"]
    assert [e.state for e in listed] == ["unhealthy", "healthy", "healthy", "leaving"]


def test_a_drained_executor_is_listed_although_it_left_the_pool() -> None:
    found = seen(live(executor(1)), spec={"executors": {"drained": ["executor-2"]}})
    assert [(e.name, e.state) for e in found.executors] == [("executor-1", "healthy"), ("executor-2", "drained")]
    assert (found.executors_healthy, found.executors_desired) == (1, 1)


def test_a_drained_executor_that_still_runs_tasks_is_draining() -> None:
    leaving = executor(2, leaving=True, in_flight=1)
    found = seen(live(executor(1), leaving), spec={"executors": {"drained": ["executor-2"]}})
    assert [e.state for e in found.executors] == ["healthy", "draining"]


def test_another_version_of_the_operator_is_noted() -> None:
    assert seen(live(version="1.0.0")).notes == ()
    (note,) = seen(live(version="0.9.0")).notes
    assert note.startswith("the operator has version 0.9.0, this command 1.0.0")


def test_a_spec_that_does_not_run_yet_is_noted() -> None:
    raw = body()
    raw["metadata"]["generation"] = 2
    assert view(raw, live(), NOW).notes == ("generation 1 of the spec runs, the object has 2",)


def test_json_has_everything_that_the_screen_has() -> None:
    data = json.loads(json.dumps(seen(live()).as_json(), default=str))
    assert data["state"] == {"level": "ok", "word": "Routing", "message": "routing to 2 of 2 executors"}
    assert data["source"]["replica"] == "pod-a"
    assert (data["in_use"], data["capacity"], data["events_buffered"]) == (0, 4, 37)
    assert [e["state"] for e in data["executors"]] == ["healthy", "healthy"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(("Ready", "True"), True), (("ready", "Routing"), True), (("Ready", "False"), False), (("None", "True"), False)],
)
def test_a_condition_holds_by_its_status_or_its_reason(wanted: tuple[str, str], expected: bool) -> None:
    assert holds(body(), *wanted) is expected


def test_a_condition_of_an_earlier_generation_does_not_hold() -> None:
    raw: dict[str, Any] = body()
    raw["metadata"]["generation"] = 2
    assert not holds(raw, "Ready", "True")
