"""`python -m tools.e2e`: runs tests/e2e on a cluster that it makes, or on one that is there.

Without options it builds the images, makes this machine a node, loads them, runs the tests, and takes the node down.
Where this machine cannot be a node it says why, and runs the tests that need none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from devcluster.children import die_with_parent
from devcluster.go_build import BinaryError
from devcluster.interrupts import uninterrupted
from devcluster.node.images import ImportFailed
from devcluster.node.node import LeftBehind, NodeError
from devcluster.progress import say
from devcluster.spawning import end
from tools.clusters import NoCluster, keep, kind_cluster, own_node
from tools.container_engine import ImageError
from tools.image import ROOT

if TYPE_CHECKING:
    from types import FrameType

STOP_SECONDS = 120.0


def _keep() -> None:
    """Make this machine a node, and print how to use it. Raises `NoCluster`."""
    kept = keep()
    print(f"export KUBECONFIG={kept.kubeconfig}")
    settings = " ".join(f"{name}={value}" for name, value in kept.environment().items())
    say(f"the tests on it: {settings} make e2e")
    say("`make node-down` takes it down")


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    """Run the tests. After Ctrl-C they end in order, before the cluster goes; another Ctrl-C changes nothing."""
    again = ("--reruns", os.environ.get("RERUNS", "1"), "--rerun-except", "AccountError")
    command = [sys.executable, "-m", "pytest", "-q", "-rsxR", *again, *(arguments or ["tests/e2e"])]
    process: subprocess.Popen[bytes] = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, start_new_session=True, preexec_fn=die_with_parent
    )
    try:
        return process.wait()
    except BaseException:
        say(f"interrupted: the tests clean up, for {STOP_SECONDS:.0f} s at most")
        with uninterrupted():
            end(process, signal.SIGINT, STOP_SECONDS)  # once: a second one would keep the tests from cleaning up
        raise


def main(
    arguments: Annotated[list[str] | None, typer.Argument(help="After --: arguments of pytest.")] = None,
    *,
    kind: Annotated[bool, typer.Option(help="Use a cluster of kind, which needs Docker.")] = False,
    keep_node: Annotated[
        bool,
        typer.Option("--keep", help="Run no tests: make a node that stays until `python -m devcluster node down`."),
    ] = False,
    required: Annotated[bool, typer.Option(help="Fail if there is no cluster, instead of skipping tests.")] = False,
) -> None:
    """Run tests/e2e. With E2E_KUBECONFIG they run on that cluster, which must be able to pull E2E_IMAGE."""
    if os.environ.get("E2E_KUBECONFIG"):
        sys.exit(_pytest(arguments or [], {}))
    started = time.monotonic()
    try:
        if keep_node:
            _keep()
            return
        with kind_cluster() if kind else own_node() as nodes:
            say(f"the cluster is ready after {time.monotonic() - started:.0f} s")
            status = _pytest(arguments or [], nodes.environment())
    except NoCluster as error:
        if kind or required or keep_node:
            sys.exit(f"error: {error}")
        say(f"NO NODE HERE, so the tests that need one are skipped: {error}")
        status = _pytest(arguments or [], {"E2E_WHY_NOT": str(error)})
    say(f"e2e took {time.monotonic() - started:.0f} s")
    sys.exit(status)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # the same clean end as Ctrl-C
    try:
        typer.run(main)
    except (BinaryError, ImageError, NodeError, LeftBehind, ImportFailed, OSError) as error:
        sys.exit(f"error: {error}")
