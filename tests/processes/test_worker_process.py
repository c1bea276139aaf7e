"""`queueworker worker` as a process: against the demo's queue and executors, and a real Redis."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from devcluster.ports import free_ports
from tests.support.accounts import check_account
from tests.support.demo_processes import DemoProcess, demo_process, wait_until
from tests.support.worker_processes import COMMAND, can_have_hosts, run_command, worker_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a-key"
NOWHERE = {"QUEUE_SERVICE_URL": "http://127.0.0.1:9", "EXECUTOR_ENDPOINTS": "http://127.0.0.1:9"}


@contextmanager
def platform(*executor_options: str) -> Iterator[tuple[DemoProcess, DemoProcess]]:
    """A queue that wants a key, and an executor."""
    with (
        demo_process("queue", "--port", "0", "--api-key", KEY) as queue,
        demo_process("executor", "--port", "0", *executor_options) as executor,
    ):
        yield queue, executor


def legacy(queue: DemoProcess, executor: DemoProcess, redis_url: str) -> dict[str, str]:
    """The environment, with the journal quick enough for a test."""
    return {
        "QUEUE_SERVICE_URL": queue.url,
        "QUEUE_API_KEY": KEY,
        "REDIS_URL": redis_url,
        "EXECUTOR_ENDPOINTS": executor.url,
        "EXECUTOR_CONCURRENCY": "4",
    }


def submit(queue: DemoProcess, ids: list[str], code: str = "print(6 * 7)") -> None:
    with queue.client(headers={"X-API-Key": KEY}) as client:
        for eval_id in ids:
            client.post("/tasks", json={"eval_id": eval_id, "code": code}).raise_for_status()


def account(queue: DemoProcess) -> dict[str, Any]:
    with queue.client(headers={"X-API-Key": KEY}) as client:
        found: dict[str, Any] = client.get("/account").json()
        return found


@contextmanager
def published(redis_url: str) -> Iterator[list[tuple[str, Any]]]:
    """What is published, by channel and payload, from now on."""
    seen: list[tuple[str, Any]] = []

    def take(message: dict[str, Any]) -> None:
        seen.append((message["channel"].decode(), orjson.loads(message["data"])))

    with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        pubsub.psubscribe(**{"evaluation:*": take})
        thread = pubsub.run_in_thread(sleep_time=0.05)
        try:
            yield seen
        finally:
            thread.stop()
            thread.join()


def test_every_task_is_routed_once_and_the_http_api_has_the_legacy_shapes(redis_url: str) -> None:
    ids = [f"task-{i}" for i in range(40)]
    with platform() as (queue, executor), published(redis_url) as events:
        submit(queue, ids)
        with worker_process(**legacy(queue, executor, redis_url), HOSTNAME="worker-7") as worker:
            wait_until(lambda: account(queue)["completed"] == 40, "40 tasks completed", 30)
            wait_until(lambda: len(events) == 40, "40 events")
            wait_until(lambda: worker.get("/status").json()["tasks_routed"] == 40, "40 tasks counted")
            status, health = worker.get("/status"), worker.get("/health")
            metrics = worker.get("/metrics").text
            ready = worker.get("/readyz")
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            assert "40 tasks were routed" in worker.log()
        totals = account(queue)
    assert status.json() == {
        "worker_id": "worker-7",
        "status": "healthy",
        "tasks_routed": 40,
        "executors": {"total": 1, "healthy": 1, "health": {executor.url: True}},
    }
    assert health.json() == {"status": "healthy", "service": "queue-worker", "details": status.json()}
    assert (status.status_code, health.status_code, ready.status_code) == (200, 200, 200)
    none = dict.fromkeys(("failed", "cleared", "unknown_reports", "reported_twice"), 0)
    check_account(totals, submitted=40, handed_out=40, completed=40, **none)
    assert Counter(event["eval_id"] for _, event in events) == Counter(ids)
    assert {(channel, event["result"]["output"]) for channel, event in events} == {("evaluation:completed", "42\n")}
    found = {s.name: s.value for f in text_string_to_metric_families(metrics) for s in f.samples}
    assert found["queueworker_tasks_completed_total"] == 40
    assert found["queueworker_execution_seconds_count"] == 40
    assert found["queueworker_tasks_per_minute"] == 40


@pytest.mark.skipif(not can_have_hosts(), reason="no process may have its own /etc/hosts here")
def test_with_the_legacy_environment_all_numbered_executors_are_used(redis_url: str, tmp_path: Path) -> None:
    """`executor-1` and `executor-2` on port 8083, as its users have them: on loopback addresses of the test's own."""
    ids = [f"task-{i}" for i in range(30)]
    network = f"127.{64 + os.getpid() // 254 % 128}.{1 + os.getpid() % 254}"
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{network}.1 executor-1\n{network}.2 executor-2\n")
    options = ("--port", "8083", "--fast", "--delay-ms", "20")
    with (
        demo_process("queue", "--port", "0", "--api-key", KEY) as queue,
        demo_process("executor", "--host", f"{network}.1", "--executor-id", "one", *options),
        demo_process("executor", "--host", f"{network}.2", "--executor-id", "two", *options),
        published(redis_url) as events,
    ):
        submit(queue, ids)
        environ = {
            "QUEUE_SERVICE_URL": queue.url,
            "QUEUE_API_KEY": KEY,
            "REDIS_URL": redis_url,
            "EXECUTOR_COUNT": "2",
            "EXECUTOR_BASE_URL": "http://executor",
            "HOSTNAME": "queue-worker-1",
            "CELERY_ENABLED": "true",
            "CELERY_PERCENTAGE": "0.5",
            "FORCE_LEGACY_QUEUE": "false",
        }
        with worker_process(hosts, **environ) as worker:
            wait_until(lambda: account(queue)["completed"] == 30, "30 tasks completed", 30)
            wait_until(lambda: len(events) == 30, "30 events")
            status = worker.get("/status").json()
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        totals = account(queue)
    assert status["executors"] == {
        "total": 2,
        "healthy": 2,
        "health": {"http://executor-1:8083": True, "http://executor-2:8083": True},
    }
    check_account(totals, completed=30, failed=0, reported_twice=0, unknown_reports=0)
    assert Counter(event["eval_id"] for _, event in events) == Counter(ids)
    assert {event["result"]["executor_id"] for _, event in events} == {"one", "two"}


