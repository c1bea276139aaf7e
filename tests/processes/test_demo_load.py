"""The load generator against the real queue service, and against one that is in trouble."""

import asyncio
import random
import re
import select
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from demo.services.load import LoadError, code_for, retry_delay, run_load
from tests.support.demo_processes import DemoProcess, demo_process, run_demo, wait_until
from tests.support.stubs import until

# For a loaded machine.
PATIENCE_SECONDS = 15


@pytest.fixture(scope="module")
def service() -> Iterator[DemoProcess]:
    with demo_process("queue", "--port", "0") as process:
        yield process


@pytest.fixture
def queue(service: DemoProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        client.delete("/tasks").raise_for_status()
        yield client


def queued(queue: httpx.Client) -> int:
    count: int = queue.get("/status").json()["queued"]
    return count


@asynccontextmanager
async def troubled_queue(answers: list[str]) -> AsyncIterator[tuple[str, list[str]]]:
    """A queue that answers the listed status lines (`hang up` closes instead), and then 200; with what it was
    sent.
    """
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(re.search(r"content-length: (\d+)", head.lower()).group(1))  # type: ignore[union-attr]
        seen.append((await reader.readexactly(length)).decode())
        status = answers.pop(0) if answers else "200 OK"
        if status != "hang up":
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


async def test_as_many_tasks_as_asked_for_are_submitted_each_with_an_id_of_its_own(
    service: DemoProcess, queue: httpx.Client
) -> None:
    heard: list[int] = []
    before = queue.get("/account").json()["submitted"]
    assert await run_load(service.url, count=50, on_submitted=heard.append) == 50
    assert await run_load(service.url, count=50) == 50
    assert heard == list(range(1, 51))
    assert queued(queue) == 100
    assert queue.get("/account").json()["submitted"] - before == 100


async def test_a_submitted_task_is_as_the_wire_contract_says(service: DemoProcess, queue: httpx.Client) -> None:
    assert await run_load(service.url, count=1, prefix="mine", task_timeout=7, fail_percent=100) == 1
    task = queue.get("/tasks/next").json()
    assert "raise" in task.pop("code")
    assert task == {"eval_id": "mine-000000", "language": "python", "engine": "docker", "timeout": 7}


async def test_the_rate_is_kept(service: DemoProcess, queue: httpx.Client) -> None:
    began = time.monotonic()
    assert await run_load(service.url, count=41, rate=40) == 41
    assert 0.95 <= time.monotonic() - began < PATIENCE_SECONDS


async def test_a_load_that_is_stopped_returns_the_number_that_the_queue_took(
    service: DemoProcess, queue: httpx.Client
) -> None:
    stop = asyncio.Event()
    load = asyncio.create_task(run_load(service.url, rate=100, stop=stop))
    await until(lambda: queued(queue) > 5)
    stop.set()
    submitted = await asyncio.wait_for(load, PATIENCE_SECONDS)
    assert submitted == queued(queue)


async def test_a_cancelled_load_ends_at_once(service: DemoProcess, queue: httpx.Client) -> None:
    load = asyncio.create_task(run_load(service.url, rate=0.01))
    await until(lambda: queued(queue) == 1)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(load, PATIENCE_SECONDS)


async def test_429_and_5xx_and_a_broken_connection_are_followed_by_a_retry_of_the_same_task() -> None:
    answers = ["429 Too Many Requests", "503 Service Unavailable", "hang up", "500 Internal Server Error"]
    async with troubled_queue(answers) as (url, seen):
        assert await run_load(url, count=1) == 1
    assert len(seen) == 5
    assert len(set(seen)) == 1


async def test_an_outage_of_the_queue_costs_no_task() -> None:
    with demo_process("queue", "--port", "0") as process:
        url = process.url
        process.stop()
    load = asyncio.create_task(run_load(url, count=5))
    await asyncio.sleep(0.3)
    assert not load.done()
    with (
        demo_process("queue", "--port", url.rpartition(":")[2]) as process,
        process.client() as queue,
    ):
        assert await asyncio.wait_for(load, PATIENCE_SECONDS) == 5
        assert queued(queue) == 5


async def test_a_refused_key_is_an_error_and_is_not_retried() -> None:
    async with troubled_queue(["401 Unauthorized"] * 8) as (url, _):
        with pytest.raises(LoadError, match="answered 401"):
            await run_load(url, count=3)


async def test_a_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="rate: must be positive"):
        await run_load("http://127.0.0.1:1", rate=0)


def test_the_mix_is_python_and_fails_as_often_as_asked_for() -> None:
    chance = random.Random(7)
    codes = [code_for(index, 25, chance) for index in range(2000)]
    failing = Counter("raise" in code for code in codes)[True]
    assert 400 < failing < 600
    assert not any("raise" in code_for(index, 0, chance) for index in range(200))
    assert all("raise" in code_for(index, 100, chance) for index in range(200))
    assert all("sleep" in code_for(index, 0, chance, 100) for index in range(200))
    assert not any("sleep" in code_for(index, 0, chance, 0) for index in range(200))
    for code in set(codes):
        compile(code, "<task>", "exec")


@pytest.mark.parametrize(
    ("attempt", "retry_after", "seconds"),
    [
        (0, None, 0.1),
        (1, None, 0.2),
        (9, None, 2.0),
        (10**6, None, 2.0),
        (0, "1", 1.0),
        (0, "60", 2.0),
        (1, "soon", 0.2),
    ],
)
def test_the_delay_before_a_retry(attempt: int, retry_after: str | None, seconds: float) -> None:
    assert retry_delay(attempt, retry_after) == pytest.approx(seconds)


def test_the_command_submits_with_the_key_and_says_how_many() -> None:
    with demo_process("queue", "--port", "0", "--api-key", "secret") as process:
        load = ("load", "--queue-url", process.url, "--count", "20", "--rate", "0")
        ended = run_demo(*load, "--api-key", "secret")
        assert (ended.returncode, ended.stdout) == (0, "submitted=20\n")
        refused = run_demo(*load)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "answered 401" in refused.stderr


def test_sigterm_ends_the_command_with_its_last_line(service: DemoProcess, queue: httpx.Client) -> None:
    with demo_process("load", "--queue-url", service.url, "--rate", "50", wait_for_line=False) as load:
        wait_until(lambda: queued(queue) > 5, "some tasks are submitted")
        assert load.stop() == 0
        assert load.process.stdout is not None
        assert select.select([load.process.stdout], [], [], 5)[0]
        assert load.process.stdout.read() == f"submitted={queued(queue)}\n"


def test_help_names_the_options() -> None:
    ended = run_demo("load", "--help")
    assert ended.returncode == 0
    for option in ("--queue-url", "--rate", "--count", "--fail-percent", "--api-key"):
        assert option in ended.stdout


async def test_no_task_is_submitted_while_too_many_wait(queue: httpx.Client) -> None:
    stop = asyncio.Event()
    load = asyncio.create_task(run_load(str(queue.base_url), max_waiting=10, concurrency=1, stop=stop))
    await until(lambda: queued(queue) == 11, PATIENCE_SECONDS)
    queue.get("/tasks/next").raise_for_status()
    await until(lambda: queued(queue) == 11, PATIENCE_SECONDS)
    stop.set()
    assert await load == 12
