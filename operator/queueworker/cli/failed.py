"""`queueworker failed`: lists the failed tasks of a group (the dead-letter queue) and sends them again."""

# ruff: noqa: PLC0415 -- every command imports this module, so it imports its dependencies late
from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from queueworker.cli.failed_options import Group, RedisURL, fail, redis_url_of
from queueworker.redaction import without_credentials
from queueworker.resource.redis_url import shown
from queueworker.words import harmless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from queueworker.resend import FailedTasks, Sent
    from queueworker.routing.journal.failed_tasks import FailedTask

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""List failed tasks, and send them to their queue again.

Redis keeps the newest 1,000 failed tasks of each group, as a dead-letter queue. The group of a QueueWorker object is
its namespace/name. The group of a worker is its JOURNAL_GROUP, by default made from QUEUE_SERVICE_URL, so no option is
needed in the worker's own environment. In a pod of the operator, the object's Redis is found by itself.

\b
Examples:
  queueworker failed list
  queueworker failed list --group default/legacy --redis-url redis://redis:6379 -o wide
  queueworker failed show task-17
  queueworker failed retry task-17 task-18
  QUEUE_API_KEY=… queueworker failed retry --all
""",
    short_help="List failed tasks, and send them again.",
)


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


class ShowOutput(StrEnum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where failed tasks are kept. `advice`: what to do if Redis cannot be asked. `certain`: the group is no guess."""

    redis_url: str = field(repr=False)
    group: str
    advice: str = "set --redis-url or REDIS_URL"
    certain: bool = False


@app.command("list")
def list_(
    *,
    group: Group,
    redis_url: RedisURL = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of tasks; the newest are shown.")] = 50,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="wide adds the queue and whether the task may have run.")
    ] = Output.TABLE,
) -> None:
    """List failed tasks, newest first."""
    list_tasks(Place(redis_url_of(redis_url, group), group), limit, output)


def list_tasks(place: Place, limit: int, output: Output) -> None:
    """Print the newest tasks. Ends the command if Redis cannot be asked."""
    group = place.group
    tasks, more = _run(_newest(place, limit), place)
    if output is Output.JSON:
        _print_json([_readable(task) for task in tasks])
        return
    if not tasks:
        print(f"no failed tasks in group {group}", file=sys.stderr)
        return
    _print_table(tasks, wide=output is Output.WIDE)
    if more:
        print(f"{more} older tasks are not shown: use --limit {limit + more}", file=sys.stderr)


@app.command()
def show(
    eval_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    group: Group,
    redis_url: RedisURL = None,
    output: Annotated[ShowOutput, typer.Option("--output", "-o")] = ShowOutput.TEXT,
) -> None:
    """Show one failed task. It has the whole error, and the task as the queue handed it out."""
    show_task(Place(redis_url_of(redis_url, group), group), eval_id, output)


def show_task(place: Place, eval_id: str, output: ShowOutput) -> None:
    """Print one task. Ends the command if there is none, or Redis cannot be asked."""
    import msgspec
    import orjson

    group = place.group
    task = _run(_one(place, eval_id), place)
    if task is None:
        fail(_unknown(eval_id, group))
    if output is ShowOutput.JSON:
        _print_json(_readable(task) | {"task": orjson.Fragment(task.task)})
        return
    rows = {
        "ID": task.eval_id,
        "When": _when(task),
        "Attempts": task.attempts,
        "Executor": task.executor or "none",
        "Queue": without_credentials(task.queue_url),
        "May have run": "yes: `retry` needs --ambiguous"
        if task.ambiguous
        else "no, or the executor reported a failure",
    }
    for name, value in rows.items():
        print(f"{name + ':':<14}{harmless(str(value))}")
    print("Error:", *harmless(without_credentials(task.error)).splitlines(), sep="\n  ")
    if task.kept:
        data = msgspec.json.format(task.task, indent=2).decode()  # without reading numbers of any size
        print("Task:", *harmless(data).splitlines(), sep="\n  ")
    else:
        print(f"Task:         not kept ({f'{task.task_bytes:,} bytes' if task.task_bytes else 'unknown'})")


@app.command()
def retry(
    eval_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", show_default=False)] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Send all failed tasks of the group, oldest first.")] = False,
    ambiguous: Annotated[
        bool,
        typer.Option("--ambiguous", help="Also send tasks that may have run already; they may run twice."),
    ] = False,
    group: Group,
    redis_url: RedisURL = None,
    queue_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send to this queue instead of the queue of each task, for example behind a port-forward.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="QUEUE_API_KEY", show_envvar=True, help="API key of the queue."),
    ] = None,
) -> None:
    """Send failed tasks to their queue again.

    A task leaves the list of failed tasks once the queue has accepted it. A task that the queue already has is not sent
    again; it leaves the list when it completes. A task that failed without an answer of its executor (a broken
    connection, a timeout, a router that died) may have run: it is sent only with --ambiguous, or after a question on
    a terminal. The exit status is 1 if a task was not sent.
    """
    if bool(eval_ids) == all_:
        raise typer.BadParameter("give one or more IDs, or --all")
    send_again(Place(redis_url_of(redis_url, group), group), eval_ids, api_key or None, queue_url, ambiguous=ambiguous)


