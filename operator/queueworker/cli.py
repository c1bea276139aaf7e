"""The command `queueworker`. What a subcommand needs is imported when it runs: a worker never loads Kubernetes."""

# ruff: noqa: PLC0415 -- each subcommand pays for its own imports only
from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from queueworker.logs import configure
from queueworker.settings import InvalidEnvironment, described, load

if TYPE_CHECKING:
    from collections.abc import Coroutine

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="""Routes tasks from a legacy HTTP queue to a pool of executors, and loses none.

\b
In Kubernetes, one router for each QueueWorker object:
  queueworker crd | kubectl apply --server-side -f -
  queueworker operator
With no Kubernetes, one router for one queue:
  QUEUE_SERVICE_URL=http://queue:8081 EXECUTOR_COUNT=3 queueworker worker
""",
)


def _variables() -> str:
    rows = [f"  {v.name}{f' ({v.default})' if v.default else ''}\n      {v.may_be}" for v in described()]
    return "\n".join(rows)


_WORKER_HELP = f"""Route for one queue, with no Kubernetes, as the environment says.

A variable that cannot be used ends it at once, with status 2 and a line that names the variable. SIGTERM
drains it: tasks that run end, for at most DRAIN_SECONDS, and the rest is taken up by the next worker. A
second signal ends it at once.

\b
Examples:
  queueworker worker
  QUEUE_SERVICE_URL=http://localhost:8081 EXECUTOR_ENDPOINTS=http://localhost:8083 queueworker worker
  EXECUTOR_COUNT=3 EXECUTOR_CONCURRENCY=4 ROUTING_STRATEGY=LeastLoaded queueworker worker
  curl http://localhost:8084/status

\b
Variables, with their defaults and what they may be:
{_variables()}
"""


@app.command(help=_WORKER_HELP)
def worker() -> None:
    try:
        settings = load(os.environ)
    except InvalidEnvironment as error:
        print("\n".join(error.problems), file=sys.stderr)
        raise typer.Exit(2) from error
    configure(settings.process.log_level, settings.process.log_format)
    from queueworker.worker import run_worker

    _run(run_worker(settings))


@app.command()
def version() -> None:
    """Print the version."""
    from queueworker.web.metrics import app_version

    print(app_version())


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition: `queueworker crd | kubectl apply --server-side -f -`."""
    from queueworker.resource.generate import crd_yaml

    print(crd_yaml(), end="")


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run in uvloop. What a person can put right ends with status 1 and a sentence, not with a traceback."""
    import asyncio

    import uvloop

    from queueworker.web.server import CannotListen

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(work)
        except CannotListen as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error


def main() -> None:
    app()


if __name__ == "__main__":
    main()
