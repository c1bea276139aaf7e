"""The demo's asynchronous executor: answers `running`, and publishes the outcome on a real Redis."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from devcluster.redis_server import RedisServer
from tests.support.demo_processes import demo_process, wait_until


class Events:
    """What a subscriber of every evaluation channel hears."""

    def __init__(self, redis: Redis) -> None:
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe("evaluation:completed", "evaluation:failed", "evaluation:running")
        self._messages: list[dict[str, Any]] = []

    def next(self) -> tuple[str, dict[str, Any]]:
        """The channel and the payload of the next event. Raises `AssertionError` when none comes."""
        wait_until(self._receive, "an event came")
        message = self._messages.pop(0)
        return message["channel"].decode(), json.loads(message["data"])

    def _receive(self, seconds: float = 0.1) -> bool:
        message = self._pubsub.get_message(timeout=seconds)
        if message is not None:
            self._messages.append(message)
        return message is not None


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def execute(executor: httpx.Client, code: str, timeout: int = 10) -> dict[str, Any]:
    answer = executor.post("/execute", json={"eval_id": "one", "code": code, "timeout": timeout})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_the_answer_is_running_and_the_outcome_is_published(server: RedisServer) -> None:
    with (
        Redis.from_url(server.url) as redis,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
    ):
        events = Events(redis)
        running = execute(executor, "import time; time.sleep(0.3); print('late')")
        assert (running["status"], running["output"], running["exit_code"]) == ("running", "", 0)
        assert executor.get("/capacity").json()["running"] == 1
        assert events.next() == (
            "evaluation:completed",
            {"eval_id": "one", "result": {**running, "status": "completed", "output": "late\n"}},
        )
        wait_until(lambda: executor.get("/capacity").json()["running"] == 0, "its slot is free")

        execute(executor, "raise ValueError('no')")
        channel, payload = events.next()
        assert channel == "evaluation:failed"
        assert (payload["eval_id"], payload["result"]["status"]) == ("one", "failed")
        assert payload["error"] == payload["result"]["error"]
        assert "ValueError: no" in payload["error"]


def test_after_sigterm_running_tasks_are_published_as_killed(server: RedisServer) -> None:
    with (
        Redis.from_url(server.url) as redis,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
    ):
        events = Events(redis)
        execute(executor, "import time; time.sleep(60)", timeout=60)
        assert process.stop() == 0
        channel, payload = events.next()
        assert (channel, payload["error"]) == ("evaluation:failed", "Executor is shutting down")
        assert payload["result"]["status"] == "killed"


def test_an_outcome_waits_for_a_redis_that_is_away() -> None:
    with (
        RedisServer() as server,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
    ):
        server.stop()
        assert execute(executor, "print(1)")["status"] == "running"
        wait_until(lambda: executor.get("/capacity").json()["running"] == 0, "the task has ended")
        server.start()
        with Redis.from_url(server.url) as redis:
            events = Events(redis)
            assert events.next()[1]["result"]["output"] == "1\n"
