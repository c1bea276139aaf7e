"""An executor of the platform, as docs/wire.md describes it: runs each task's Python code in a subprocess.

A task has a timeout, a memory limit, an output limit, a directory and a process group of its own; the group is killed
when the task ends, however it ends. This contains accidents but is not a sandbox: a task runs as the executor's user.
With `--async` the executor is asynchronous: it answers `running` at once and publishes the outcome on Redis.
"""

import asyncio
import contextlib
import itertools
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from demo.services.action_log import ActionLog
from demo.services.async_tasks import Containers, Publisher
from demo.services.sandbox import MIB, Limits, Sandbox
from demo.services.serving import EXCEPTION_HANDLERS, answer, int_field, read_object, serve, text_field

_T = TypeVar("_T")


@dataclass(slots=True)
class Settings:
    """Settings of an executor; `delay` is in seconds."""

    executor_id: str = "executor-1"
    max_concurrent: int = 4
    limits: Limits = field(default_factory=Limits)
    delay: float = 0.0
    fast: bool = False
    record: Path | None = None
    """File that gets a line for each task that was `started`, or `refused` because no slot was free, and how it ended:
    `ran-completed`, `ran-failed`, `ran-timeout` or `ran-killed`.
    """


class Executor:
    """Runs at most `max_concurrent` tasks at once. With a publisher it is asynchronous."""

    def __init__(self, settings: Settings, publisher: Publisher | None = None) -> None:
        self._settings = settings
        self._publisher = publisher
        self._containers = Containers()
        self._actions = ActionLog(settings.record, settings.executor_id)
        self._running = 0
        self._sandboxes: set[Sandbox] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._numbers = itertools.count(1)
        self._stopping = False

    @property
    def available(self) -> int:
        return 0 if self._stopping else max(self._settings.max_concurrent - self._running, 0)

    def stop(self) -> None:
        """Accept no more tasks, and kill those that run; their result is `killed`."""
        self._stopping = True
        for sandbox in self._sandboxes:
            sandbox.kill("killed", "Executor is shutting down")

    async def close(self) -> None:
        """Stop, then wait until every process is reaped and, if asynchronous, its outcome is published."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        if self._publisher is not None:
            await self._publisher.close()

    async def execute(self, request: Request) -> Response:
        body = await read_object(request)
        eval_id = text_field(body, "eval_id")
        code = text_field(body, "code")
        timeout = int_field(body, "timeout", 30, minimum=1)
        if self._stopping:
            return answer({"detail": "Executor is shutting down"}, 503)
        if self._running >= self._settings.max_concurrent:
            self._actions.append("refused", eval_id)
            return answer({"detail": f"Executor at capacity ({self._running} running)"}, 429)
        self._running += 1  # before the first await, so that two requests never get the same slot
        self._actions.append("started", eval_id)
        sandbox = Sandbox(self._settings.limits)
        self._sandboxes.add(sandbox)
        # An asyncio task of its own runs to its end and reaps the process even if the client disconnects.
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        work = self._keep(asyncio.create_task(self._work(sandbox, eval_id, code, timeout, started)))
        if self._publisher is None:
            return answer(await asyncio.shield(work))
        container = self._containers.start(
            eval_id, timeout, sandbox.output, lambda: sandbox.kill("killed", "Killed by request")
        )
        self._keep(asyncio.create_task(self._publish(self._publisher, sandbox, work)))
        container.container_id = await started
        return answer(self._result(eval_id, "running", container=container.container_id))

    def async_routes(self) -> list[Route]:
        """Routes of an asynchronous executor only."""
        if self._publisher is None:
            return []
        return [
            Route("/logs/{eval_id:path}", self._containers.logs, methods=["GET"]),
            Route("/running", self._containers.running, methods=["GET"]),
            Route("/kill/{eval_id:path}", self._containers.kill, methods=["POST"]),
        ]

    def _keep(self, task: asyncio.Task[_T]) -> asyncio.Task[_T]:
        """Keep a reference: the loop has only weak ones, and the handler that waits for the task may be cancelled."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _publish(self, publisher: Publisher, sandbox: Sandbox, work: asyncio.Task[dict[str, Any]]) -> None:
        result = await work
        if sandbox.pid:
            result["output"] = sandbox.output()
            result["error"] = sandbox.reason
        if self._containers.end(result):
            await publisher.publish(result)

    async def _work(
        self, sandbox: Sandbox, eval_id: str, code: str, timeout: int, started: asyncio.Future[str]
    ) -> dict[str, Any]:
        try:
            if self._settings.fast:
                started.set_result(f"fast-{next(self._numbers)}")
                await asyncio.sleep(self._settings.delay)
                return self._result(eval_id, "completed", output="ok\n", container=started.result())
            try:
                with tempfile.TemporaryDirectory(prefix="task-", ignore_cleanup_errors=True) as directory:
                    await sandbox.start(directory)
                    started.set_result(str(sandbox.pid))
                    code_, stdout, stderr = await sandbox.run(code, timeout)
            except OSError as error:
                return self._result(eval_id, "failed", error=f"The task could not be started: {error}", exit_code=1)
            if self._settings.delay:
                await asyncio.sleep(self._settings.delay)
            result = self._outcome(eval_id, sandbox, code_, stdout, stderr)
            self._actions.append(f"ran-{result['status']}", eval_id)
            return result
        finally:
            if not started.done():
                started.set_result("")
            self._sandboxes.discard(sandbox)
            self._running -= 1

    def _outcome(self, eval_id: str, sandbox: Sandbox, exit_code: int, stdout: bytes, stderr: bytes) -> dict[str, Any]:
        output, error = stdout.decode(errors="replace"), stderr.decode(errors="replace")
        if sandbox.verdict is not None:
            status, error = sandbox.verdict, sandbox.reason
        elif exit_code < 0:
            status, error = "killed", error or f"Killed by {signal.Signals(-exit_code).name}"
        elif exit_code > 0:
            status, error = "failed", error or f"Exited with status {exit_code}"
        else:
            status = "completed"
        if exit_code < 0:
            exit_code = 128 - exit_code  # the convention of shells and container engines
        result = self._result(
            eval_id, status, output=output, error=error, exit_code=exit_code, container=str(sandbox.pid)
        )
        if sandbox.truncated:
            result["truncated"] = True
        return result

    def _result(
        self, eval_id: str, status: str, *, output: str = "", error: str = "", exit_code: int = 0, container: str = ""
    ) -> dict[str, Any]:
        return {
            "eval_id": eval_id,
            "status": status,
            "output": output,
            "error": error,
            "exit_code": exit_code,
            "executor_id": self._settings.executor_id,
            "container_id": container,
        }

    async def health(self, _request: Request) -> Response:
        """`degraded` means that no slot is free. The status code is still 200, so the executor is healthy."""
        return answer(
            {
                "status": "healthy" if self.available else "degraded",
                "service": "executor",
                "executor_id": self._settings.executor_id,
                "running": self._running,
            }
        )

    async def capacity(self, _request: Request) -> Response:
        return answer(
            {
                "executor_id": self._settings.executor_id,
                "can_accept": self.available > 0,
                "running": self._running,
                "max_concurrent": self._settings.max_concurrent,
                "available_slots": self.available,
            }
        )


