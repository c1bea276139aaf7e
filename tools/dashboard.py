"""`python -m tools.dashboard`: write the chart's dashboard for Grafana; `--check` only compares."""

from __future__ import annotations

import sys
from itertools import count
from string import ascii_uppercase
from typing import TYPE_CHECKING, NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import VisibilityMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from queueworker.resource.generate import ROOT, main

if TYPE_CHECKING:
    from collections.abc import Sequence

CHART = ROOT / "charts" / "queueworker-operator"
PATH = CHART / "files" / "dashboard.json"
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS = 24
HEIGHT = 7
OF = 'queueworker=~"$queueworker"'
"""The objects that were chosen."""
RATE = "$__rate_interval"


class Query(NamedTuple):
    """An expression, and the legend of its series."""

    expr: str
    legend: str


class Plot(NamedTuple):
    title: str
    text: str
    unit: str
    queries: Sequence[Query]


def _rate(counter: str, by: str = "", more: str = "") -> str:
    labels = f"queueworker, {by}" if by else "queueworker"
    return f"sum by ({labels}) (rate(queueworker_{counter}{{{OF}{more}}}[{RATE}]))"


def _gauge(name: str, more: str = "") -> str:
    return f"sum by (queueworker) (queueworker_{name}{{{OF}{more}}})"


def _quantile(share: float, histogram: str, legend: str) -> Query:
    buckets = f"rate(queueworker_{histogram}_bucket{{{OF}}}[{RATE}])"
    return Query(f"histogram_quantile({share}, sum by (queueworker, le) ({buckets}))", f"{{{{queueworker}}}} {legend}")


