"""The queue service against the table of `wire.md`, over real HTTP."""

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.demo_processes import DemoProcess, demo_process, run_demo

TASK = {"eval_id": "one", "code": "print(1)"}
RESULT = {"output": {"eval_id": "one", "status": "completed", "output": "1\n", "error": "", "exit_code": 0}}


@pytest.fixture(scope="module")
def service() -> Iterator[DemoProcess]:
    with demo_process("queue", "--port", "0") as process:
        yield process


@pytest.fixture
def queue(service: DemoProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        client.delete("/tasks").raise_for_status()
        yield client


def submit(queue: httpx.Client, eval_id: str, **fields: Any) -> httpx.Response:
    return queue.post("/tasks", json={"eval_id": eval_id, "code": "print(1)", **fields})


def account(queue: httpx.Client) -> dict[str, int]:
    counts: dict[str, int] = queue.get("/account").json()
    return counts


def test_the_first_line_is_the_address_and_sigterm_ends_the_queue_with_status_0() -> None:
    with demo_process("queue", "--port", "0") as process:
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:[1-9]\d*", process.first_line)
        with process.client() as client:
            assert client.get("/health").status_code == 200
        assert process.stop() == 0


def test_a_port_in_use_is_answered_with_a_sentence_and_no_traceback(service: DemoProcess) -> None:
    port = service.url.rpartition(":")[2]
    ended = run_demo("queue", "--port", port)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert "Traceback" not in ended.stderr


def test_a_submitted_task_is_queued_at_a_position(queue: httpx.Client) -> None:
    whole = {**TASK, "language": "python", "engine": "docker", "timeout": 30, "priority": 1}
    answer = queue.post("/tasks", json=whole)
    assert (answer.status_code, answer.json()) == (200, {"eval_id": "one", "status": "queued", "position": 1})
    assert submit(queue, "two").json() == {"eval_id": "two", "status": "queued", "position": 2}


def test_next_pops_in_the_order_of_submission_with_the_defaults_filled_in(queue: httpx.Client) -> None:
    submit(queue, "one")
    submit(queue, "two", timeout=5, language="python3", engine="none", priority=9)
    assert queue.get("/tasks/next").json() == {
        "eval_id": "one",
        "code": "print(1)",
        "language": "python",
        "engine": "docker",
        "timeout": 30,
    }
    assert queue.get("/tasks/next").json() == {
        "eval_id": "two",
        "code": "print(1)",
        "language": "python3",
        "engine": "none",
        "timeout": 5,
    }


def test_an_empty_queue_answers_null(queue: httpx.Client) -> None:
    answer = queue.get("/tasks/next")
    assert (answer.status_code, answer.content) == (200, b"null")
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("option", "status", "body"), [("204", 204, b""), ("empty", 200, b"")])
def test_an_empty_queue_answers_as_other_implementations_do(option: str, status: int, body: bytes) -> None:
    with (
        demo_process("queue", "--port", "0", "--empty-answer", option) as process,
        process.client() as queue,
    ):
        answer = queue.get("/tasks/next")
        assert (answer.status_code, answer.content) == (status, body)
        submit(queue, "one")
        assert queue.get("/tasks/next").json()["eval_id"] == "one"


async def test_concurrent_pops_never_hand_out_a_task_twice(service: DemoProcess, queue: httpx.Client) -> None:
    ids = [f"task-{number}" for number in range(200)]
    for eval_id in ids:
        submit(queue, eval_id)
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:

        async def pop_until_empty() -> list[str]:
            popped: list[str] = []
            while (task := (await client.get("/tasks/next")).json()) is not None:
                popped.append(task["eval_id"])
            return popped

        popped = await asyncio.gather(*(pop_until_empty() for _ in range(16)))
    assert sorted(eval_id for lane in popped for eval_id in lane) == sorted(ids)
    assert sum(1 for lane in popped if lane) > 1


def test_a_completed_task_is_forgotten(queue: httpx.Client) -> None:
    submit(queue, "one")
    queue.get("/tasks/next")
    answer = queue.post("/tasks/one/complete", json=RESULT)
    assert (answer.status_code, answer.json()) == (200, {"status": "completed"})
    assert queue.get("/tasks/one").status_code == 404
    assert queue.post("/tasks/one/complete", json=RESULT).status_code == 404


