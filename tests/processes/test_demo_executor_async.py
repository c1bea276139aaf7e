"""The asynchronous executor of `wire.md`: answers `running`, and publishes the outcome on a real Redis."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from demo.processes import EventRedis
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


def test_the_answer_is_running_and_the_outcome_comes_as_an_event(server: RedisServer) -> None:
    with (
        Redis.from_url(server.url) as redis,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
    ):
        events = Events(redis)
        running = execute(executor, "import time; time.sleep(0.3); print('late')")
        assert (running["status"], running["output"], running["exit_code"]) == ("running", "", 0)
        assert executor.get("/capacity").json()["running"] == 1
        channel, event = events.next()
        assert event.pop("completed_at") > "2020"
        expected = {name: running[name] for name in ("eval_id", "error", "exit_code", "executor_id")}
        assert (channel, event) == (
            "evaluation:completed",
            {**expected, "status": "completed", "output": "late\n"},
        )
        wait_until(lambda: executor.get("/capacity").json()["running"] == 0, "its slot is free")

        execute(executor, "raise ValueError('no')")
        channel, payload = events.next()
        assert channel == "evaluation:failed"
        assert (payload["eval_id"], payload["status"], payload["exit_code"]) == ("one", "failed", 1)
        assert payload["error"] == "", "the container's output has both streams"
        assert payload["output"].endswith("ValueError: no\n")

        execute(executor, "import time; time.sleep(30)", timeout=1)
        channel, payload = events.next()
        assert (channel, payload["status"]) == ("evaluation:completed", "timeout")
        assert "timed out" in payload["error"]


def test_logs_tell_what_runs_how_it_ended_and_what_nobody_knows(server: RedisServer) -> None:
    with (
        Redis.from_url(server.url) as redis,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
    ):
        events = Events(redis)
        unknown = {
            "eval_id": "one", "output": "", "error": "Container not found", "is_running": False, "exit_code": None
        }  # fmt: skip
        assert executor.get("/logs/one").json() == unknown
        execute(executor, "import time; print('first', flush=True); time.sleep(0.5); raise SystemExit(3)")
        wait_until(lambda: executor.get("/logs/one").json()["output"] == "first\n", "its output until now")
        logs = executor.get("/logs/one").json()
        assert (logs["is_running"], logs["exit_code"]) == (True, None)
        running = executor.get("/running").json()
        assert running["count"] == 1
        assert (
            running["running_executions"][0].items() >= {"eval_id": "one", "status": "running", "timeout": 10}.items()
        )
        events.next()
        logs = executor.get("/logs/one").json()
        assert (logs["is_running"], logs["exit_code"], logs["output"]) == (False, 3, "first\n")
        assert executor.get("/running").json() == {"running_executions": [], "count": 0}


def test_a_killed_task_has_no_event_and_is_not_known_any_more(server: RedisServer) -> None:
    with (
        Redis.from_url(server.url) as redis,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
    ):
        events = Events(redis)
        assert executor.post("/kill/one").status_code == 404
        execute(executor, "import time; time.sleep(60)", timeout=60)
        assert executor.post("/kill/one").json() == {"eval_id": "one", "status": "killed"}
        assert executor.get("/logs/one").json()["error"] == "Container not found"
        wait_until(lambda: executor.get("/capacity").json()["running"] == 0, "its slot is free")
        assert executor.post("/execute", json={"eval_id": "two", "code": "1"}).json()["status"] == "running"
        assert events.next()[1]["eval_id"] == "two", "nothing was published of the first one"


def test_sigterm_publishes_what_runs_as_killed(server: RedisServer) -> None:
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
        assert payload["status"] == "failed"


def test_an_outcome_waits_for_a_redis_that_is_away() -> None:
    """Pub/sub keeps nothing: the server moves to the executor's port once there is a subscriber."""
    with (
        EventRedis() as server,
        demo_process("executor", "--port", "0", "--async", "--redis-url", server.url) as process,
        process.client() as executor,
        Redis.from_url(server.subscriber_url) as redis,
    ):
        assert execute(executor, "print(1)")["status"] == "running"
        wait_until(lambda: executor.get("/capacity").json()["running"] == 0, "the task has ended")
        events = Events(redis)
        server.open()
        assert events.next()[1]["output"] == "1\n"
