"""`queueworker worker` with tracing, against the demo's queue and an executor, and a receiver of spans."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.demo_processes import DemoProcess, demo_process
from tests.support.doc_blocks import Place, run_by
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.stubs import until
from tests.support.worker_processes import WorkerProcess, worker_process

if TYPE_CHECKING:
    from collections.abc import Iterator

(BLOCK,) = run_by(__file__)


@contextmanager
def worker(**environ: str) -> Iterator[tuple[DemoProcess, WorkerProcess]]:
    """A queue and a worker that routes from it, without Redis."""
    with (
        demo_process("queue", "--port", "0") as queue,
        demo_process("executor", "--port", "0") as executor,
        worker_process(
            QUEUE_SERVICE_URL=queue.url,
            EXECUTOR_ENDPOINTS=executor.url,
            REDIS_URL="redis://127.0.0.1:9",
            POLL_INTERVAL_SECONDS="1",
            **environ,
        ) as started,
    ):
        yield queue, started


def submit(queue: DemoProcess, eval_id: str) -> None:
    with queue.client() as client:
        client.post("/tasks", json={"eval_id": eval_id, "code": "print(1)"}).raise_for_status()


async def routed(process: WorkerProcess, count: int) -> None:
    async def told() -> bool:
        return bool((await asyncio.to_thread(process.get, "/status")).json()["tasks_routed"] == count)

    await until(told, 30)


async def test_a_worker_exports_spans_and_counts_them_and_sends_what_waits_before_it_ends() -> None:
    async with OtlpReceiver() as receiver:
        with worker(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_SERVICE_NAME="router") as (queue, process):
            submit(queue, "a")
            assert len(await receiver.received(3)) == 3
            metrics = (await asyncio.to_thread(process.get, "/metrics")).text
            assert 'queueworker_spans_total{outcome="exported"} 3.0' in metrics
            receiver.spans.clear()
            submit(queue, "b")
            await routed(process, 2)
            process.signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0
            assert {span.attributes.get("messaging.message.id") for span in receiver.spans} == {"b", None}
            assert f"tracing: spans go to {receiver.url}/v1/traces, sampled by parentbased_always_on" in process.log()
    assert {resource["service.name"] for resource in receiver.resources} == {"router"}


async def test_the_command_of_the_page_sends_spans() -> None:
    async with OtlpReceiver() as receiver:
        with demo_process("queue", "--port", "0") as queue, demo_process("executor", "--port", "0") as executor:
            environ = {
                "QUEUE_SERVICE_URL": queue.url,
                "EXECUTOR_ENDPOINTS": executor.url,
                "REDIS_URL": "redis://127.0.0.1:9",
                "HOST": "127.0.0.1",
                "PORT": "0",
            }
            running = Place(environ, {"http://localhost:4318": receiver.url}).start(BLOCK.text)
            try:
                submit(queue, "a")
                assert len(await receiver.received(3)) == 3
                os.killpg(running.pid, signal.SIGINT)
                said, _ = await asyncio.to_thread(running.communicate, timeout=60)
            finally:
                running.kill()
    assert running.returncode == 0, said


async def test_a_worker_whose_endpoint_cannot_be_used_says_so_and_routes() -> None:
    with worker(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317") as (queue, process):
        submit(queue, "a")
        await routed(process, 1)
        assert "tracing is off: OTEL_EXPORTER_OTLP_ENDPOINT='collector:4317': must be an http://" in process.log()
        assert "queueworker_spans_total" not in process.get("/metrics").text
