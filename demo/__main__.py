"""`make demo`: the whole platform on one machine, whose parts are killed and brought back while tasks are routed."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from demo.on_pods import start_on_pods
from demo.processes import DemoError
from demo.show.run import perform
from demo.show.show import Show
from demo.stage import Stage
from demo.starting import Options, start
from devcluster.binaries import BinaryError
from devcluster.node.images import ImportFailed
from devcluster.node.node import LeftBehind, NodeError
from devcluster.server import ControlPlaneError
from tools.container_engine import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


def run(options: Options, seconds: float, console: Console) -> bool:
    """Start everything, perform, and print the account. Returns whether it is in order."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="queueworker-demo-")))
        thread = ThreadPoolExecutor(1)
        stack.callback(thread.shutdown, cancel_futures=True)  # last: what it started ends with it
        platform = (start_on_pods if options.pods else start)(stack, folder, options, console)
        stage = Stage(platform, thread)
        submitted = perform(Show(platform.acts, seconds or float("inf")), platform, stage, console)
        account = platform.take_account(stage.kills, submitted, console)
        print(account, flush=True)
        for sentence in account.explanations():
            console.print(sentence, soft_wrap=not console.is_terminal)
        if not account.in_order:
            _show_errors(platform.log_lines(), console)
        console.print("stopping everything")
    return account.in_order


def _show_errors(lines: Sequence[str], console: Console) -> None:
    """Print the errors of the routers, because their logs will be deleted."""
    for line in [line for line in lines if "ERROR" in line or "Traceback" in line][-10:]:
        console.print(f"router: {line}", markup=False)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(
    *,
    seconds: Annotated[
        float,
        typer.Option(
            envvar="DEMO_SECONDS",
            help="Seconds after which no act begins any more and the demo ends; 0: it runs until q or Ctrl-C.",
        ),
    ] = 0,
    context: Annotated[
        str, typer.Option(envvar="DEMO_CONTEXT", help="Kubeconfig context of the cluster to use; empty: a local one.")
    ] = "",
    worker: Annotated[
        bool, typer.Option("--worker", help="Without Kubernetes: run `queueworker worker` in place of the operator.")
    ] = False,
    pods: Annotated[
        bool,
        typer.Option(
            "--pods",
            envvar="DEMO_NODE",
            help="Everything as pods: this machine becomes a node (Linux, root); with a context, on that cluster.",
        ),
    ] = False,
    legacy: Annotated[
        bool,
        typer.Option("--legacy", envvar="DEMO_LEGACY", help="Run the loop of the legacy worker beside it, as it is."),
    ] = False,
    executors: Annotated[int, typer.Option(min=1, max=20, help="Number of executors at the start.")] = 3,
    rate: Annotated[float, typer.Option(help="Tasks submitted per second.")] = 20,
) -> None:
    """Run queue, executors, Redis, storage worker and the router, break them one after the other, and show them heal.

    The exit status is 0 only if every submitted task has an outcome. A task that the queue handed out while the router
    was being killed is an exception: it may be lost, which is said, and does not count.
    """
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
    if pods and (worker or legacy):
        sys.exit("error: --pods (DEMO_NODE) has neither --worker nor --legacy (DEMO_LEGACY)")
    options = Options(context=context, worker=worker, pods=pods, legacy=legacy, executors=executors, rate=rate)
    try:
        in_order = run(options, seconds, console)
    except KeyboardInterrupt:
        sys.exit(130)
    except (
        *(DemoError, BinaryError, ControlPlaneError, RuntimeError),
        *(NodeError, LeftBehind, ImageError, ImportFailed),
    ) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if in_order else 1)


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    typer.run(main)
