"""Makes numbered executors reachable on one machine, where the names `executor-1`, `executor-2` … do not resolve.

A QueueWorker with `baseURL: http://127.0.0.1:PORT/executors/{n}` calls executor N at
`http://127.0.0.1:PORT/executors/N/…`. The gateway forwards that to the executor with that number, a process that it
starts at the first request. So `kubectl scale` works as it does on a platform that runs the executors.

`POST /processes/N/kill` kills the process of executor N; `POST /processes/N/start` starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Annotated

import httpx
import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from demo.services.serving import serve
from devcluster.children import die_with_parent

MAX_EXECUTORS = 20
START_SECONDS = 60.0
"""For a loaded machine; it takes a second."""


class Executors:
    """The executor processes by number, each on a port that the system chose."""

    def __init__(self, max_concurrent: int) -> None:
        self._max_concurrent = max_concurrent
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._urls: dict[int, asyncio.Task[str]] = {}

    async def url(self, number: int) -> str:
        """The URL of that executor, started if necessary. Raises OSError or TimeoutError if it does not start."""
        if number not in self._urls:
            self._urls[number] = asyncio.create_task(self._start(number))
        return await asyncio.shield(self._urls[number])

    async def kill(self, number: int) -> None:
        """SIGKILL. Its tasks die with it, and connections to it are refused until `start`."""
        if number in self._processes:
            with contextlib.suppress(ProcessLookupError):
                self._processes[number].kill()
            await self._processes[number].wait()

    async def start(self, number: int) -> None:
        """Start it again if its process has ended. Raises as `url` does."""
        process = self._processes.get(number)
        if process is not None and process.returncode is not None and self._urls[number].done():
            del self._urls[number]
        await self.url(number)

    def stop(self) -> None:
        """Send each executor a SIGTERM."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    async def _start(self, number: int) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "demo.services.executor", "--port", "0", "--executor-id", f"executor-{number}"),
            *("--max-concurrent", str(self._max_concurrent)),
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        self._processes[number] = process
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        return line.decode().split()[-1]


def create_app(executors: Executors, client: httpx.AsyncClient) -> Starlette:
    async def kill(request: Request) -> Response:
        await executors.kill(request.path_params["number"])
        return Response(status_code=204)

    async def start(request: Request) -> Response:
        await executors.start(request.path_params["number"])
        return Response(status_code=204)

    async def forward(request: Request) -> Response:
        number = int(request.path_params["number"])
        if not 1 <= number <= MAX_EXECUTORS:
            return Response(f"the executors of this machine are 1 to {MAX_EXECUTORS}", 404)
        try:
            url = await executors.url(number)
            answer = await client.request(
                request.method,
                f"{url}/{request.path_params['path']}",
                content=await request.body(),
                headers={"content-type": "application/json"},
            )
        except (httpx.HTTPError, OSError) as error:
            return Response(f"executor-{number}: {error!r}", 502)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    return Starlette(
        routes=[
            Route("/executors/{number:int}/{path:path}", forward, methods=["GET", "POST"]),
            Route("/processes/{number:int}/kill", kill, methods=["POST"]),
            Route("/processes/{number:int}/start", start, methods=["POST"]),
        ]
    )


cli = typer.Typer(add_completion=False)


@cli.command(help=__doc__)
def main(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free port.")] = 0,
    max_concurrent: Annotated[int, typer.Option(min=1, help="Tasks that each executor runs at once.")] = 4,
) -> None:
    executors = Executors(max_concurrent)
    client = httpx.AsyncClient(timeout=None, trust_env=False, limits=httpx.Limits(max_connections=None))
    serve(create_app(executors, client), host, port, on_stop=executors.stop)


if __name__ == "__main__":
    cli()
