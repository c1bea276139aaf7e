"""The gateway to numbered executors, with real processes behind it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.support.demo_processes import demo_process, wait_until


def test_an_executor_is_killed_and_started_again() -> None:
    with demo_process("gateway") as gateway, gateway.client() as client:
        assert client.get("/executors/2/health").json()["executor_id"] == "executor-2"
        assert client.post("/processes/2/kill").status_code == 204
        assert client.get("/executors/2/health").status_code == 502
        assert client.get("/executors/1/health").status_code == 200
        assert client.post("/processes/2/start").status_code == 204
        assert client.get("/executors/2/health").json()["executor_id"] == "executor-2"


def test_a_task_on_a_killed_executor_is_answered_with_502() -> None:
    with demo_process("gateway") as gateway, gateway.client() as client, gateway.client() as other:
        client.get("/executors/1/health").raise_for_status()

        def running() -> bool:
            return bool(other.get("/executors/1/capacity").json()["running"])

        with ThreadPoolExecutor(1) as thread:
            task = {"eval_id": "one", "code": "import time; time.sleep(60)"}
            answer = thread.submit(client.post, "/executors/1/execute", json=task)
            wait_until(running, "the task runs")
            other.post("/processes/1/kill").raise_for_status()
            assert answer.result(20).status_code == 502


def test_there_are_twenty_executors() -> None:
    with demo_process("gateway") as gateway, gateway.client() as client:
        assert client.get("/executors/21/health").status_code == 404