def send_again(
    place: Place,
    eval_ids: list[str] | None,
    api_key: str | None,
    queue_url: str | None,
    *,
    ambiguous: bool,
    as_json: bool = False,
) -> None:
    """Send these tasks, or all without ids. Ends the command with status 1 if one was not sent."""
    wanted = list(dict.fromkeys(eval_ids)) if eval_ids else None
    sent: list[Sent] = []
    _run(_retry(place, wanted, api_key, queue_url, sent.append if as_json else _tell(sent), ambiguous=ambiguous), place)
    if as_json:
        _print_json([{"eval_id": each.eval_id, "sent": each.done, "message": each.message} for each in sent])
    if not all(each.done for each in sent):
        raise typer.Exit(1)


def _tell(sent: list[Sent]) -> Callable[[Sent], None]:
    """Prints what became of each task, and keeps it."""

    def tell(each: Sent) -> None:
        sent.append(each)
        print(harmless(f"{each.eval_id}: {each.message}"), file=sys.stdout if each.done else sys.stderr, flush=True)

    return tell


@asynccontextmanager
async def _failed_tasks(place: Place) -> AsyncIterator[FailedTasks]:
    from queueworker.resend import FailedTasks

    tasks = FailedTasks(place.redis_url, place.group)
    try:
        yield tasks
    finally:
        await tasks.close()


async def _newest(place: Place, limit: int) -> tuple[list[FailedTask], int]:
    """The newest tasks, and the number of older ones."""
    async with _failed_tasks(place) as stored:
        found = [task async for task in stored.newest_first()]
        await _check_group(stored, place, found)
    return found[:limit], len(found[limit:])


async def _one(place: Place, eval_id: str) -> FailedTask | None:
    async with _failed_tasks(place) as stored:
        task = await stored.get(eval_id)
        await _check_group(stored, place, task)
    return task


async def _check_group(stored: FailedTasks, place: Place, found: object) -> None:
    """A group that Redis does not know is a mistake if it knows others."""
    groups = [] if found or place.certain else await stored.groups()
    if groups and place.group not in groups:
        fail(f"there is no group {place.group} in this Redis: set --group to {' or '.join(groups)}")


async def _retry(
    place: Place,
    wanted: list[str] | None,
    key: str | None,
    queue_url: str | None,
    on_sent: Callable[[Sent], None],
    *,
    ambiguous: bool,
) -> None:
    """Sends each task, and tells what became of it as soon as it is known."""
    from queueworker.resend import Resender, Sent, refusal

    group = place.group
    async with _failed_tasks(place) as stored:
        if wanted is None:
            found = {task.eval_id: task async for task in stored.newest_first()}
            tasks: dict[str, FailedTask | None] = dict(reversed(found.items()))
            await _check_group(stored, place, tasks)
            if not tasks:
                print(f"no failed tasks in group {group}", file=sys.stderr)
        else:
            tasks = {eval_id: await stored.get(eval_id) for eval_id in wanted}
        may_have_run = [t for t in tasks.values() if t is not None and t.kept and t.ambiguous]
        if may_have_run and not ambiguous and sys.stdin.isatty():
            question = (
                f"{len(may_have_run)} of {len(tasks)} tasks may have run already and may run twice; send them too?"
            )
            ambiguous = typer.confirm(question, default=False, err=True)
        async with aclosing(Resender(stored, key, queue_url)) as resender:
            for eval_id, task in tasks.items():
                if task is None:
                    sent = Sent(eval_id, done=False, message=_unknown(eval_id, group))
                elif reason := refusal(task, ambiguous=ambiguous):
                    sent = Sent(eval_id, done=False, message=f"not sent: {reason}")
                else:
                    sent = await resender.send(task)
                on_sent(sent)


def _run(work: Any, place: Place) -> Any:
    from redis.exceptions import RedisError

    from queueworker.routing.journal.redis_link import reason_of

    try:
        return asyncio.run(work)
    except (RedisError, OSError) as error:
        fail(f"Redis {shown(place.redis_url)}: {reason_of(error)}; {place.advice}")


def _unknown(eval_id: str, group: str) -> str:
    return f"no failed task {eval_id!r} in group {group}: `queueworker failed list` shows all failed tasks"


def _when(task: FailedTask) -> str:
    return datetime.fromtimestamp(task.failed_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _last_line(error: str) -> str:
    """Of a Python traceback, that is what was raised."""
    lines = without_credentials(error).strip().splitlines()
    return lines[-1].strip() if lines else ""


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
    """On a terminal each task has one line, which is cut unless the table is wide."""
    from queueworker.cli.failed_table import table
    from queueworker.cli.plugin.screen import here

    glyphs, size = here()
    cut = sys.stdout.isatty() and not wide
    print(*table([_row(task, wide=wide) for task in tasks], size.width if cut else None, glyphs), sep="\n")


def _row(task: FailedTask, *, wide: bool) -> dict[str, str]:
    row = {"ID": task.eval_id, "WHEN": _when(task), "ATTEMPTS": str(task.attempts), "EXECUTOR": task.executor or "-"}
    if wide:
        row |= {"MAY-HAVE-RUN": "yes" if task.ambiguous else "no", "QUEUE": without_credentials(task.queue_url)}
    return {name: harmless(text) for name, text in (row | {"ERROR": _last_line(task.error)}).items()}
