"""The chart's dashboard: every query names metrics that exist, and finds them in a real Prometheus."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from queueworker.resource import generate
from queueworker.web.app import Mode, create_app
from queueworker.web.loop_lag import LoopLag
from queueworker.web.server import serve
from queueworker.web.source import OperatorView, WatchView
from tests.support.demo_processes import demo_process, wait_until
from tests.support.prometheus import needs_prometheus, prometheus
from tests.support.promql import unknown
from tests.support.web_source import FakeSource
from tests.support.worker_processes import worker_process
from tools import dashboard

if TYPE_CHECKING:
    import httpx
    import pytest

    from tests.support.prometheus import Prometheus

TASKS = 3
SECONDS = 30


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.PATH.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every expression with the variables filled in, by the title of its panel and its letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$queueworker", ".*")
        .replace("$__rate_interval", "1m")
        for panel in panels()
        for target in panel["targets"]
    }


def test_every_query_names_metrics_that_exist() -> None:
    assert len(queries()) > 25
    assert unknown(queries().values()) == set()


def test_every_panel_has_a_number_a_title_and_a_description_of_its_own() -> None:
    for field in ("id", "title", "description"):
        values = [panel[field] for panel in panels()]
        assert len(set(values)) == len(values)
        assert all(values)


def test_the_file_is_what_the_generator_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(dashboard.TARGETS, ["--check"]) == 0, capsys.readouterr().err


@needs_prometheus
async def test_every_query_finds_data_of_a_worker_under_load_and_of_an_operator(redis_url: str) -> None:
    """The operator is its HTTP API over a view made by hand."""
    view = OperatorView(leading=True, leader="me", watches=[WatchView("QueueWorkers", "", up=True)])
    with LoopLag() as lag:
        operator = create_app(FakeSource([], view=view), Mode.OPERATOR, lag=lag)
        async with serve(operator, "127.0.0.1", 0) as port:
            await asyncio.to_thread(_every_query_finds_data, f"http://127.0.0.1:{port}", redis_url)


def _every_query_finds_data(operator_url: str, redis_url: str) -> None:
    with (
        demo_process("queue", "--port", "0") as queue,
        demo_process("executor", "--port", "0") as executor,
        worker_process(
            QUEUE_SERVICE_URL=queue.url, REDIS_URL=redis_url, EXECUTOR_ENDPOINTS=executor.url, EXECUTOR_CONCURRENCY="4"
        ) as worker,
        prometheus(worker.url, operator_url) as server,
        queue.client() as client,
    ):
        for name, query in queries().items():
            wait_until(lambda: _has_data(client, server, query), f"data for {name}: {query}", SECONDS)  # noqa: B023 -- called in this turn only


def _has_data(queue: httpx.Client, server: Prometheus, query: str) -> bool:
    """A quantile needs tasks between two scrapes, so that each look submits some more."""
    for _ in range(TASKS):
        queue.post("/tasks", json={"eval_id": uuid4().hex, "code": "print(6 * 7)"}).raise_for_status()
    return any(sample["value"][1] != "NaN" for sample in server.query(query))