def test_a_failed_task_is_forgotten(queue: httpx.Client) -> None:
    submit(queue, "one")
    queue.get("/tasks/next")
    answer = queue.post("/tasks/one/fail", json={"error": "no"})
    assert (answer.status_code, answer.json()) == (200, {"status": "failed"})
    again = queue.post("/tasks/one/fail", json={"error": "no"})
    assert (again.status_code, again.json()) == (200, {"status": "not_found"})


def test_reports_of_an_unknown_id_are_answered_as_the_wire_contract_says(queue: httpx.Client) -> None:
    assert queue.post("/tasks/nobody/complete", json=RESULT).status_code == 404
    answer = queue.post("/tasks/nobody/fail", json={"error": "no"})
    assert (answer.status_code, answer.json()) == (200, {"status": "not_found"})


def test_a_restarted_service_has_forgotten_what_it_handed_out() -> None:
    with demo_process("queue", "--port", "0") as process, process.client() as queue:
        submit(queue, "one")
        assert queue.get("/tasks/next").json()["eval_id"] == "one"
        port = process.url.rpartition(":")[2]
        process.stop()
    with demo_process("queue", "--port", port) as process, process.client() as queue:
        assert queue.post("/tasks/one/complete", json=RESULT).status_code == 404
        assert account(queue)["unknown_reports"] == 1


def test_a_task_is_shown_while_it_is_queued_and_while_it_runs(queue: httpx.Client) -> None:
    submit(queue, "one")
    submit(queue, "two")
    queued = queue.get("/tasks/two").json()
    assert set(queued) == {"eval_id", "status", "position", "queued_at", "message"}
    assert (queued["eval_id"], queued["status"], queued["position"]) == ("two", "queued", 2)
    assert datetime.fromisoformat(queued["queued_at"]).tzinfo is not None
    queue.get("/tasks/next")
    assert queue.get("/tasks/two").json()["position"] == 1
    assert queue.get("/tasks/one").json()["status"] == "running"
    assert queue.get("/tasks/nobody").status_code == 404


def test_status_counts_what_is_queued_and_what_runs(queue: httpx.Client) -> None:
    for eval_id in ("one", "two", "three"):
        submit(queue, eval_id)
    queue.get("/tasks/next")
    answer = queue.get("/status")
    assert answer.status_code == 200
    assert answer.json() == {"queued": 2, "processing": 1, "queue_length": 2, "total_tasks": 3}


def test_health(queue: httpx.Client) -> None:
    submit(queue, "one")
    health = queue.get("/health")
    assert health.status_code == 200
    assert health.json() | {"redis": None} == {
        "status": "healthy",
        "service": "queue",
        "queue_size": 1,
        "total_tasks": 1,
        "redis": None,
    }


def test_delete_clears_what_is_queued_and_what_runs(queue: httpx.Client) -> None:
    submit(queue, "one")
    submit(queue, "two")
    queue.get("/tasks/next")
    answer = queue.delete("/tasks")
    assert (answer.status_code, answer.json()) == (200, {"status": "cleared", "tasks_removed": 2})
    assert queue.get("/status").json()["total_tasks"] == 0
    assert queue.get("/tasks/next").json() is None


