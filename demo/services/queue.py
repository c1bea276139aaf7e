"""The queue service of the platform, as docs/wire.md describes it: an in-memory FIFO over HTTP.

It has no lease and no acknowledgement: `GET /tasks/next` pops, a task is forgotten once it is reported, and nothing is
kept on disk, unless `--keep` says where: then a queue that is stopped comes back with its tasks. `GET /account` is an
addition for the demo: it counts tasks that were submitted, handed out and reported, which proves that no task was lost
or reported twice.
"""

import enum
import hmac
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.services.action_log import ActionLog
from demo.services.serving import (
    EXCEPTION_HANDLERS,
    BadRequestError,
    answer,
    int_field,
    read_object,
    serve,
    text_field,
)


class EmptyAnswer(enum.StrEnum):
    """The answer of `GET /tasks/next` when the queue is empty; implementations of the platform differ."""

    NULL = "null"
    NO_CONTENT = "204"
    EMPTY = "empty"


@dataclass(slots=True)
class Task:
    """A task as it was submitted. `timeout` is in seconds, `queued_at` is Unix time in seconds."""

    eval_id: str
    code: str
    language: str
    engine: str
    timeout: int
    queued_at: float = field(default_factory=time.time)

    def handed_out(self) -> dict[str, Any]:
        """The answer of `GET /tasks/next`."""
        return {
            "eval_id": self.eval_id,
            "code": self.code,
            "language": self.language,
            "engine": self.engine,
            "timeout": self.timeout,
        }


@dataclass(slots=True)
class Account:
    """Counts since the service started. A second report of an id is `reported_twice`, not `unknown_reports`."""

    submitted: int = 0
    handed_out: int = 0
    completed: int = 0
    failed: int = 0
    cleared: int = 0
    unknown_reports: int = 0
    reported_twice: int = 0


class TaskQueue:
    """The FIFO and its counts. All methods are synchronous, so each one is atomic within an event loop.

    `remember` is the number of reported ids that are kept to tell a second report from an unknown id. `actions` gets
    `handed-out`, `completed`, `failed` and `unknown` (a report for an unknown id).
    """

    def __init__(self, remember: int = 200_000, actions: ActionLog | None = None) -> None:
        self.queued: OrderedDict[str, Task] = OrderedDict()
        self.processing: dict[str, Task] = {}
        self.account = Account()
        self._reported: OrderedDict[str, None] = OrderedDict()
        self._remember = remember
        self._actions = actions or ActionLog(None, "queue")

    def submit(self, task: Task) -> int:
        """Append a task. Returns its position, from 1; 0 if a task with this id is running already.

        A task that is queued already keeps its place: a client that never got the answer repeats its request.
        """
        if task.eval_id in self.processing or task.eval_id in self.queued:
            return self.position(task.eval_id)
        self._reported.pop(task.eval_id, None)
        self.queued[task.eval_id] = task
        self.account.submitted += 1
        return len(self.queued)

    def pop(self) -> Task | None:
        if not self.queued:
            return None
        eval_id, task = self.queued.popitem(last=False)
        self.processing[eval_id] = task
        self.account.handed_out += 1
        self._actions.append("handed-out", eval_id)
        return task

    def report(self, eval_id: str, *, completed: bool) -> bool:
        """Forget a reported task. Returns False if the id is unknown (never submitted, or reported already)."""
        known = self.processing.pop(eval_id, None) or self.queued.pop(eval_id, None)
        if known is None:
            if eval_id in self._reported:
                self.account.reported_twice += 1
            else:
                self.account.unknown_reports += 1
            self._actions.append("unknown", eval_id)
            return False
        self._reported[eval_id] = None
        if len(self._reported) > self._remember:
            self._reported.popitem(last=False)
        if completed:
            self.account.completed += 1
        else:
            self.account.failed += 1
        self._actions.append("completed" if completed else "failed", eval_id)
        return True

    def position(self, eval_id: str) -> int:
        """The position of a task in the queue, from 1; 0 if it is not queued."""
        if eval_id not in self.queued:
            return 0
        return next(place for place, queued in enumerate(self.queued, 1) if queued == eval_id)

    def clear(self) -> int:
        """Forget every task, queued or running. Returns their number."""
        removed = len(self)
        self.queued.clear()
        self.processing.clear()
        self.account.cleared += removed
        return removed

    def __len__(self) -> int:
        return len(self.queued) + len(self.processing)

    def save(self, path: Path) -> None:
        """Write the tasks and the counts to a file, for `restore`. What was reported is not remembered."""
        kept = {"queued": [*self.queued.values()], "processing": [*self.processing.values()], "account": self.account}
        path.write_bytes(orjson.dumps(kept))

    def restore(self, path: Path) -> None:
        """Take the tasks and the counts from a file; a queue without a file is empty."""
        if not path.exists():
            return
        kept = orjson.loads(path.read_bytes())
        self.account = Account(**kept["account"])
        for tasks, name in ((self.queued, "queued"), (self.processing, "processing")):
            tasks.update((task["eval_id"], Task(**task)) for task in kept[name])


