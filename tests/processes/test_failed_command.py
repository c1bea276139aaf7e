"""`queueworker failed`: against a worker process, the demo's queue and executors, and a real Redis."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from redis import Redis

from queueworker.processes.environment import journal_group
from queueworker.routing.journal import failed_tasks as failures
from queueworker.routing.journal.failed_tasks import FailedTask
from tests.support.demo_processes import DemoProcess, demo_process, wait_until
from tests.support.worker_processes import COMMAND, run_command, worker_process

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key"
AWAY = "http://127.0.0.1:9"


@contextmanager
def platform(redis_url: str) -> Iterator[tuple[DemoProcess, DemoProcess, dict[str, str]]]:
    """A queue that wants a key, an executor, and the environment that worker and command share."""
    with (
        demo_process("queue", "--port", "0", "--api-key", KEY) as queue,
        demo_process("executor", "--port", "0") as executor,
    ):
        yield queue, executor, {"QUEUE_SERVICE_URL": queue.url, "QUEUE_API_KEY": KEY, "REDIS_URL": redis_url}


def client(queue: DemoProcess) -> httpx.Client:
    return queue.client(headers={"X-API-Key": KEY})


def submit(queue: DemoProcess, eval_id: str, code: str) -> None:
    with client(queue) as http:
        http.post("/tasks", json={"eval_id": eval_id, "code": code, "timeout": 7}).raise_for_status()


def account(queue: DemoProcess) -> dict[str, Any]:
    with client(queue) as http:
        found: dict[str, Any] = http.get("/account").json()
        return found


def failed(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run_command("failed", *arguments, **environ)


def listed(environ: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(failed("list", "-o", "json", *arguments, **environ).stdout)
    return found


def ids(environ: dict[str, str]) -> list[str]:
    return [task["eval_id"] for task in listed(environ)]


def leave(redis_url: str, group: str, *tasks: FailedTask) -> None:
    """As a router of that group leaves them."""
    hash_key, index, size = failures.keys(f"queueworker:{{{group}}}:")
    with Redis.from_url(redis_url) as redis:
        for task in tasks:
            redis.hset(hash_key, task.eval_id, task.encode())
            redis.zadd(index, {task.eval_id: task.failed_at * 1000})
            redis.incrby(size, len(task.encode()))


def made(eval_id: str, queue_url: str, when: float = 1.0, **fields: Any) -> FailedTask:
    task = json.dumps({"eval_id": eval_id, "code": "print(1)"}).encode()
    known: dict[str, Any] = {
        "error": "oops",
        "attempts": 1,
        "executor": "executor-1",
        "ambiguous": False,
        "task": task,
    } | fields
    return FailedTask(eval_id, failed_at=when, queue_url=queue_url, task_bytes=len(task), **known)


def test_failed_tasks_are_listed_shown_sent_again_and_complete(redis_url: str, tmp_path: Any) -> None:
    flag = tmp_path / "mended"
    code = f"import os; assert os.path.exists({str(flag)!r}), 'not yet'; print('mended')"
    with platform(redis_url) as (queue, executor, environ):
        for eval_id in ("first", "second", "third"):
            submit(queue, eval_id, code)
        with worker_process(**environ, EXECUTOR_ENDPOINTS=executor.url, EXECUTOR_CONCURRENCY="1"):
            wait_until(lambda: len(ids(environ)) == 3, "three failed tasks", 20)
            table = failed("list", "--limit", "2", **environ)
            assert table.stdout.splitlines()[0].split() == ["ID", "WHEN", "ATTEMPTS", "EXECUTOR", "ERROR"]
            assert [line.split()[0] for line in table.stdout.splitlines()[1:]] == ["third", "second"]
            assert table.stderr == "1 older tasks are not shown: use --limit 3\n"
            shown = failed("show", "second", **environ)
            assert "AssertionError: not yet" in shown.stdout
            assert '"timeout": 7' in shown.stdout
            as_json = json.loads(failed("show", "second", "-o", "json", **environ).stdout)
            assert (as_json["task"]["code"], as_json["attempts"], as_json["ambiguous"]) == (code, 1, False)

            again = failed("retry", "first", **environ)
            assert (again.returncode, again.stderr) == (0, "")
            assert again.stdout == f"first: sent to queue {queue.url} at position 1\n"
            wait_until(lambda: account(queue)["failed"] == 4, "it failed again")
            wait_until(lambda: ids(environ)[:1] == ["first"], "the newest failure")

            flag.touch()
            everything = failed("retry", "--all", **environ)
            assert everything.returncode == 0, everything.stderr
            assert [line.split(":")[0] for line in everything.stdout.splitlines()] == ["second", "third", "first"]
            wait_until(lambda: account(queue)["completed"] == 3, "three completed")
        empty = failed("list", **environ)
        assert (empty.stdout, empty.returncode) == ("", 0)
        assert empty.stderr.startswith("no failed tasks in group worker/127.0.0.1:")


def test_a_task_whose_router_was_killed_is_ambiguous_and_sent_only_when_asked_for(redis_url: str) -> None:
    with platform(redis_url) as (queue, executor, environ):
        worker = environ | {"EXECUTOR_ENDPOINTS": executor.url, "RECOVERY": "Fail"}
        submit(queue, "slow", "import time; time.sleep(1)")
        with worker_process(**worker) as first:
            with Redis.from_url(redis_url) as redis:
                pattern = "queueworker:*:journal:*"
                wait_until(lambda: any(b"executing" in v for k in redis.keys(pattern) for v in redis.hvals(k)), "run")
            first.signal(signal.SIGKILL)
            first.wait()
        with worker_process(**worker):
            wait_until(lambda: ids(environ) == ["slow"], "the failed task", 20)
            assert listed(environ)[0]["ambiguous"] is True
            refused = failed("retry", "--all", **environ)
            assert refused.returncode == 1
            assert "it may have run to its end, and would run twice (the router died" in refused.stderr
            assert ids(environ) == ["slow"]
            sent = failed("retry", "--all", "--ambiguous", **environ)
            assert (sent.returncode, sent.stdout) == (0, f"slow: sent to queue {queue.url} at position 1\n")
            wait_until(lambda: account(queue)["completed"] == 1, "completed")


def test_on_a_terminal_retry_asks_before_it_sends_tasks_that_may_have_run(redis_url: str) -> None:
    with platform(redis_url) as (queue, _, environ):
        group = journal_group(queue.url)
        leave(redis_url, group, made("a", queue.url, ambiguous=True), made("b", queue.url))
        for answer, status in ((b"n\n", 1), (b"y\n", 0)):
            ours, theirs = pty.openpty()
            command = [*COMMAND, "failed", "retry", "--all"]
            process = subprocess.Popen(
                command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environ
            )
            os.write(ours, answer)
            out, err = process.communicate(timeout=20)
            os.close(ours)
            os.close(theirs)
            assert b"may have run already and may run twice; send them too? [y/N]" in err
            assert process.returncode == status, (out, err)
        assert ids(environ) == []
        assert account(queue)["submitted"] == 2


def test_a_task_that_the_queue_has_already_is_not_sent_a_second_time(redis_url: str) -> None:
    with platform(redis_url) as (queue, _, environ), client(queue) as http:
        leave(redis_url, journal_group(queue.url), made("queued", queue.url, 1), made("running", queue.url, 2))
        submit(queue, "running", "print(1)")
        assert http.get("/tasks/next").json()["eval_id"] == "running"
        submit(queue, "queued", "print(1)")
        told = failed("retry", "--all", **environ)
        assert told.returncode == 0
        assert told.stdout == (
            f"queued: not sent: queue {queue.url} has it already (queued)\n"
            f"running: not sent: queue {queue.url} has it already (running)\n"
        )
        assert account(queue)["submitted"] == 2
        assert ids(environ) == ["running", "queued"], "they leave when they complete"


def test_tasks_that_cannot_be_sent_stay_in_the_record_each_with_its_reason(redis_url: str) -> None:
    with platform(redis_url) as (queue, _, environ):
        group = journal_group(queue.url)
        large = made("large", queue.url, 3, task=failures.NO_TASK)
        odd = made("odd", queue.url, 4, task=b'{"eval_id": "odd"}')
        leave(redis_url, group, made("good", queue.url, 1), made("away", AWAY, 2), large, odd)
        told = failed("retry", "--all", "--redis-url", redis_url, **environ)
        assert told.returncode == 1
        assert told.stdout == f"good: sent to queue {queue.url} at position 1\n"
        away, too_large, refused = told.stderr.splitlines()
        assert away.startswith(f"away: not sent: queue cannot be reached at {AWAY}")
        assert "are more than the record keeps (262,144): submit it yourself" in too_large
        assert refused.startswith(f"odd: queue {queue.url} did not take it: 4")
        assert ids(environ) == ["odd", "large", "away"]

        missing = failed("retry", "nobody", "away", "--queue-url", queue.url, **environ)
        assert missing.returncode == 1
        assert missing.stdout == f"away: sent to queue {queue.url} at position 2\n"
        assert missing.stderr.startswith(f"nobody: no failed task 'nobody' in group {group}: `queueworker failed list`")
        no_such = failed("show", "nobody", **environ)
        assert (no_such.returncode, no_such.stdout) == (1, "")


def test_a_refused_key_is_named_and_nothing_is_lost(redis_url: str) -> None:
    with platform(redis_url) as (queue, _, environ):
        leave(redis_url, journal_group(queue.url), made("a", queue.url, 1), made("b", queue.url, 2))
        wrong = failed("retry", "--all", **environ | {"QUEUE_API_KEY": "wrong"})
        assert wrong.returncode == 1
        reason = f"not sent: queue {queue.url} answered 401: the API key was refused; set QUEUE_API_KEY"
        assert wrong.stderr == f"a: {reason}\nb: {reason}\n"
        none = failed("retry", "a", **{k: v for k, v in environ.items() if k != "QUEUE_API_KEY"})
        assert "the API key was not given; set QUEUE_API_KEY" in none.stderr
        assert ids(environ) == ["b", "a"]


def test_an_objects_tasks_are_found_by_its_name_and_no_password_or_control_character_is_shown(redis_url: str) -> None:
    secret = made(
        "a",
        "http://me:secret@queue:8081",
        error="http://me:secret@executor broke\n\x1b[31mred http://me:secret@executor",
    )
    leave(redis_url, "default/legacy", secret)
    environ = {"REDIS_URL": redis_url}
    other = failed("list", "--group", "default/lagecy", **environ)
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr == "there is no group default/lagecy in this Redis: set --group to default/legacy\n"
    assert failed("show", "a", "--group", "default/lagecy", **environ).stderr == other.stderr
    assert failed("retry", "--all", "--group", "default/lagecy", **environ).stderr == other.stderr
    for output in (
        ["list"],
        ["list", "-o", "wide"],
        ["list", "-o", "json"],
        ["show", "a"],
        ["show", "a", "-o", "json"],
    ):
        told = failed(*output, "--group", "default/legacy", **environ)
        assert told.returncode == 0, told.stderr
        assert "red" in told.stdout
        assert "secret" not in told.stdout
        assert "\x1b" not in told.stdout
    wide = failed("list", "-o", "wide", "--group", "default/legacy", **environ).stdout
    assert wide.splitlines()[0].split() == ["ID", "WHEN", "ATTEMPTS", "EXECUTOR", "MAY-HAVE-RUN", "QUEUE", "ERROR"]
    assert wide.splitlines()[1].split()[:6] == [
        "a",
        "1970-01-01T00:00:01Z",
        "1",
        "executor-1",
        "no",
        "http://queue:8081",
    ]


def test_a_list_shows_what_was_raised_and_not_that_there_is_a_traceback(redis_url: str) -> None:
    error = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no such number\n\n'
    leave(redis_url, "default/legacy", made("a", "http://queue", error=error))
    told = failed("list", "--group", "default/legacy", REDIS_URL=redis_url).stdout
    assert told.splitlines()[1].endswith("ValueError: no such number")
    assert "Traceback" in failed("show", "a", "--group", "default/legacy", REDIS_URL=redis_url).stdout


def test_an_id_that_the_terminal_cannot_show_is_escaped(redis_url: str) -> None:
    leave(redis_url, "default/legacy", made("t-\u00fc", "http://queue"))
    told = failed("list", "--group", "default/legacy", REDIS_URL=redis_url, PYTHONIOENCODING="ascii")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[1].startswith("t-\\xfc ")


def test_a_task_is_shown_as_the_queue_handed_it_out(redis_url: str) -> None:
    numbers = b'"timeout":%b,"big":123456789012345678901234567890,"f":1.10,"deep":%b' % (
        b"9" * 400,
        b"[" * 500 + b"]" * 500,
    )
    leave(redis_url, "default/legacy", made("a", "http://queue", task=b'{"eval_id":"a","code":"x",%b}' % numbers))
    shown = failed("show", "a", "--group", "default/legacy", REDIS_URL=redis_url)
    assert shown.returncode == 0, shown.stderr
    assert f'"timeout": {"9" * 400}' in shown.stdout
    assert '"f": 1.10' in shown.stdout
    assert (
        numbers.decode() in failed("show", "a", "--group", "default/legacy", "-o", "json", REDIS_URL=redis_url).stdout
    )


def test_mistakes_are_answered_with_a_sentence_and_no_traceback() -> None:
    away = failed("list", "--redis-url", "redis://:pw@127.0.0.1:9")
    assert away.returncode == 1
    assert away.stderr.startswith("Redis redis://127.0.0.1:9: ")
    assert away.stderr.endswith("; set --redis-url or REDIS_URL\n")
    for arguments, words in (
        (["list", "--group", "legacy"], "'legacy' is not a group"),
        (["list", "--redis-url", "http://redis"], "must be a redis://, rediss:// or unix:// URL"),
        (["list", "--redis-url", "redis://:hunter2@redis/hunter2"], "its path must be the number of a database"),
        (["retry"], "give one or more IDs, or --all"),
        (["retry", "a", "--all"], "give one or more IDs, or --all"),
    ):
        told = failed(*arguments)
        assert told.returncode == 2
        assert words in told.stderr
        assert "Traceback" not in told.stderr
        assert "hunter2" not in told.stderr