def test_a_repeated_submission_makes_no_second_task(queue: httpx.Client) -> None:
    submit(queue, "one")
    submit(queue, "two")
    assert submit(queue, "one").json() == {"eval_id": "one", "status": "queued", "position": 1}
    assert queue.get("/status").json()["queued"] == 2
    queue.get("/tasks/next")
    assert submit(queue, "one").status_code == 200
    assert queue.get("/status").json() == {"queued": 1, "processing": 1, "queue_length": 1, "total_tasks": 2}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tasks", b"no json"),
        ("/tasks", b"[]"),
        ("/tasks", b'{"code": "print(1)"}'),
        ("/tasks", b'{"eval_id": "one"}'),
        ("/tasks", b'{"eval_id": null, "code": "print(1)"}'),
        ("/tasks", b'{"eval_id": "", "code": "print(1)"}'),
        ("/tasks", b'{"eval_id": "one", "code": "print(1)", "timeout": "long"}'),
        ("/tasks", b'{"eval_id": "one", "code": "print(1)", "timeout": 0}'),
        ("/tasks/one/complete", b"{}"),
        ("/tasks/one/complete", b'{"output": "text"}'),
        ("/tasks/one/fail", b'{"error": null}'),
    ],
)
def test_a_malformed_request_is_refused_and_changes_nothing(queue: httpx.Client, path: str, body: bytes) -> None:
    submit(queue, "one")
    before = account(queue)
    answer = queue.post(path, content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert account(queue) == before
    assert queue.get("/status").json()["queued"] == 1


def test_a_result_of_20_megabytes_is_taken(queue: httpx.Client) -> None:
    submit(queue, "one")
    answer = queue.post("/tasks/one/complete", json={"output": {"status": "completed", "output": "x" * 20_000_000}})
    assert answer.json() == {"status": "completed"}


def test_every_call_needs_the_key_when_there_is_one() -> None:
    with demo_process("queue", "--port", "0", "--api-key", "secret") as process:
        calls = [
            ("POST", "/tasks"),
            ("GET", "/tasks/next"),
            ("POST", "/tasks/one/complete"),
            ("POST", "/tasks/one/fail"),
            ("GET", "/tasks/one"),
            ("GET", "/status"),
            ("DELETE", "/tasks"),
            ("GET", "/account"),
        ]
        for headers in ({}, {"X-API-Key": "wrong"}):
            with process.client(headers=headers) as stranger:
                assert {call: stranger.request(*call, json=TASK).status_code for call in calls} == dict.fromkeys(
                    calls, 401
                )
                assert stranger.get("/health").status_code == 200
        with process.client(headers={"X-API-Key": "secret"}) as friend:
            assert submit(friend, "one").status_code == 200
            assert friend.get("/tasks/next").json()["eval_id"] == "one"
            assert account(friend)["submitted"] == 1


def test_the_account_tells_unknown_reports_from_second_ones() -> None:
    with (
        demo_process("queue", "--port", "0", "--remember", "2") as process,
        process.client() as queue,
    ):
        for eval_id in ("one", "two", "three", "four"):
            submit(queue, eval_id)
        for _ in range(3):
            queue.get("/tasks/next")
        queue.post("/tasks/one/complete", json=RESULT)
        queue.post("/tasks/two/fail", json={"error": "no"})
        queue.post("/tasks/two/complete", json=RESULT)  # a second report
        queue.post("/tasks/one/fail", json={"error": "no"})  # and another
        queue.post("/tasks/nobody/fail", json={"error": "no"})
        queue.post("/tasks/three/complete", json=RESULT)  # pushes `one` out of memory
        queue.post("/tasks/one/complete", json=RESULT)
        queue.delete("/tasks")
        assert account(queue) == {
            "submitted": 4,
            "handed_out": 3,
            "completed": 2,
            "failed": 1,
            "cleared": 1,
            "unknown_reports": 2,
            "reported_twice": 2,
        }


def test_help_names_the_options() -> None:
    ended = run_demo("queue", "--help")
    assert ended.returncode == 0
    for option in ("--host", "--port", "--api-key", "--empty-answer", "--remember"):
        assert option in ended.stdout


def test_a_queue_that_keeps_its_tasks_comes_back_with_them(tmp_path: Path) -> None:
    options = ("queue", "--port", "0", "--keep", str(tmp_path / "tasks.json"))
    with demo_process(*options) as stopped, stopped.client() as client:
        for eval_id in ("running", "waiting"):
            submit(client, eval_id)
        client.get("/tasks/next")
        before = account(client)
        assert stopped.stop() == 0
    with demo_process(*options) as process, process.client() as client:
        assert account(client) == before
        assert client.get("/tasks/next").json()["eval_id"] == "waiting"
        assert client.post("/tasks/running/complete", json=RESULT).status_code == 200