NAME = "{{queueworker}}"
ROWS: Sequence[tuple[str, Sequence[Plot]]] = (
    (
        "Tasks",
        (
            Plot(
                "Tasks by outcome",
                "Reports that the queue acknowledged.",
                "ops",
                (
                    Query(_rate("tasks_completed_total"), f"{NAME} completed"),
                    Query(_rate("tasks_failed_total"), f"{NAME} failed"),
                ),
            ),
            Plot(
                "Duration",
                "From the pull to the report, with all attempts and waits.",
                "s",
                (_quantile(0.5, "task_seconds", "p50"), _quantile(0.95, "task_seconds", "p95")),
            ),
            Plot(
                "Wait and overhead",
                "Wait: from the pull until the first executor was chosen. Overhead: all but the executor's time.",
                "s",
                (_quantile(0.95, "task_wait_seconds", "wait p95"), _quantile(0.95, "task_overhead_seconds", "own p95")),
            ),
            Plot(
                "Waiting and in flight",
                "Tasks in the queue, and tasks pulled and not reported yet.",
                "short",
                (
                    Query(_gauge("queue_depth"), f"{NAME} waiting"),
                    Query(_gauge("tasks_in_flight"), f"{NAME} in flight"),
                ),
            ),
            Plot(
                "Oldest task in flight",
                "Since its pull or its takeover.",
                "s",
                (Query(f"max by (queueworker) (queueworker_oldest_task_seconds{{{OF}}})", NAME),),
            ),
            Plot(
                "Failed attempts, retries, tasks taken over",
                "An attempt is one call of an executor. Tasks are taken over from routers that died.",
                "ops",
                (
                    Query(_rate("routing_attempts_failed_total"), f"{NAME} failed attempts"),
                    Query(_rate("tasks_retried_total"), f"{NAME} retries"),
                    Query(_rate("tasks_recovered_total"), f"{NAME} taken over"),
                ),
            ),
        ),
    ),
    (
        "Executors",
        (
            Plot(
                "Slots",
                "Slots that tasks use, and slots that could take one.",
                "short",
                (Query(_gauge("slots_in_use"), f"{NAME} in use"), Query(_gauge("slots_free"), f"{NAME} free")),
            ),
            Plot(
                "Healthy executors",
                "Healthy executors, and all that are in the pool.",
                "short",
                (
                    Query(_gauge("executors_healthy"), f"{NAME} healthy"),
                    Query(_gauge("executors_desired"), f"{NAME} in the pool"),
                ),
            ),
            Plot(
                "Load of each executor",
                "Tasks in flight as a share of the executor's capacity.",
                "percentunit",
                (
                    Query(
                        f"sum by (queueworker, executor) (queueworker_executor_in_flight{{{OF}}})"
                        f" / sum by (queueworker, executor) (queueworker_executor_capacity{{{OF}}} > 0)",
                        f"{NAME} {{{{executor}}}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Queue and Redis",
        (
            Plot(
                "Connections",
                "1 if the last exchange succeeded.",
                "short",
                (
                    Query(
                        f"min by (queueworker, peer) (queueworker_link_up{{{OF}}})",
                        f"{NAME} {{{{peer}}}}",
                    ),
                ),
            ),
            Plot(
                "Polls of the queue",
                "Answered polls by result, and pulls that may have lost a task.",
                "ops",
                (
                    Query(_rate("queue_polls_total", "result"), f"{NAME} {{{{result}}}}"),
                    Query(_rate("pulls_lost_total", "cause"), f"{NAME} lost: {{{{cause}}}}"),
                ),
            ),
            Plot(
                "Events",
                "Published, dropped, and waiting for Redis.",
                "short",
                (
                    Query(_rate("events_published_total"), f"{NAME} published/s"),
                    Query(_rate("events_dropped_total"), f"{NAME} dropped/s"),
                    Query(_gauge("events_buffered"), f"{NAME} waiting"),
                ),
            ),
        ),
    ),
    (
        "Processes",
        (
            Plot(
                "Event loop lag",
                "How late timers run. Above 0.1 s the process has too much to do.",
                "s",
                (
                    Query(
                        "histogram_quantile(0.99,"
                        f" sum by (instance, le) (rate(queueworker_loop_lag_seconds_bucket[{RATE}])))",
                        "{{instance}} p99",
                    ),
                ),
            ),
            Plot(
                "Memory",
                "Bytes that tasks, results and events take, and the budget for them.",
                "bytes",
                (
                    Query("sum by (instance) (queueworker_memory_held_bytes)", "{{instance}} held"),
                    Query("max by (instance) (queueworker_memory_budget_bytes)", "{{instance}} budget"),
                ),
            ),
            Plot(
                "CPU",
                "CPU seconds a second.",
                "short",
                (
                    Query(
                        f"rate(process_cpu_seconds_total[{RATE}]) and on (instance, job) queueworker_build_info",
                        "{{instance}}",
                    ),
                ),
            ),
            Plot(
                "Leader and changes of the Lease",
                "1 for the replica that leads.",
                "short",
                (
                    Query("queueworker_leading", "{{instance}} leads"),
                    Query(f"increase(queueworker_lease_changes_total[{RATE}])", "{{instance}} {{change}}"),
                ),
            ),
            Plot(
                "Failed calls to the API server",
                "By reason.",
                "ops",
                (Query(f"sum by (reason) (rate(queueworker_api_errors_total[{RATE}]))", "{{reason}}"),),
            ),
            Plot(
                "Watches",
                "1 if the leader's watch works.",
                "short",
                (Query("min by (kind, namespace) (queueworker_watch_up)", "{{kind}} {{namespace}}"),),
            ),
        ),
    ),
)


def text() -> str:
    """The dashboard as JSON."""
    page = (
        dashboard.Dashboard("QueueWorker")
        .uid("queueworker")
        .description("QueueWorkers: tasks, executors, queue, Redis, and the operator's processes.")
        .tags(["queueworker"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("queueworker")
            .label("QueueWorker")
            .datasource(DATASOURCE)
            .query("label_values(queueworker_tasks_per_minute, queueworker)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(multi=True)
            .include_all(include_all=True)
            .all_value(".*")
        )
    )
    numbers = count(1)
    for title, plots in ROWS:
        page = page.with_row(dashboard.Row(title).id(next(numbers)))
        for plot in plots:
            page = page.with_panel(_panel(plot).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(page.build()) + "\n"


def _panel(plot: Plot) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(plot.title)
        .description(plot.text)
        .datasource(DATASOURCE)
        .unit(plot.unit)
        .min(0)
        .height(HEIGHT)
        .span(COLUMNS // 3)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
    )
    for name, query in zip(ascii_uppercase, plot.queries, strict=False):
        panel = panel.with_target(prometheus.Dataquery().ref_id(name).expr(query.expr).legend_format(query.legend))
    return panel


TARGETS = {str(PATH.relative_to(ROOT)): text}


if __name__ == "__main__":
    sys.exit(main(TARGETS, sys.argv[1:]))
