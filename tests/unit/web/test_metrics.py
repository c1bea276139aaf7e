"""What a scrape answers: names, labels and values, as Prometheus' own parser reads them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from queueworker.routing.config import Intent
from queueworker.routing.counters import BUCKETS_SECONDS, Counters, LossCause
from queueworker.routing.snapshot import Phase
from queueworker.web.loop_lag import PERIOD_SECONDS, LoopLag
from queueworker.web.metrics import registry
from queueworker.web.source import ApiFailure, LeaseChange, OperatorCounters, OperatorView, WatchView
from queueworker.web.views import router_status
from tests.support.web_source import DOWN, FakeSource, executor, snapshot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

GROUP = "default/legacy"


def families(source: FakeSource) -> dict[str, Metric]:
    return {f.name: f for f in text_string_to_metric_families(generate_latest(registry(source)).decode())}


def samples(source: FakeSource) -> list[Sample]:
    return [s for f in families(source).values() for s in f.samples]


def value(source: FakeSource, name: str, **labels: str) -> float:
    wanted = {"queueworker": GROUP} | labels
    (found,) = [s.value for s in samples(source) if s.name == name and s.labels == wanted]
    return float(found)


def test_the_legacy_workers_five_key_metrics_are_there() -> None:
    counters = Counters(attempts_failed=3, polls_empty=6, polls_failed=1, pulled=4, events_published=9)
    counters.events_dropped = 1
    pool = (executor(1), executor(2, healthy=False))
    source = FakeSource([snapshot(counters=counters, executors=pool)])
    assert value(source, "queueworker_tasks_per_minute") == 42
    assert value(source, "queueworker_executor_healthy", executor="executor-1") == 1
    assert value(source, "queueworker_executor_healthy", executor="executor-2") == 0
    assert value(source, "queueworker_routing_attempts_failed_total") == 3
    polls = {r: value(source, "queueworker_queue_polls_total", result=r) for r in ("task", "empty", "failed")}
    assert polls == {"task": 4, "empty": 6, "failed": 1}
    assert value(source, "queueworker_events_published_ratio") == 0.9


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("completed", "tasks_completed"),
        ("failed", "tasks_failed"),
        ("retried", "tasks_retried"),
        ("recovered", "tasks_recovered"),
        ("pulled", "tasks_pulled"),
        ("duplicates", "tasks_duplicates"),
        ("invalid", "tasks_invalid"),
        ("attempts_failed", "routing_attempts_failed"),
        ("reports_unknown", "reports_unknown"),
        ("events_published", "events_published"),
        ("events_dropped", "events_dropped"),
        ("journal_errors", "journal_errors"),
    ],
)
def test_each_counter_of_the_router_is_a_counter_of_its_name(field: str, name: str) -> None:
    counters = Counters()
    setattr(counters, field, 5)
    source = FakeSource([snapshot(counters=counters)])
    assert families(source)[f"queueworker_{name}"].type == "counter"
    assert value(source, f"queueworker_{name}_total") == 5


def test_every_counter_of_the_router_is_shown() -> None:
    """A field that is added to Counters must not be forgotten here."""
    plain = Counters()
    names = [n for n in Counters.__slots__ if isinstance(getattr(plain, n), int)]
    for number, name in enumerate(names, 1000):
        setattr(plain, name, number)
    shown = {s.value for s in samples(FakeSource([snapshot(counters=plain)]))}
    assert [n for n in names if getattr(plain, n) not in shown] == []


def test_lost_pulls_are_shown_by_cause_and_every_cause_is_there_from_the_start() -> None:
    counters = Counters()
    source = FakeSource([snapshot(counters=counters)])
    lost = "queueworker_pulls_lost_total"
    assert {cause: value(source, lost, cause=cause) for cause in LossCause} == dict.fromkeys(LossCause, 0)
    for times, cause in enumerate(LossCause, 1):
        for _ in range(times):
            counters.count_lost_pull(cause)
    assert [value(source, lost, cause=cause) for cause in LossCause] == [1, 2, 3]
    assert router_status(snapshot(counters=counters)).queue.pulls_lost == counters.pulls_lost


def test_histograms_are_cumulative_and_end_with_the_count() -> None:
    counters = Counters()
    for seconds in (0.0001, 0.003, 0.003, 400):
        counters.overhead.observe(seconds)
    family = families(FakeSource([snapshot(counters=counters)]))["queueworker_task_overhead_seconds"]
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert family.type == "histogram"
    assert len(buckets) == len(BUCKETS_SECONDS) + 1
    assert (buckets["0.0005"], buckets["0.0025"], buckets["0.005"], buckets["300.0"]) == (1, 1, 3, 3)
    assert buckets["+Inf"] == 4
    assert list(buckets.values()) == sorted(buckets.values())
    rest = {s.name: s.value for s in family.samples if not s.name.endswith("_bucket")}
    assert rest["queueworker_task_overhead_seconds_count"] == 4
    assert rest["queueworker_task_overhead_seconds_sum"] == pytest.approx(400.0061)


def test_tasks_are_counted_by_duration_and_outcome_in_one_family() -> None:
    counters = Counters()
    counters.completed_seconds.observe(2)
    counters.failed_seconds.observe(550)
    counters.failed_seconds.observe(700)
    source = FakeSource([snapshot(counters=counters)])
    name = "queueworker_task_seconds"
    assert families(source)[name].type == "histogram"
    assert value(source, f"{name}_count", outcome="completed") == 1
    assert value(source, f"{name}_bucket", outcome="failed", le="300.0") == 0
    assert value(source, f"{name}_bucket", outcome="failed", le="600.0") == 1
    assert value(source, f"{name}_count", outcome="failed") == 2


def test_slots_the_oldest_task_and_a_stall_are_shown() -> None:
    pool = (executor(1, in_flight=2, capacity=4), executor(2, leaving=True, in_flight=1))
    shown = snapshot(executors=pool, slots_free=2, oldest_task_seconds=81.5, stalled="nothing was pulled")
    source = FakeSource([shown])
    names = ("slots_in_use", "slots_free", "oldest_task_seconds", "stalled")
    assert [value(source, f"queueworker_{name}") for name in names] == [3, 2, 81.5, 1]
    assert value(FakeSource(), "queueworker_stalled") == 0


def test_an_operator_counts_lease_changes_and_failed_calls_and_shows_each_kind_from_the_start() -> None:
    counters = OperatorCounters()
    counters.lease_changes[LeaseChange.LOST] += 2
    counters.api_errors[ApiFailure.FORBIDDEN] += 3
    source = FakeSource([], view=OperatorView(leading=True, leader="me", counters=counters))
    found = {(s.name, *s.labels.values()): s.value for s in samples(source)}
    changes = {change: found["queueworker_lease_changes_total", change] for change in LeaseChange}
    assert changes == dict.fromkeys(LeaseChange, 0) | {LeaseChange.LOST: 2}
    errors = {failure: found["queueworker_api_errors_total", failure] for failure in ApiFailure}
    assert errors == dict.fromkeys(ApiFailure, 0) | {ApiFailure.FORBIDDEN: 3}


async def test_a_blocked_event_loop_shows_as_lag() -> None:
    with LoopLag() as lag:
        time.sleep(PERIOD_SECONDS + 0.1)
        while not sum(lag.histogram.counts):
            await asyncio.sleep(0)
        text = generate_latest(registry(FakeSource(), lag)).decode()
    (family,) = [f for f in text_string_to_metric_families(text) if f.name == "queueworker_loop_lag_seconds"]
    found = {(s.name, s.labels.get("le")): s.value for s in family.samples}
    assert found["queueworker_loop_lag_seconds_bucket", "0.05"] == 0
    assert found["queueworker_loop_lag_seconds_bucket", "+Inf"] == 1


def test_phase_intent_and_peers_are_one_hot() -> None:
    source = FakeSource([snapshot(phase=Phase.IDLE, intent=Intent.STANDBY, queue=DOWN)])
    phases = {p: value(source, "queueworker_phase", phase=p) for p in Phase}
    intents = {i: value(source, "queueworker_intent", intent=i) for i in Intent}
    assert [p for p, on in phases.items() if on] == [Phase.IDLE]
    assert [i for i, on in intents.items() if on] == [Intent.STANDBY]
    peers = {p: value(source, "queueworker_link_up", peer=p) for p in ("queue", "events", "journal")}
    assert peers == {"queue": 0, "events": 1, "journal": 1}


def test_an_executor_that_leaves_and_its_successor_of_the_same_name_are_one_sample() -> None:
    leaving = executor(1, url="http://old:8083", leaving=True, in_flight=1, healthy=False)
    source = FakeSource([snapshot(executors=(leaving, executor(1, in_flight=2, capacity=4)))])
    assert value(source, "queueworker_executor_in_flight", executor="executor-1") == 3
    assert value(source, "queueworker_executor_healthy", executor="executor-1") == 1
    assert value(source, "queueworker_executor_capacity", executor="executor-1") == 4
    assert value(source, "queueworker_executors_desired") == 1


def test_an_executor_that_left_has_no_health_and_is_shown_until_it_has_finished() -> None:
    source = FakeSource([snapshot(executors=(executor(1), executor(2, leaving=True, in_flight=1)))])
    shown = {(s.name, s.labels["executor"]) for s in samples(source) if "executor" in s.labels}
    assert ("queueworker_executor_in_flight", "executor-2") in shown
    assert ("queueworker_executor_healthy", "executor-2") not in shown


def test_what_is_not_known_yet_is_absent() -> None:
    source = FakeSource([snapshot(queue_depth=None, last_task_time=None)])
    names = {s.name for s in samples(source)}
    assert "queueworker_queue_depth" not in names
    assert "queueworker_last_task_timestamp_seconds" not in names
    assert value(FakeSource(), "queueworker_queue_depth") == 7


def test_two_queue_workers_have_a_sample_each_and_none_twice() -> None:
    found = samples(FakeSource([snapshot("team-a/legacy"), snapshot("team-b/legacy")]))
    groups = {s.labels["queueworker"] for s in found if s.name == "queueworker_tasks_per_minute"}
    assert groups == {"team-a/legacy", "team-b/legacy"}
    keys = Counter((s.name, *sorted(s.labels.items())) for s in found)
    assert max(keys.values()) == 1


def test_an_operator_with_nothing_to_route_still_says_what_runs() -> None:
    found = families(FakeSource([]))
    (build,) = found["queueworker_build_info"].samples
    assert set(build.labels) == {"version", "python"}
    assert found["queueworker_tasks_per_minute"].samples == []


def test_a_scrape_takes_the_snapshots_once() -> None:
    source = FakeSource()
    generate_latest(registry(source))
    assert source.taken == 1


def test_every_metric_of_ours_has_a_help_text_and_the_prefix() -> None:
    found = families(FakeSource())
    ours = {n: f for n, f in found.items() if not n.startswith("process_")}
    assert len(ours) > 25
    assert all(n.startswith("queueworker_") for n in ours)
    assert all(f.documentation.endswith(".") for f in ours.values())


def test_openmetrics_parse_too() -> None:
    text = generate_openmetrics(registry(FakeSource())).decode()  # type: ignore[no-untyped-call]
    found = {f.name: f.type for f in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert found["queueworker_tasks_completed"] == "counter"
    assert found["queueworker_build"] == "info"


def test_an_operator_shows_whether_it_is_ready_whether_it_leads_and_which_watches_work() -> None:
    watches = [WatchView("QueueWorkers", "team", up=True), WatchView("EndpointSlices", "team", up=False)]
    source = FakeSource([], view=OperatorView(leading=True, leader="me", watches=watches))
    found = {(s.name, *s.labels.values()): s.value for s in samples(source)}
    assert found["queueworker_ready",] == found["queueworker_leading",] == 1
    up = {
        (s.labels["kind"], s.labels["namespace"]): s.value for s in samples(source) if s.name == "queueworker_watch_up"
    }
    assert up == {("QueueWorkers", "team"): 1, ("EndpointSlices", "team"): 0}
    worker = FakeSource(readiness=(False, "draining"))
    names = {s.name: s.value for s in samples(worker)}
    assert names["queueworker_ready"] == 0
    assert "queueworker_leading" not in names