def test_a_worker_that_is_killed_and_starts_again_under_another_name_routes_every_task_once(redis_url: str) -> None:
    ids = [f"task-{i}" for i in range(60)]
    with platform("--fast", "--delay-ms", "150") as (queue, executor), published(redis_url) as events:
        environ = legacy(queue, executor, redis_url)
        submit(queue, ids)
        with worker_process(**environ, HOSTNAME="first") as worker:
            wait_until(lambda: account(queue)["completed"] >= 12, "12 tasks completed")
            worker.signal(signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL
        left = account(queue)
        assert left["handed_out"] > left["completed"], "nothing was in flight when the worker was killed"
        with worker_process(**environ, HOSTNAME="second") as worker:
            wait_until(lambda: account(queue)["completed"] == 60, "60 tasks completed", 60)
            wait_until(lambda: {e["eval_id"] for _, e in events} == set(ids), "an event for each task", 30)
            recovered = {
                s.name: s.value for f in text_string_to_metric_families(worker.get("/metrics").text) for s in f.samples
            }["queueworker_tasks_recovered_total"]
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        totals = account(queue)
    assert (totals["submitted"], totals["completed"], totals["failed"]) == (60, 60, 0)
    assert recovered >= 1
    # The one report whose answer the killed worker did not see may have been made twice.
    assert totals["reported_twice"] + totals["unknown_reports"] <= left["handed_out"] - left["completed"]


def test_after_sigterm_the_worker_drains_and_is_not_ready(redis_url: str) -> None:
    with platform("--fast", "--delay-ms", "5000") as (queue, executor):
        submit(queue, ["running", *[f"later-{i}" for i in range(20)]])
        environ = legacy(queue, executor, redis_url) | {"EXECUTOR_CONCURRENCY": "1"}
        with worker_process(**environ) as worker:
            wait_until(lambda: account(queue)["handed_out"] == 1, "the first task handed out")
            assert worker.get("/readyz").status_code == 200
            worker.signal(signal.SIGTERM)
            wait_until(lambda: worker.get("/readyz").status_code == 503, "not ready")
            assert worker.get("/readyz").json()["reason"] == "the worker was told to stop and is draining"
            assert worker.get("/livez").status_code == 200
            assert worker.get("/status").json()["tasks_routed"] == 0
            assert worker.wait() == 0
        totals = account(queue)
    assert (totals["handed_out"], totals["completed"]) == (1, 1)


def test_a_worker_whose_terminal_is_closed_drains(redis_url: str) -> None:
    """The shell and the kernel both send a SIGHUP."""
    with platform("--fast", "--delay-ms", "2000") as (queue, executor):
        submit(queue, ["running"])
        with worker_process(**legacy(queue, executor, redis_url)) as worker:
            wait_until(lambda: account(queue)["handed_out"] == 1, "the task handed out")
            worker.signal(signal.SIGHUP)
            wait_until(lambda: worker.get("/readyz").status_code == 503, "draining")
            worker.signal(signal.SIGHUP)
            assert worker.wait() == 0
            assert "received SIGHUP: draining" in worker.log()
        assert account(queue)["completed"] == 1


def test_a_worker_under_nohup_routes_on_when_its_terminal_is_closed(redis_url: str) -> None:
    with platform() as (queue, executor):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a process inherits what is ignored
        try:
            started = worker_process(**legacy(queue, executor, redis_url))
            worker = started.__enter__()
        finally:
            signal.signal(signal.SIGHUP, before)
        try:
            worker.signal(signal.SIGHUP)
            submit(queue, ["later"])
            wait_until(lambda: account(queue)["completed"] == 1, "the task completed")
        finally:
            started.__exit__(None, None, None)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_second_signal_ends_the_worker_at_once(redis_url: str, number: signal.Signals, status: int) -> None:
    with platform("--fast", "--delay-ms", "20000") as (queue, executor):
        submit(queue, ["stuck"])
        with worker_process(**legacy(queue, executor, redis_url)) as worker:
            wait_until(lambda: account(queue)["handed_out"] == 1, "the task handed out")
            worker.signal(number)
            wait_until(lambda: worker.get("/readyz").status_code == 503, "draining")
            worker.signal(number)
            assert worker.wait() == status
        executor.process.kill()  # it would wait for its task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_worker_with_status_0_while_every_peer_is_away(number: signal.Signals) -> None:
    with worker_process(**NOWHERE, REDIS_URL="redis://127.0.0.1:9", LOG_FORMAT="text") as worker:
        assert worker.get("/health").json()["service"] == "queue-worker"
        wait_until(lambda: worker.get("/health").json()["status"] == "degraded", "degraded")
        assert worker.get("/livez").status_code == 200
        worker.signal(number)
        assert worker.wait() == 0
        assert "Traceback" not in worker.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("arguments", [["worker"], ["operator", "--port", "0"]])
def test_a_signal_during_the_imports_ends_the_worker_with_status_0(
    arguments: list[str], number: signal.Signals
) -> None:
    """As process 1 of a container it would otherwise not even notice. The signal comes with the first import."""
    code = (
        "import os, sys\n"
        "from queueworker.cli import main as cli\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('fastapi', 'kopf', 'kubernetes'):\n"
        f"            os.kill(os.getpid(), {number.value})\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = {['queueworker', *arguments]}\n"
        "cli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_worker_without_standard_streams_runs_and_ends_with_status_0(closed: str) -> None:
    """uvloop ends a process that closes a socket with the number of one of them."""
    (port,) = free_ports(1)
    environ = os.environ | NOWHERE | {"REDIS_URL": "redis://127.0.0.1:9", "HOST": "127.0.0.1", "PORT": str(port)}
    with subprocess.Popen(["sh", "-c", f'exec "$0" worker {closed}', *COMMAND], env=environ) as process:
        try:
            wait_until(lambda: _lives(port), "the worker lives")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("command", ["version", "--version", "crd", "worker --help", "healthcheck"])
def test_output_that_cannot_be_written_is_a_sentence_and_status_1(command: str) -> None:
    full = subprocess.run(["sh", "-c", f'"$0" {command} >/dev/full', *COMMAND], capture_output=True, check=False)
    assert full.returncode == 1
    assert full.stderr == b"the output could not be written: No space left on device\n"
    closed = subprocess.run(["sh", "-c", f'"$0" {command} >&-', *COMMAND], capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (1 if command == "healthcheck" else 0, b"")


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    piped = subprocess.run(["sh", "-c", '"$0" crd | head -1', *COMMAND], capture_output=True, check=False)
    assert piped.stderr == b""


def test_a_worker_whose_log_cannot_be_written_routes_and_ends_with_status_0(redis_url: str) -> None:
    (port,) = free_ports(1)
    with platform() as (queue, executor):
        submit(queue, ["one"])
        environ = os.environ | legacy(queue, executor, redis_url) | {"HOST": "127.0.0.1", "PORT": str(port)}
        with subprocess.Popen(["sh", "-c", 'exec "$0" worker >/dev/full 2>&1', *COMMAND], env=environ) as process:
            try:
                wait_until(lambda: account(queue)["completed"] == 1, "the task completed")
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()


def test_a_worker_whose_log_nobody_reads_routes_and_ends_with_status_0(redis_url: str) -> None:
    (port,) = free_ports(1)
    reading, writing = os.pipe()
    with platform() as (queue, executor):
        environ = os.environ | legacy(queue, executor, redis_url) | {"HOST": "127.0.0.1", "PORT": str(port)}
        with subprocess.Popen([*COMMAND, "worker"], env=environ, stdout=writing, stderr=writing) as process:
            try:
                wait_until(lambda: _lives(port), "the worker listens")
                _fill(writing)
                submit(queue, ["one"])
                wait_until(lambda: account(queue)["completed"] == 1, "the task completed")
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()
                os.close(reading)
                os.close(writing)


def _fill(pipe: int) -> None:
    """Through another open file, because whether a write waits belongs to that, and the worker shares ours."""
    other = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(other, b"x")
    os.close(other)


def _lives(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_log_is_json_lines_if_asked_for(redis_url: str) -> None:
    environ = NOWHERE | {"REDIS_URL": redis_url, "LOG_FORMAT": "json", "EXECUTOR_PORT": "tcp://10.0.0.1:8083"}
    with worker_process(**environ) as worker:
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        events = [orjson.loads(line) for line in worker.log().splitlines()]
    assert all({"time", "level", "logger", "message"} <= event.keys() for event in events)
    messages = [event["message"] for event in events]
    assert "EXECUTOR_PORT=tcp://10.0.0.1:8083 is ignored: Kubernetes set it for a Service" in messages
    assert messages[-1] == "stopped; 0 tasks were routed"


def test_a_port_in_use_ends_the_worker_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run_command("worker", **NOWHERE, HOST="127.0.0.1", PORT=port)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"cannot listen on 127.0.0.1:{port}: another process uses port {port}; end that")
    assert ended.stderr.count("\n") == 1


def test_the_help_names_the_commands_and_variables() -> None:
    helped = run_command("worker", "--help")
    assert helped.returncode == 0
    assert "EXECUTOR_COUNT (1)" in helped.stdout
    assert "curl http://localhost:8084/status" in helped.stdout
    assert "--lease-namespace" in run_command("operator", "--help").stdout
    refused = run_command("operator", "--namespace", "Team_A")
    assert refused.returncode == 2
    assert "'Team_A' is not a namespace" in refused.stderr


def test_the_worker_loads_no_kubernetes() -> None:
    """It starts in a fraction of the time, and in half the memory."""
    code = (
        "import sys, queueworker.cli.main, queueworker.processes.worker; "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & {'kopf', 'kubernetes', 'aiohttp', 'fastapi'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert found.stdout.split() == ["fastapi"]


def test_the_crd_and_the_version_are_printed() -> None:
    crd = yaml.safe_load(run_command("crd").stdout)
    assert (crd["kind"], crd["metadata"]["name"]) == ("CustomResourceDefinition", "queueworkers.crucible.dev")
    assert run_command("version").stdout.count(".") >= 1


def test_a_worker_may_open_more_files_than_the_soft_limit_of_its_shell() -> None:
    few = ["sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh"]
    with worker_process(through=few, **NOWHERE) as worker:
        assert resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)[0] > 64
