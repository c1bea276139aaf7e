"""Prometheus metrics, made from snapshots on each scrape. The hot path only adds to plain integers.

The names and help texts of counters and histograms are in `routing.counters`, all others are here. Counters start at 0
with each router, which Prometheus' `rate()` and `increase()` take into account. The legacy worker's five key metrics:

- tasks routed per minute: `queueworker_tasks_per_minute`
- executor health: `queueworker_executor_healthy`
- failed routing attempts: `queueworker_routing_attempts_failed_total`
- queue poll rate: `rate(queueworker_queue_polls_total[1m])`
- event publishing success: `queueworker_events_published_ratio` since the start; over five minutes
  `rate(queueworker_events_published_total[5m])
  / (rate(queueworker_events_published_total[5m]) + rate(queueworker_events_dropped_total[5m]))`
"""

from __future__ import annotations

import platform
from dataclasses import asdict, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from queueworker import __version__
from queueworker.routing import counters
from queueworker.routing.config import Intent
from queueworker.routing.counters import BUCKETS_SECONDS, Histogram
from queueworker.routing.snapshot import Phase
from queueworker.web.loop_lag import PERIOD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from queueworker.routing.snapshot import ExecutorSnapshot, Snapshot
    from queueworker.routing.tracer import SpanCounts
    from queueworker.web.loop_lag import LoopLag
    from queueworker.web.source import OperatorView

PREFIX = "queueworker_"
LABEL = "queueworker"
"""Label with `namespace/name` of the object; for a worker, the group of its journal."""

_BOUNDS = [*(str(float(bound)) for bound in BUCKETS_SECONDS), "+Inf"]
_GAUGES: Sequence[tuple[str, str, Callable[[Snapshot], float | None]]] = (
    ("tasks_per_minute", "Tasks reported to the queue in the last 60 seconds.", lambda s: s.per_minute),
    ("tasks_in_flight", "Tasks pulled and not reported yet.", lambda s: s.in_flight),
    ("slots_in_use", "Slots that tasks use on executors.", lambda s: s.slots_in_use),
    (
        "slots_free",
        "Slots of healthy executors that could take a task now, including those that are reserved for pulls.",
        lambda s: s.slots_free,
    ),
    (
        "oldest_task_seconds",
        "Age in seconds of the oldest task in flight, since its pull or its takeover; 0 if there is none.",
        lambda s: s.oldest_task_seconds,
    ),
    (
        "stalled",
        "1 if nothing is pulled although tasks wait and slots are free, for a minute or longer, else 0.",
        lambda s: bool(s.stalled),
    ),
    ("executors_desired", "Executors in the pool.", lambda s: s.desired),
    ("executors_healthy", "Executors in the pool that are healthy.", lambda s: s.healthy),
    (
        "queue_depth",
        "Tasks waiting in the queue; absent while the queue does not say.",
        lambda s: s.queue_depth,
    ),
    (
        "queue_consecutive_errors",
        "Consecutive failures to reach the queue.",
        lambda s: s.consecutive_errors,
    ),
    ("events_buffered", "Events waiting for Redis.", lambda s: s.events_buffered),
    (
        "events_published_ratio",
        "Share of the events since the start that Redis accepted; 1 while no event was dropped.",
        lambda s: _ratio(s.counters.events_published, s.counters.events_dropped),
    ),
    (
        "memory_held_bytes",
        "Bytes that tasks, results and events of this router take in memory, as the budget of the process counts them.",
        lambda s: s.memory_held,
    ),
    (
        "last_task_timestamp_seconds",
        "Unix time of the last report of a task; absent before the first report.",
        lambda s: s.last_task_time,
    ),
)


_SPANS = (
    "Spans of tasks by outcome: exported; failed, if the receiver did not take them; dropped, if too many waited. "
    "Absent while tracing is off."
)


def _ratio(accepted: int, dropped: int) -> float:
    return accepted / (accepted + dropped) if dropped else 1.0


