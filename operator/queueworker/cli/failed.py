"""`queueworker failed`: the failed tasks of a router's group, and sending them again."""

# ruff: noqa: PLC0415 -- the worker shares this process's imports, and needs none of these
from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from queueworker.processes.environment import journal_group
from queueworker.redaction import without_credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from queueworker.routing.journal.failed_tasks import FailedTask
    from queueworker.routing.resend import FailedTasks

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""See the tasks that failed, and send them to their queue again.

Redis keeps the newest 1,000 of each group. A worker's group is its JOURNAL_GROUP, by default made from its
QUEUE_SERVICE_URL: with the worker's own environment nothing has to be said. A QueueWorker object's group is its
namespace/name.

\b
Examples:
  queueworker failed list
  queueworker failed list --group default/legacy --redis-url redis://redis:6379 -o wide
  queueworker failed show task-17
  queueworker failed retry task-17 task-18
  QUEUE_API_KEY=… queueworker failed retry --all
""",
    short_help="See the tasks that failed, and send them again.",
)

_GROUP = re.compile(r"[^/\s]+/[^/\s]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_QUEUE_URL = "http://queue:8081"


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


class ShowOutput(StrEnum):
    TEXT = "text"
    JSON = "json"


def _group(given: str | None) -> str:
    if given:
        if not _GROUP.fullmatch(given):
            raise typer.BadParameter(f"{given!r} is no group: two words with a slash between them, say default/legacy")
        return given
    url = os.environ.get("QUEUE_SERVICE_URL") or _QUEUE_URL
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise typer.BadParameter(f"no group, and QUEUE_SERVICE_URL={without_credentials(url)!r} is no http:// URL")
    return journal_group(url)


def _redis(given: str) -> str:
    from redis.asyncio.connection import parse_url

    try:
        parse_url(given)
    except ValueError as error:
        raise typer.BadParameter(f"redis-py cannot read it: {error}") from error
    return given


Group = Annotated[
    str,
    typer.Option(
        metavar="GROUP",
        envvar="JOURNAL_GROUP",
        default_factory=lambda: _group(None),
        callback=_group,
        show_default="the worker's of QUEUE_SERVICE_URL",
        help="Whose tasks: namespace/name of a QueueWorker object, or a worker's JOURNAL_GROUP.",
    ),
]
RedisURL = Annotated[
    str,
    typer.Option(metavar="URL", envvar="REDIS_URL", show_envvar=True, callback=_redis, help="The router's Redis."),
]


@app.command("list")
def list_(
    *,
    group: Group,
    redis_url: RedisURL = "redis://redis:6379",
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the newest.")] = 50,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="wide adds the queue, and whether the task may have run.")
    ] = Output.TABLE,
) -> None:
    """The failed tasks, newest first."""
    tasks, more = _run(_newest(redis_url, group, limit), redis_url)
    if output is Output.JSON:
        _print_json([_readable(task) for task in tasks])
        return
    if not tasks:
        print(f"no failed tasks in group {group}", file=sys.stderr)
        return
    _print_table(tasks, wide=output is Output.WIDE)
    if more:
        print(f"{more} older ones are not shown: --limit {limit + more} shows them", file=sys.stderr)


@app.command()
def show(
    eval_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    group: Group,
    redis_url: RedisURL = "redis://redis:6379",
    output: Annotated[ShowOutput, typer.Option("--output", "-o")] = ShowOutput.TEXT,
) -> None:
    """One failed task, with its whole error and the task as the queue gave it."""
    import orjson

    task = _run(_one(redis_url, group, eval_id), redis_url)
    if task is None:
        _fail(_unknown(eval_id, group))
    if output is ShowOutput.JSON:
        _print_json(_readable(task) | {"task": orjson.loads(task.task)})
        return
    rows = {
        "ID": task.eval_id,
        "When": _when(task),
        "Attempts": task.attempts,
        "Executor": task.executor or "none was asked",
        "Queue": without_credentials(task.queue_url),
        "May have run": "yes: `retry` sends it with --ambiguous only"
        if task.ambiguous
        else "no, or it said that it failed",
    }
    for name, value in rows.items():
        print(f"{name + ':':<14}{_plain(str(value))}")
    print("Error:", *_plain(without_credentials(task.error)).splitlines(), sep="\n  ")
    if task.kept:
        data = orjson.dumps(orjson.loads(task.task), option=orjson.OPT_INDENT_2).decode()
        print("Task:", *_plain(data).splitlines(), sep="\n  ")
    else:
        print(f"Task:         not kept ({f'{task.task_bytes:,} bytes' if task.task_bytes else 'not known'})")


@app.command()
def retry(
    eval_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", show_default=False)] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Every failed task of the group, the oldest first.")] = False,
    ambiguous: Annotated[
        bool,
        typer.Option("--ambiguous", help="Also those that may have run to their end: they may then run twice."),
    ] = False,
    group: Group,
    redis_url: RedisURL = "redis://redis:6379",
    queue_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Send to this queue, not to the one each task came from (behind a port-forward, say)."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="QUEUE_API_KEY", show_envvar=True, help="The queue's key."),
    ] = None,
) -> None:
    """Send failed tasks to their queue again.

    A task leaves the record once the queue has accepted it. One that the queue has already is not sent a second
    time; it leaves the record when it completes. A failure for want of an answer (a broken connection, a timeout, a
    router that died) does not say that the task did not run: such a task is sent with --ambiguous only, or after
    asking on a terminal. Status 1: a task was not sent.
    """
    if bool(eval_ids) == all_:
        raise typer.BadParameter("say which: one or more IDs, or --all")
    wanted = list(dict.fromkeys(eval_ids)) if eval_ids else None
    if not _run(_retry(redis_url, group, wanted, api_key or None, queue_url, ambiguous=ambiguous), redis_url):
        raise typer.Exit(1)


# --- the work


@asynccontextmanager
async def _record(redis_url: str, group: str) -> AsyncIterator[FailedTasks]:
    from queueworker.routing.resend import FailedTasks

    record = FailedTasks(redis_url, group)
    try:
        yield record
    finally:
        await record.close()


async def _newest(redis_url: str, group: str, limit: int) -> tuple[list[FailedTask], int]:
    """So many, and how many more there are."""
    async with _record(redis_url, group) as record:
        found = [task async for task in record.newest_first()]
    return found[:limit], len(found[limit:])


async def _one(redis_url: str, group: str, eval_id: str) -> FailedTask | None:
    async with _record(redis_url, group) as record:
        return await record.get(eval_id)


async def _retry(
    redis_url: str, group: str, wanted: list[str] | None, key: str | None, queue_url: str | None, *, ambiguous: bool
) -> bool:
    """Whether all that was asked for is with its queue now."""
    from queueworker.routing.resend import Resender, Sent, refusal

    async with _record(redis_url, group) as record:
        if wanted is None:
            found = {task.eval_id: task async for task in record.newest_first()}
            tasks: dict[str, FailedTask | None] = dict(reversed(found.items()))
            if not tasks:
                print(f"no failed tasks in group {group}", file=sys.stderr)
        else:
            tasks = {eval_id: await record.get(eval_id) for eval_id in wanted}
        doubtful = [t for t in tasks.values() if t is not None and t.kept and t.ambiguous]
        if doubtful and not ambiguous and sys.stdin.isatty():
            question = f"{len(doubtful)} of {len(tasks)} may have run to their end and would run twice; send them too?"
            ambiguous = typer.confirm(question, default=False, err=True)
        done = 0
        async with aclosing(Resender(record, key, queue_url)) as resender:
            for eval_id, task in tasks.items():
                if task is None:
                    sent = Sent(eval_id, done=False, message=_unknown(eval_id, group))
                elif reason := refusal(task, ambiguous=ambiguous):
                    sent = Sent(eval_id, done=False, message=f"not sent: {reason}")
                else:
                    sent = await resender.send(task)
                done += sent.done
                print(_plain(f"{eval_id}: {sent.message}"), file=sys.stdout if sent.done else sys.stderr, flush=True)
    return done == len(tasks)


def _run(work: Any, redis_url: str) -> Any:
    from redis.exceptions import RedisError

    try:
        return asyncio.run(work)
    except (RedisError, OSError) as error:
        _fail(f"Redis {without_credentials(redis_url)}: {error or type(error).__name__}; set --redis-url or REDIS_URL")


def _fail(message: str) -> Any:
    print(message, file=sys.stderr)
    raise typer.Exit(1)


# --- how it looks


def _unknown(eval_id: str, group: str) -> str:
    return f"no failed task {eval_id!r} in group {group}: `queueworker failed list` shows which there are"


def _when(task: FailedTask) -> str:
    return datetime.fromtimestamp(task.failed_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(text: str) -> str:
    """An error is whatever an executor said: it must not move a person's cursor."""
    return _CONTROL.sub("�", text)


def _readable(task: FailedTask) -> dict[str, Any]:
    return task.shown() | {
        "error": without_credentials(task.error),
        "failed_at": _when(task),
        "queue": without_credentials(task.queue_url),
        "kept": task.kept,
    }


def _print_json(data: object) -> None:
    import orjson

    print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def _print_table(tasks: Sequence[FailedTask], *, wide: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="", show_edge=False)
    names = ["ID", "WHEN", "ATTEMPTS", "EXECUTOR", *(["MAY-HAVE-RUN", "QUEUE"] if wide else []), "ERROR"]
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ignore" if wide else "ellipsis")
    for task in tasks:
        error = _plain(without_credentials(task.error)).strip().splitlines() or [""]
        more = ["yes" if task.ambiguous else "no", without_credentials(task.queue_url)] if wide else []
        cells = [task.eval_id, _when(task), str(task.attempts), task.executor or "-", *more, error[0]]
        table.add_row(*(Text(_plain(cell)) for cell in cells))
    # in a pipe, and when wide, nothing is cut
    width = None if sys.stdout.isatty() and not wide else 100_000
    Console(width=width, highlight=False, soft_wrap=wide).print(table)
