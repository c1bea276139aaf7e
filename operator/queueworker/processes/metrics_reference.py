"""Writes docs/metrics.md from what a scrape answers; with `--check`, fails if the page is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from queueworker.resource.generate import renew
from queueworker.routing.config import Intent
from queueworker.routing.counters import BUCKETS_SECONDS, Counters
from queueworker.routing.snapshot import ExecutorSnapshot, Link, Phase, Snapshot
from queueworker.routing.tracer import SpanCounts
from queueworker.web.loop_lag import LoopLag
from queueworker.web.metrics import registry
from queueworker.web.source import OperatorView, WatchView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric


PATH = Path(__file__).parents[3] / "docs" / "metrics.md"
_COMMAND = "make generate"
_SUFFIX = {"counter": "_total", "info": "_info"}
_OF_CLIENT = "process_"
_OPERATOR_ONLY = " Operator only."

_HEAD = f"""<!-- Made by `{_COMMAND}` from operator/queueworker/web/metrics.py and routing/counters.py; do not edit. -->
# Metrics

Worker and operator answer `GET /metrics` in the text format of Prometheus or in OpenMetrics. The label `queueworker`
is `namespace/name` of the object; for a worker, it is the group of its journal. In an operator, only the leader has
the metrics with that label. Counters begin at 0 with each router: use `rate` and `increase`.

The chart has [alert rules](../charts/queueworker-operator/files/alerts.yaml), whose [runbooks](runbooks/README.md) say
what to do, and a [dashboard](../charts/queueworker-operator/files/dashboard.json) for Grafana.

The buckets of all histograms end at {", ".join(f"{bound:g}" for bound in BUCKETS_SECONDS)} seconds and +Inf.

| metric | type | labels | meaning |
|---|---|---|---|
"""


class _Example:
    """A source that shows everything that there is to show, so that a scrape has every metric with its labels."""

    def __init__(self, operator: OperatorView | None) -> None:
        self._operator = operator

    def snapshots(self) -> Sequence[Snapshot]:
        executor = ExecutorSnapshot("executor-1", "http://executor-1:8083", True, 0, 1, 0.0, "")
        link = Link()
        return [
            Snapshot(
                group="default/legacy",
                worker_id="",
                intent=Intent.ROUTE,
                phase=Phase.ROUTING,
                executors=(executor,),
                queue=link,
                events=link,
                journal=link,
                queue_url="",
                queue_depth=0,
                consecutive_errors=0,
                last_task_time=0.0,
                in_flight=0,
                events_buffered=0,
                per_minute=0,
                counters=Counters(),
            )
        ]

    def ready(self) -> tuple[bool, str]:
        return True, ""

    def operator(self) -> OperatorView | None:
        return self._operator


def families(*, operator: bool = True) -> dict[str, Metric]:
    """Every metric that an operator or a worker shows, by the name that queries use."""
    view = OperatorView(leading=True, leader="", watches=[WatchView("QueueWorkers", "", up=True)])
    shown = registry(_Example(view if operator else None), LoopLag(), SpanCounts()).collect()
    return {f.name + _SUFFIX.get(f.type, ""): f for f in shown}


def reference() -> str:
    """The text of docs/metrics.md."""
    return _HEAD + "\n".join(_rows()) + f"\n\n{_PROCESS}"


_PROCESS = """Beside these there are the `process_…` metrics of the Python client: CPU seconds, memory, file descriptors
and start time of the process.
"""


def _rows() -> Iterator[str]:
    of_worker = families(operator=False)
    for name, family in sorted(families().items()):
        if name.startswith(_OF_CLIENT):
            continue
        labels = ", ".join(f"`{label}`" for label in _labels(family))
        where = "" if name in of_worker else _OPERATOR_ONLY
        yield f"| `{name}` | {family.type} | {labels} | {family.documentation}{where} |"


def _labels(family: Metric) -> list[str]:
    return [label for label in family.samples[0].labels if label != "le"]


def run(path: Path = PATH, *, check: bool) -> int:
    """Returns the exit status."""
    return int(renew(path, f"docs/{path.name}", reference(), check=check) and check)


if __name__ == "__main__":
    sys.exit(run(check="--check" in sys.argv[1:]))
