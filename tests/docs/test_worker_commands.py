"""The command blocks about the worker, with a queue, an executor, a Redis and a worker at hand."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from devcluster.redis_server import RedisServer
from tests.support.demo_processes import DemoProcess, demo_process, wait_until
from tests.support.doc_blocks import Block, Place, run_by
from tests.support.operating import account, submit
from tests.support.worker_processes import run_command, worker_process

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = run_by(__file__)
GROUP, FAILED = "default/legacy", "task-17"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def queue() -> Iterator[DemoProcess]:
    with demo_process("queue", "--port", "0") as process:
        yield process


@pytest.fixture(scope="module")
def place(redis: RedisServer, queue: DemoProcess) -> Iterator[Place]:
    with demo_process("executor", "--port", "0") as executor:
        names = {
            "http://localhost:8081": queue.url,
            "http://localhost:8083": executor.url,
            "redis://localhost:6379": redis.url,
            "NAMESPACE/NAME": GROUP,
            "TASK": FAILED,
        }
        yield Place({"REDIS_URL": redis.url, "PORT": "0", "HOST": "127.0.0.1"}, names)


@pytest.fixture
def failed_task(place: Place, redis: RedisServer, queue: DemoProcess) -> None:
    """A task that a worker of the group has failed."""
    settings = {"QUEUE_SERVICE_URL": queue.url, "REDIS_URL": redis.url, "JOURNAL_GROUP": GROUP}
    with worker_process(**settings, EXECUTOR_ENDPOINTS=place.names["http://localhost:8083"]), queue.client() as client:
        client.post("/tasks", json={"eval_id": FAILED, "code": "raise ValueError"}).raise_for_status()
        wait_until(lambda: FAILED in run_command("failed", "list", "--group", GROUP, **settings).stdout, "it fails", 60)


def having(words: str) -> list[Block]:
    found = [block for block in BLOCKS if words in block.text]
    assert found
    return found


def test_the_blocks_are_these() -> None:
    assert len(having("queueworker worker") + having("curl ") + having("queueworker failed")) == len(BLOCKS)


def test_the_worker_routes_until_ctrl_c(place: Place, queue: DemoProcess) -> None:
    (block,) = having("queueworker worker")
    before = account(queue)["completed"]
    submit(queue, 3)
    running = place.start(block.text)
    assert running.stdout is not None
    try:
        said = next(line for line in running.stdout if "listening on" in line)
        wait_until(lambda: account(queue)["completed"] == before + 3, f"the tasks are done: {said}")
        os.killpg(running.pid, signal.SIGINT)
        rest, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, rest


def test_curl_submits_the_task(place: Place, queue: DemoProcess) -> None:
    (block,) = having("curl ")
    before = account(queue)["submitted"]
    place.run_all(block)
    assert account(queue)["submitted"] == before + 1


@pytest.mark.usefixtures("failed_task")
@pytest.mark.parametrize("block", having("queueworker failed"), ids=lambda block: block.name)
def test_failed_tasks_are_shown(place: Place, block: Block) -> None:
    for step in block.steps:
        assert FAILED in place.run(step)