def _executors(snapshot: Snapshot) -> Iterator[ExecutorSnapshot]:
    """One executor for each name: a leaving executor and its successor may share a name, but a label may not occur
    twice. An executor without a successor stays `leaving`.
    """
    found: dict[str, ExecutorSnapshot] = {}
    for executor in sorted(snapshot.executors, key=lambda e: e.leaving):
        known = found.get(executor.name)
        found[executor.name] = executor if known is None else _joined(known, executor)
    yield from found.values()


def _joined(known: ExecutorSnapshot, other: ExecutorSnapshot) -> ExecutorSnapshot:
    in_flight = known.in_flight + other.in_flight
    if other.leaving:
        return replace(known, in_flight=in_flight)
    return replace(
        known,
        in_flight=in_flight,
        healthy=known.healthy and other.healthy,
        capacity=known.capacity + other.capacity,
    )


class Scraped(Protocol):
    """The part of a `Source` that metrics are made from."""

    def snapshots(self) -> Iterable[Snapshot]: ...

    def ready(self) -> tuple[bool, str]: ...

    def operator(self) -> OperatorView | None: ...


class SnapshotCollector(Collector):
    """Takes one snapshot of each router for each scrape."""

    def __init__(self, source: Scraped, lag: LoopLag | None, spans: SpanCounts | None) -> None:
        self._source = source
        self._lag = lag
        self._spans = spans

    def describe(self) -> Iterable[Metric]:
        """Nothing: otherwise registering would take snapshots to compare names with those of other collectors."""
        return ()

    def collect(self) -> Iterator[Metric]:
        snapshots = list(self._source.snapshots())
        yield InfoMetricFamily(PREFIX + "build", "Version of the operator and of Python.", _build())
        yield from _process(self._source)
        if self._lag is not None:
            yield _loop_lag(self._lag)
        if self._spans is not None:
            yield _by_label("spans", _SPANS, "outcome", asdict(self._spans))
        yield from _budget(snapshots)
        yield from _counters(snapshots)
        for name, text, read in _GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=[LABEL])
            for s in snapshots:
                value = read(s)
                if value is not None:
                    gauge.add_metric([s.group], value)
            yield gauge
        yield from _histograms(snapshots)
        yield from _pool(snapshots)
        yield from _states(snapshots)


def _process(source: Scraped) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        PREFIX + "ready", "1 if the readiness probe of this process succeeds, else 0.", value=source.ready()[0]
    )
    view = source.operator()
    if view is None:
        return
    yield GaugeMetricFamily(PREFIX + "leading", "1 if this replica of the operator leads, else 0.", value=view.leading)
    watches = GaugeMetricFamily(
        PREFIX + "watch_up",
        "1 if the leader's watch of this kind works, else 0. An empty namespace stands for all namespaces.",
        labels=["namespace", "kind"],
    )
    for watch in view.watches:
        watches.add_metric([watch.namespace, watch.kind], watch.up)
    yield watches
    yield _by_label(
        "lease_changes",
        "Changes of the Lease of this replica by kind: acquired, lost or released.",
        "change",
        view.counters.lease_changes,
    )
    yield _by_label(
        "api_errors",
        "Calls of the operator to the API server that failed, by reason. A conflict is a write that another writer "
        "was faster with. The watches are not counted here: see watch_up.",
        "reason",
        view.counters.api_errors,
    )


def _by_label(name: str, text: str, label: str, counts: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _loop_lag(lag: LoopLag) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        PREFIX + "loop_lag_seconds",
        f"Seconds by which a timer of the event loop was late, measured every {PERIOD_SECONDS} s.",
        labels=[],
    )
    family.add_metric([], buckets=_buckets(lag.histogram), sum_value=lag.histogram.sum)
    return family


def _budget(snapshots: Sequence[Snapshot]) -> Iterator[Metric]:
    """All routers of a process have the same."""
    for snapshot in snapshots[:1]:
        yield GaugeMetricFamily(
            PREFIX + "memory_budget_bytes",
            "Bytes that tasks, results and events of all routers of this process may take in memory; above it nothing "
            "is pulled.",
            value=snapshot.memory_budget,
        )


