"""The storage worker against the events of `wire.md`, with a real Redis and a real SQLite file."""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from demo.services.storage_worker import Event, Store, Summary, parse_event, summarize
from devcluster.redis_server import RedisServer
from tests.support.demo_processes import DemoProcess, demo_process, run_demo, wait_until

COMPLETED, FAILED, RUNNING = "evaluation:completed", "evaluation:failed", "evaluation:running"
RESULT = {"status": "completed", "output": "1\n", "exit_code": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def redis(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "evaluations.db"


@pytest.fixture
def worker(server: RedisServer, database: Path) -> Iterator[DemoProcess]:
    with demo_process("storage_worker", "--redis-url", server.url, "--database", str(database)) as process:
        yield process


def publish(redis: Redis, channel: str, **payload: Any) -> int:
    """How many subscribers heard it."""
    return int(redis.publish(channel, json.dumps(payload)))


def rows(database: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT eval_id, channel, status, body, deliveries FROM events ORDER BY eval_id, channel"
        ).fetchall()


def test_events_published_after_the_first_line_are_stored(worker: DemoProcess, redis: Redis, database: Path) -> None:
    failed = {"status": "failed", "output": "", "exit_code": 1}
    assert worker.first_line == f"subscribed to {COMPLETED}, {FAILED}, {RUNNING}"
    publish(redis, RUNNING, eval_id="a", executor_id="executor-1", container_id="7", timeout=30)
    publish(redis, COMPLETED, eval_id="a", result=RESULT)
    publish(redis, FAILED, eval_id="b", error="No healthy executors available")
    publish(redis, FAILED, eval_id="c", error="Traceback", result=failed)
    wait_until(lambda: len(rows(database)) == 4, "four rows")
    (completed, running, without_result, with_result) = rows(database)
    assert completed[:3] == ("a", COMPLETED, "completed")
    assert json.loads(completed[3]) == RESULT
    assert running == ("a", RUNNING, None, None, 1)
    assert without_result == ("b", FAILED, None, "No healthy executors available", 1)
    assert (with_result[2], json.loads(with_result[3])) == ("failed", failed)
    assert summarize(database) == Summary(completed=1, failed=2, running=1, distinct=3, duplicates=0)


def test_a_second_delivery_is_counted_and_changes_nothing(worker: DemoProcess, redis: Redis, database: Path) -> None:
    publish(redis, COMPLETED, eval_id="a", result=RESULT)
    publish(redis, COMPLETED, eval_id="a", result={**RESULT, "output": "other"})
    publish(redis, FAILED, eval_id="a", error="no")
    wait_until(lambda: len(rows(database)) == 2, "both channels")
    completed, failed = rows(database)
    assert (completed[4], json.loads(completed[3])["output"]) == (2, "1\n")
    assert failed[4] == 1
    assert summarize(database) == Summary(completed=1, failed=1, running=0, distinct=1, duplicates=1)


def test_unknown_fields_are_ignored_and_useless_messages_do_no_harm(
    worker: DemoProcess, redis: Redis, database: Path
) -> None:
    for useless in (b"no json", b"\xff", b"[]", b"{}", b'{"eval_id": null}', b'{"eval_id": 7}', b""):
        redis.publish(COMPLETED, useless)
    publish(redis, COMPLETED, eval_id="a", result=RESULT, sequence=7, attempt={"n": 1})
    wait_until(lambda: len(rows(database)) == 1, "the good one")
    assert worker.process.poll() is None


def test_a_burst_of_events_is_stored_whole(worker: DemoProcess, redis: Redis, database: Path) -> None:
    pipeline = redis.pipeline(transaction=False)
    for number in range(3000):
        pipeline.publish(COMPLETED, json.dumps({"eval_id": f"task-{number}", "result": RESULT}))
    pipeline.publish(FAILED, json.dumps({"eval_id": "large", "error": "x", "result": {"output": "y" * 5_000_000}}))
    pipeline.execute()
    wait_until(lambda: summarize(database).distinct == 3001, "3001 outcomes")
    assert summarize(database) == Summary(3000, 1, 0, 3001, 0)


def test_sigterm_commits_what_was_received(worker: DemoProcess, redis: Redis, database: Path) -> None:
    for number in range(20):
        assert publish(redis, COMPLETED, eval_id=f"task-{number}", result=RESULT) == 1
    wait_until(lambda: summarize(database).completed > 0, "the first commit")
    assert worker.stop() == 0
    assert summarize(database).completed == 20


def test_a_worker_that_was_killed_goes_on_with_its_database(server: RedisServer, redis: Redis, database: Path) -> None:
    arguments = ("storage_worker", "--redis-url", server.url, "--database", str(database))
    with demo_process(*arguments) as worker:
        publish(redis, COMPLETED, eval_id="a", result=RESULT)
        wait_until(lambda: len(rows(database)) == 1, "the event before the kill")
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
    with demo_process(*arguments):
        publish(redis, COMPLETED, eval_id="a", result=RESULT)
        publish(redis, COMPLETED, eval_id="b", result=RESULT)
        wait_until(lambda: summarize(database).distinct == 2, "the event after the kill")
    assert summarize(database) == Summary(completed=2, failed=0, running=0, distinct=2, duplicates=1)


def test_the_worker_survives_a_restart_of_redis(database: Path) -> None:
    with (
        RedisServer() as server,
        demo_process("storage_worker", "--redis-url", server.url, "--database", str(database)) as worker,
    ):
        with Redis.from_url(server.url) as redis:
            assert publish(redis, COMPLETED, eval_id="before", result=RESULT) == 1
        wait_until(lambda: len(rows(database)) == 1, "the event before the outage")
        server.stop()
        server.start()
        with Redis.from_url(server.url) as redis:
            wait_until(lambda: publish(redis, COMPLETED, eval_id="after", result=RESULT) == 1, "subscribed again", 5)
        wait_until(lambda: len(rows(database)) == 2, "the event after the outage")
        assert worker.stop() == 0
    assert summarize(database) == Summary(completed=2, failed=0, running=0, distinct=2, duplicates=0)


def test_the_ready_file_exists_only_while_the_worker_is_subscribed(database: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.touch()  # left by one that was killed
    with RedisServer() as server:
        server.stop()
        with demo_process(
            *("storage_worker", "--redis-url", server.url, "--database", str(database), "--ready-file", str(ready)),
            wait_for_line=False,
        ) as worker:
            wait_until(lambda: "Redis is away" in worker.error_line(), "it says so")
            assert not ready.exists()
            server.start()
            wait_until(ready.exists, "it has subscribed")
            server.stop()
            wait_until(lambda: not ready.exists(), "it has lost Redis")
            assert worker.stop() == 0


@pytest.mark.parametrize("ready", ["", "no/such/folder/ready"])
def test_a_ready_file_that_cannot_be_made_ends_the_worker_with_a_sentence(
    server: RedisServer, database: Path, tmp_path: Path, ready: str
) -> None:
    at = ("--redis-url", server.url, "--database", str(database), "--ready-file", str(tmp_path / ready))
    ended = run_demo("storage_worker", *at)
    assert ended.returncode == 1
    assert ended.stderr.startswith("--ready-file: [Errno ")
    assert str(tmp_path / ready) in ended.stderr


def test_the_worker_waits_for_a_redis_that_is_not_there_yet_and_can_be_stopped(tmp_path: Path) -> None:
    with demo_process(
        *("storage_worker", "--redis-url", "redis://127.0.0.1:1", "--database", str(tmp_path / "a.db")),
        wait_for_line=False,
    ) as worker:
        wait_until((tmp_path / "a.db").exists, "it has started")
        assert worker.process.poll() is None
        wait_until(lambda: "Redis is away" in worker.error_line(), "it says so")
        assert worker.stop() == 0


def test_the_summary_is_one_line(database: Path) -> None:
    store = Store(database)
    store.write([Event("a", COMPLETED, "completed", "{}", 1.0), Event("b", FAILED, None, "no", 2.0)])
    store.write([Event("a", COMPLETED, "completed", "{}", 3.0)])
    store.close()
    ended = run_demo("storage_worker", "summary", "--database", str(database))
    assert (ended.returncode, ended.stdout) == (0, "completed=1 failed=1 running=0 distinct=2 duplicates=1\n")


def test_the_summary_without_a_database_is_a_sentence(database: Path) -> None:
    ended = run_demo("storage_worker", "summary", "--database", str(database))
    assert ended.returncode == 1
    assert ended.stderr == f"{database}: no such database; has the storage worker run?\n"
    assert not database.exists()


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b'{"eval_id": "a", "result": {"status": "completed"}}', ("completed", '{"status":"completed"}')),
        (b'{"eval_id": "a", "error": "no"}', (None, "no")),
        (b'{"eval_id": "a", "error": "no", "result": {"status": 7}}', (None, '{"status":7}')),
        (b'{"eval_id": "a", "error": {"code": 1}}', (None, "{'code': 1}")),
        (b'{"eval_id": "a"}', (None, None)),
        (
            b'{"eval_id": "a", "status": "failed", "output": "x", "exit_code": 1, "n": 1}',
            ("failed", '{"status":"failed","output":"x","exit_code":1}'),
        ),
        (
            b'{"eval_id": "a", "output": "1", "result": {"status": "completed", "output": "2"}}',
            (None, '{"output":"1"}'),
        ),
    ],
)
def test_what_stands_at_the_top_is_kept_else_the_result_and_where_there_is_none_the_error(
    data: bytes, event: tuple[str | None, str | None]
) -> None:
    assert parse_event(COMPLETED, data, 1.5) == Event("a", COMPLETED, *event, at=1.5)


def test_help_names_the_options() -> None:
    ended = run_demo("storage_worker", "--help")
    assert ended.returncode == 0
    for word in ("--redis-url", "--database", "summary"):
        assert word in ended.stdout