def create_app(executor: Executor) -> Starlette:
    """The executor as an ASGI application. Its shutdown ends all tasks' processes."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await executor.close()

    return Starlette(
        routes=[
            Route("/execute", executor.execute, methods=["POST"]),
            Route("/health", executor.health, methods=["GET"]),
            Route("/capacity", executor.capacity, methods=["GET"]),
            *executor.async_routes(),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )


cli = typer.Typer(add_completion=False)


@cli.command()
def main(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free port.")] = 8083,
    executor_id: Annotated[
        str, typer.Option(envvar="EXECUTOR_ID", help="The executor_id in its answers.")
    ] = "executor-1",
    max_concurrent: Annotated[int, typer.Option(min=1, help="Tasks at once; further ones are answered with 429.")] = 4,
    memory_mb: Annotated[int, typer.Option(min=32, help="Address space of one task in MiB.")] = 512,
    max_output_bytes: Annotated[
        int,
        typer.Option(min=1, help="Bytes kept of stdout, and of stderr; a task that writes 8 times as much is killed."),
    ] = 10 * MIB,
    delay_ms: Annotated[int, typer.Option(min=0, help="Milliseconds to wait before each answer.")] = 0,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Run no code: answer `completed` after --delay-ms, for measuring routers."),
    ] = False,
    completes_async: Annotated[
        bool, typer.Option("--async", help="Answer `running` at once, and publish the outcome on Redis.")
    ] = False,
    redis_url: Annotated[
        str, typer.Option(envvar="REDIS_URL", help="Redis that --async publishes on.")
    ] = "redis://127.0.0.1:6379",
    record: Annotated[
        Path | None, typer.Option(help="File that gets a line of JSON for each task that is started, refused or ended.")
    ] = None,
) -> None:
    """An executor: runs the Python code of tasks, within limits, and answers with the result.

    The first line of the output is the address that it listens on. On SIGTERM it kills running tasks; their result is
    `killed`.
    """
    settings = Settings(
        executor_id=executor_id,
        max_concurrent=max_concurrent,
        limits=Limits(memory=memory_mb * MIB, output=max_output_bytes),
        delay=delay_ms / 1000,
        fast=fast,
        record=record,
    )
    executor = Executor(settings, Publisher(redis_url) if completes_async else None)
    serve(create_app(executor), host, port, on_stop=executor.stop)


if __name__ == "__main__":
    cli()