def _counters(snapshots: Sequence[Snapshot]) -> Iterator[Metric]:
    """One family for each metric name; several fields may be series of one family, told apart by a label."""
    families: dict[str, CounterMetricFamily] = {}
    for field, described in counters.metrics(int).items():
        for metric in described:
            family = families.setdefault(
                metric.name, CounterMetricFamily(PREFIX + metric.name, metric.text, labels=_labels(metric))
            )
            for s in snapshots:
                family.add_metric(_values(metric, s), getattr(s.counters, field))
    yield from families.values()


def _histograms(snapshots: Sequence[Snapshot]) -> Iterator[Metric]:
    families: dict[str, HistogramMetricFamily] = {}
    for field, (metric,) in counters.metrics(Histogram).items():
        family = families.setdefault(
            metric.name, HistogramMetricFamily(PREFIX + metric.name, metric.text, labels=_labels(metric))
        )
        for s in snapshots:
            histogram: Histogram = getattr(s.counters, field)
            family.add_metric(_values(metric, s), buckets=_buckets(histogram), sum_value=histogram.sum)
    yield from families.values()


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    return list(zip(_BOUNDS, accumulate(histogram.counts), strict=True))


def _labels(metric: counters.Metric) -> list[str]:
    return [LABEL, metric.label] if metric.label else [LABEL]


def _values(metric: counters.Metric, snapshot: Snapshot) -> list[str]:
    return [snapshot.group, metric.value] if metric.label else [snapshot.group]


def _pool(snapshots: Iterable[Snapshot]) -> Iterator[Metric]:
    names = [LABEL, "executor"]
    healthy = GaugeMetricFamily(PREFIX + "executor_healthy", "1 if the executor is healthy, else 0.", labels=names)
    in_flight = GaugeMetricFamily(
        PREFIX + "executor_in_flight",
        "Slots in use: tasks that the executor runs, and slots that cool down after failed tasks. An executor that "
        "left the pool is shown until they are free.",
        labels=names,
    )
    capacity = GaugeMetricFamily(PREFIX + "executor_capacity", "Tasks that the executor may run at once.", labels=names)
    for s in snapshots:
        for executor in _executors(s):
            labels = [s.group, executor.name]
            in_flight.add_metric(labels, executor.in_flight)
            if not executor.leaving:
                healthy.add_metric(labels, executor.healthy)
                capacity.add_metric(labels, executor.capacity)
    yield from (healthy, in_flight, capacity)


def _states(snapshots: Iterable[Snapshot]) -> Iterator[Metric]:
    links = GaugeMetricFamily(
        PREFIX + "link_up",
        "1 if the last exchange with the peer (queue, events, journal) succeeded, else 0.",
        labels=[LABEL, "peer"],
    )
    phases = GaugeMetricFamily(
        PREFIX + "phase", "1 for the present phase of the router, 0 for the other phases.", labels=[LABEL, "phase"]
    )
    intents = GaugeMetricFamily(
        PREFIX + "intent", "1 for the intent of the object's spec, 0 for the other intents.", labels=[LABEL, "intent"]
    )
    for s in snapshots:
        for peer, link in (("queue", s.queue), ("events", s.events), ("journal", s.journal)):
            links.add_metric([s.group, peer], link.ok)
        for phase in Phase:
            phases.add_metric([s.group, phase], s.phase is phase)
        for intent in Intent:
            intents.add_metric([s.group, intent], s.intent is intent)
    yield from (links, phases, intents)


def _build() -> dict[str, str]:
    return {"version": __version__, "python": platform.python_version()}


def registry(source: Scraped, lag: LoopLag | None = None, spans: SpanCounts | None = None) -> CollectorRegistry:
    """A new registry with the metrics above and those of the process (memory, CPU, file descriptors)."""
    found = CollectorRegistry(auto_describe=False)
    found.register(SnapshotCollector(source, lag, spans))
    ProcessCollector(registry=found)
    return found