class _Handlers:
    def __init__(self, tasks: TaskQueue, empty: EmptyAnswer) -> None:
        self._tasks = tasks
        self._empty = empty

    async def submit(self, request: Request) -> Response:
        body = await read_object(request)
        int_field(body, "priority", 1, minimum=0)  # accepted and ignored: it is a FIFO
        task = Task(
            eval_id=text_field(body, "eval_id"),
            code=text_field(body, "code"),
            language=text_field(body, "language", "python"),
            engine=text_field(body, "engine", "docker"),
            timeout=int_field(body, "timeout", 30, minimum=1),
        )
        if not task.eval_id or "/" in task.eval_id:
            raise BadRequestError("eval_id: must not be empty and must not contain a slash")
        return answer({"eval_id": task.eval_id, "status": "queued", "position": self._tasks.submit(task)})

    async def next(self, _request: Request) -> Response:
        task = self._tasks.pop()
        if task is not None:
            return answer(task.handed_out())
        if self._empty is EmptyAnswer.NO_CONTENT:
            return Response(status_code=204)
        if self._empty is EmptyAnswer.EMPTY:
            return Response()
        return answer(None)

    async def complete(self, request: Request) -> Response:
        body = await read_object(request)
        if not isinstance(body.get("output"), dict):
            raise BadRequestError("output: must be the executor's result object")
        if not self._tasks.report(request.path_params["eval_id"], completed=True):
            return answer({"detail": "Task not found"}, 404)
        return answer({"status": "completed"})

    async def fail(self, request: Request) -> Response:
        text_field(await read_object(request), "error")
        if not self._tasks.report(request.path_params["eval_id"], completed=False):
            return answer({"status": "not_found"})
        return answer({"status": "failed"})

    async def show(self, request: Request) -> Response:
        eval_id = request.path_params["eval_id"]
        queued = eval_id in self._tasks.queued
        task = self._tasks.queued.get(eval_id) or self._tasks.processing.get(eval_id)
        if task is None:
            return answer({"detail": "Task not found"}, 404)
        return answer(
            {
                "eval_id": eval_id,
                "status": "queued" if queued else "running",
                "position": self._tasks.position(eval_id),
                "queued_at": datetime.fromtimestamp(task.queued_at, UTC).isoformat(),
                "message": "Task is waiting" if queued else "Task is running",
            }
        )

    async def clear(self, _request: Request) -> Response:
        return answer({"status": "cleared", "tasks_removed": self._tasks.clear()})

    async def status(self, _request: Request) -> Response:
        queued = len(self._tasks.queued)
        return answer(
            {
                "queued": queued,
                "processing": len(self._tasks.processing),
                "queue_length": queued,
                "total_tasks": len(self._tasks),
            }
        )

    async def health(self, _request: Request) -> Response:
        return answer(
            {
                "status": "healthy",
                "service": "queue",
                "queue_size": len(self._tasks.queued),
                "total_tasks": len(self._tasks),
                "redis": "not configured",
            }
        )

    async def account(self, _request: Request) -> Response:
        return answer(asdict(self._tasks.account))


class _ApiKey:
    """Answers requests without the key with 401; `/health` needs none, because probes have no key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"x-api-key", b"")
            if not hmac.compare_digest(given, self._key):
                await answer({"detail": "Invalid API key"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def create_app(
    tasks: TaskQueue | None = None, *, api_key: str | None = None, empty: EmptyAnswer = EmptyAnswer.NULL
) -> ASGIApp:
    """The queue service as an ASGI application. `tasks` is its memory, by default a new one."""
    handlers = _Handlers(TaskQueue() if tasks is None else tasks, empty)
    app = Starlette(
        routes=[
            Route("/tasks/next", handlers.next, methods=["GET"]),
            Route("/tasks/{eval_id}/complete", handlers.complete, methods=["POST"]),
            Route("/tasks/{eval_id}/fail", handlers.fail, methods=["POST"]),
            Route("/tasks", handlers.submit, methods=["POST"]),
            Route("/tasks", handlers.clear, methods=["DELETE"]),
            Route("/tasks/{eval_id}", handlers.show, methods=["GET"]),
            Route("/status", handlers.status, methods=["GET"]),
            Route("/health", handlers.health, methods=["GET"]),
            Route("/account", handlers.account, methods=["GET"]),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    return _ApiKey(app, api_key) if api_key else app


cli = typer.Typer(add_completion=False)


@cli.command()
def main(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free port.")] = 8081,
    api_key: Annotated[
        str, typer.Option(envvar="QUEUE_API_KEY", help="Key that X-API-Key must have; empty: none.")
    ] = "",
    empty_answer: Annotated[
        EmptyAnswer, typer.Option(help="Answer of an empty queue: JSON null, 204, or an empty body.")
    ] = EmptyAnswer.NULL,
    remember: Annotated[
        int, typer.Option(min=1, help="Number of reported ids to remember, so that /account shows second reports.")
    ] = 200_000,
    record: Annotated[
        Path | None, typer.Option(help="File that gets a line of JSON for each task handed out and each report.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="File that keeps tasks and counts from a SIGTERM until the next start.")
    ] = None,
) -> None:
    """The platform's queue service: an in-memory FIFO of tasks over HTTP.

    The first line of the output is the address that it listens on.
    """
    tasks = TaskQueue(remember, ActionLog(record, "queue"))
    if keep is not None:
        tasks.restore(keep)
    serve(create_app(tasks, api_key=api_key or None, empty=empty_answer), host, port)
    if keep is not None:
        tasks.save(keep)


if __name__ == "__main__":
    cli()
