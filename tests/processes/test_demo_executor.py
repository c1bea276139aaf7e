"""The executor against `wire.md`, with real subprocesses, over real HTTP."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.demo_processes import DemoProcess, children, demo_process, run_demo, wait_until

OUTPUT_BYTES = 100_000
# For a loaded machine.
PATIENCE_SECONDS = 15


@pytest.fixture(scope="module")
def service() -> Iterator[DemoProcess]:
    with demo_process(
        *("executor", "--port", "0", "--executor-id", "executor-7", "--max-concurrent", "2"),
        *("--memory-mb", "256", "--max-output-bytes", str(OUTPUT_BYTES)),
        env={"QUEUE_API_KEY": "secret"},
    ) as process:
        yield process


@pytest.fixture
def executor(service: DemoProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def execute(executor: httpx.Client, code: str, timeout: int = 10) -> dict[str, Any]:
    answer = executor.post("/execute", json={"eval_id": "one", "code": code, "timeout": timeout})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split(")")[1].split()[0] != "Z"
    return False


def test_a_task_that_exits_with_0_is_completed(executor: httpx.Client) -> None:
    result = execute(executor, "print(6 * 7)")
    assert int(result.pop("container_id")) > 1
    assert result == {
        "eval_id": "one",
        "status": "completed",
        "output": "42\n",
        "error": "",
        "exit_code": 0,
        "executor_id": "executor-7",
    }


def test_a_task_that_raises_is_failed_with_its_traceback(executor: httpx.Client) -> None:
    result = execute(executor, "print('before')\n1 / 0")
    assert (result["status"], result["exit_code"], result["output"]) == ("failed", 1, "before\n")
    assert result["error"].startswith("Traceback")
    assert "ZeroDivisionError" in result["error"]


def test_a_task_that_fails_without_output_has_an_error(executor: httpx.Client) -> None:
    result = execute(executor, "raise SystemExit(3)")
    assert (result["status"], result["exit_code"], result["error"]) == ("failed", 3, "Exited with status 3")


def test_code_that_is_not_python_fails(executor: httpx.Client) -> None:
    result = execute(executor, "this is no python at all")
    assert result["status"] == "failed"
    assert "SyntaxError" in result["error"]


def test_a_task_that_outlives_its_timeout_is_killed_with_its_children(executor: httpx.Client) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    result = execute(executor, code, timeout=1)
    assert 1 <= time.monotonic() - began < PATIENCE_SECONDS
    assert (result["status"], result["exit_code"]) == ("timeout", 137)
    assert result["error"] == "Execution timed out after 1 seconds"
    wait_until(lambda: not alive(int(result["output"])), "the grandchild is gone")
    assert not alive(int(result["container_id"]))


def test_a_process_that_a_finished_task_left_in_the_background_is_killed(executor: httpx.Client) -> None:
    code = "import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid)"
    began = time.monotonic()
    result = execute(executor, code)
    assert result["status"] == "completed"
    assert time.monotonic() - began < PATIENCE_SECONDS
    wait_until(lambda: not alive(int(result["output"])), "the background process is gone")


def test_a_task_that_dies_by_a_signal_is_killed(executor: httpx.Client) -> None:
    result = execute(executor, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (result["status"], result["exit_code"], result["error"]) == ("killed", 139, "Killed by SIGSEGV")


def test_memory_is_limited(executor: httpx.Client) -> None:
    result = execute(executor, "print(len(bytearray(64 * 1024 * 1024)))\nbytearray(512 * 1024 * 1024)")
    assert (result["status"], result["output"]) == ("failed", "67108864\n")
    assert "MemoryError" in result["error"]


def test_output_beyond_the_limit_is_cut_off_and_the_task_goes_on(executor: httpx.Client) -> None:
    result = execute(executor, f"import sys\nprint('x' * {3 * OUTPUT_BYTES})\nprint('done', file=sys.stderr)")
    assert (result["status"], result["exit_code"], result["error"]) == ("completed", 0, "done\n")
    assert result["output"] == "x" * OUTPUT_BYTES
    assert result["truncated"] is True


def test_a_runaway_writer_is_killed_and_fills_no_memory(service: DemoProcess, executor: httpx.Client) -> None:
    began = time.monotonic()
    result = execute(executor, "while True:\n    print('x' * 1000)", timeout=30)
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert (result["status"], result["error"]) == ("killed", f"Output exceeded {8 * OUTPUT_BYTES} bytes")
    assert len(result["output"]) == OUTPUT_BYTES
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert peak < 300 * 1024, "KiB at the peak"


def test_output_that_is_not_text_is_answered(executor: httpx.Client) -> None:
    result = execute(executor, "import sys\nsys.stdout.buffer.write(b'\\xff\\x00ok')")
    assert (result["status"], result["output"]) == ("completed", "\ufffd\x00ok")


def test_a_task_has_a_directory_of_its_own_and_none_of_the_secrets(executor: httpx.Client) -> None:
    code = "import os\nopen('file', 'w').write('x')\nprint(os.getcwd(), os.environ.get('QUEUE_API_KEY'))"
    directory, secret = execute(executor, code)["output"].split()
    assert secret == "None"
    assert not Path(directory).exists()


def test_a_long_code_is_run(executor: httpx.Client) -> None:
    result = execute(executor, "x = 1\n" * 100_000 + "print(x)")
    assert (result["status"], result["output"]) == ("completed", "1\n")


def test_health_and_capacity_of_an_idle_executor(executor: httpx.Client) -> None:
    health = executor.get("/health")
    assert health.status_code == 200
    assert health.json() | {"running": None} == {
        "status": "healthy",
        "service": "executor",
        "executor_id": "executor-7",
        "running": None,
    }
    capacity = executor.get("/capacity")
    assert capacity.status_code == 200
    assert capacity.json() == {
        "executor_id": "executor-7",
        "can_accept": True,
        "running": 0,
        "max_concurrent": 2,
        "available_slots": 2,
    }


def test_a_task_above_the_capacity_is_answered_with_429_and_no_slot_is_lost(executor: httpx.Client) -> None:
    with ThreadPoolExecutor() as threads:
        slow = [threads.submit(execute, executor, "import time; time.sleep(0.8)") for _ in range(2)]
        wait_until(lambda: not executor.get("/capacity").json()["can_accept"], "both slots are taken")
        assert executor.get("/capacity").json()["available_slots"] == 0
        health = executor.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        refused = executor.post("/execute", json={"eval_id": "two", "code": "print(1)"})
        assert refused.status_code == 429
        assert refused.json()["detail"]
        assert [task.result()["status"] for task in slow] == ["completed", "completed"]
    assert executor.get("/capacity").json()["available_slots"] == 2


def test_a_task_whose_client_went_away_runs_to_its_end_and_is_reaped(
    service: DemoProcess, executor: httpx.Client, tmp_path: Path
) -> None:
    code = f"import time\ntime.sleep(0.8)\nopen({str(tmp_path / 'done')!r}, 'w').close()"
    with pytest.raises(httpx.ReadTimeout):
        executor.post("/execute", json={"eval_id": "gone", "code": code}, timeout=0.3)
    assert executor.get("/capacity").json()["running"] == 1
    wait_until(lambda: executor.get("/capacity").json()["running"] == 0, "its slot is free")
    assert (tmp_path / "done").exists()
    assert children(service.process.pid) == []


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b'{"eval_id": "one"}',
        b'{"code": "print(1)"}',
        b'{"eval_id": null, "code": "print(1)"}',
        b'{"eval_id": "one", "code": "print(1)", "timeout": 0}',
        b'{"eval_id": "one", "code": "print(1)", "timeout": "1"}',
    ],
)
def test_a_malformed_request_is_refused(executor: httpx.Client, body: bytes) -> None:
    answer = executor.post("/execute", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert executor.get("/capacity").json()["running"] == 0


def test_after_sigterm_running_tasks_are_answered_as_killed_and_no_process_is_left() -> None:
    with demo_process("executor", "--port", "0") as process, process.client() as executor:
        with ThreadPoolExecutor() as threads:
            task = threads.submit(execute, executor, "import time; time.sleep(60)", 60)
            wait_until(lambda: len(children(process.process.pid)) == 1, "the task runs")
            pid = int(children(process.process.pid)[0].split()[0])
            assert process.stop() == 0
            result = task.result()
        assert (result["status"], result["exit_code"], result["error"]) == (
            "killed",
            137,
            "Executor is shutting down",
        )
        assert not alive(pid)


def test_the_tasks_of_a_killed_executor_die_with_it(tmp_path: Path) -> None:
    with (
        demo_process(
            "executor", "--port", "0", env={"TMPDIR": str(tmp_path)}
        ) as process,  # its tasks' directories stay
        process.client() as executor,
    ):
        with pytest.raises(httpx.ReadTimeout):
            executor.post("/execute", json={"eval_id": "a", "code": "import time; time.sleep(60)"}, timeout=0.5)
        (child,) = children(process.process.pid)
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        wait_until(lambda: not alive(int(child.split()[0])), "the task is gone")


async def test_with_fast_the_answer_comes_after_the_delay_and_nothing_is_run(tmp_path: Path) -> None:
    with demo_process("executor", "--port", "0", "--fast", "--delay-ms", "200", "--max-concurrent", "20") as process:
        task = {"eval_id": "one", "code": f"open({str(tmp_path / 'ran')!r}, 'w')", "timeout": 5}
        async with httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
            began = time.monotonic()
            answers = await asyncio.gather(*(client.post("/execute", json=task) for _ in range(20)))
            assert 0.2 <= time.monotonic() - began < 20 * 0.2
        results = [answer.json() for answer in answers]
        assert {result["status"] for result in results} == {"completed"}
        assert len({result["container_id"] for result in results}) == 20
        assert set(results[0]) == {
            *("eval_id", "status", "output", "error", "exit_code", "executor_id", "container_id")
        }
        assert not (tmp_path / "ran").exists()


def test_help_names_the_options() -> None:
    ended = run_demo("executor", "--help")
    assert ended.returncode == 0
    for option in ("--host", "--port", "--executor-id", "--memory-mb", "--delay-ms", "--fast", "--async"):
        assert option in ended.stdout
