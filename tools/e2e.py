"""`python -m tools.e2e`: runs tests/e2e on a cluster that it makes, or on one that is there.

Without options it builds the images, makes this machine a node, loads them, runs the tests, and takes the node down.
Where this machine cannot be a node it says why, and runs the tests that need none.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devcluster.children import die_with_parent
from devcluster.go_build import BinaryError
from devcluster.interrupts import uninterrupted
from devcluster.node import images
from devcluster.node.layout import CONTEXT, Layout
from devcluster.node.node import LeftBehind, NodeError, check, down, node, programs, up
from devcluster.node.preflight import CannotBeNode
from devcluster.progress import say
from devcluster.spawning import end
from tools.image import ROOT, EngineUnavailable, ImageError, engine
from tools.platform_image import archive, build_both

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STOP_SECONDS = 120.0
KIND_CLUSTER = "queueworker-e2e"
KIND_CONFIG = ROOT / "tools" / "kind.yaml"


class NoCluster(Exception):
    """There is no cluster to run the tests on. The message says why."""


@contextmanager
def own_node() -> Iterator[dict[str, str]]:
    """The environment of tests on a node of our own. Raises `NoCluster` where this machine cannot have one."""
    path, tags = _prepare()
    with ExitStack() as stack:
        try:
            layout = stack.enter_context(node())
        except NodeError as error:
            raise NoCluster(f"the node did not come up: {error}") from error
        started = time.monotonic()
        images.load(layout, path)
        say(f"loaded the images in {time.monotonic() - started:.0f} s")
        yield _environment(str(layout.kubeconfig), CONTEXT, tags, "nodes")


@contextmanager
def kind_cluster() -> Iterator[dict[str, str]]:
    """The environment of tests on a cluster of kind. Raises `NoCluster` without kind or Docker."""
    if not shutil.which("kind"):
        raise NoCluster("kind is not on PATH: https://kind.sigs.k8s.io/docs/user/quick-start/#installation")
    with engine() as found, tempfile.TemporaryDirectory() as folder:
        if found.private:
            raise NoCluster("kind needs a running Docker, and none answers")
        tags = build_both(found)
        kubeconfig = str(Path(folder) / "kubeconfig")
        base = ("--name", KIND_CLUSTER)
        _run(
            "kind", "create", "cluster", *base, "--config", str(KIND_CONFIG), "--kubeconfig", kubeconfig, "--wait=120s"
        )
        try:
            _run("kind", "load", "docker-image", *base, *tags)
            yield _environment(kubeconfig, f"kind-{KIND_CLUSTER}", tags, "nodes,network-policy")
        finally:
            _run("kind", "delete", "cluster", *base, "--kubeconfig", kubeconfig)


def _environment(kubeconfig: str, context: str, tags: tuple[str, str], provides: str) -> dict[str, str]:
    return {
        "E2E_KUBECONFIG": kubeconfig,
        "E2E_CONTEXT": context,
        "E2E_IMAGE": tags[0],
        "E2E_PLATFORM_IMAGE": tags[1],
        "E2E_PROVIDES": provides,
    }


def keep() -> None:
    """Make this machine a node with the images, and print how to use it. Raises `NoCluster`."""
    layout = Layout()
    path, tags = _prepare()
    machine = check(layout)
    try:
        up(layout, machine, keep=True)
        images.load(layout, path)
    except BaseException:
        down(layout)
        raise
    print(f"export KUBECONFIG={layout.kubeconfig}")
    settings = _environment(str(layout.kubeconfig), CONTEXT, tags, "nodes")
    say("the tests on it: " + " ".join(f"{name}={value}" for name, value in settings.items()) + " make e2e")
    say("`make node-down` takes it down")


def _prepare() -> tuple[Path, tuple[str, str]]:
    """Check the machine, build what is missing, and return the archive of the images and their names."""
    try:
        check(Layout())
        programs()
        with engine() as found:
            tags = build_both(found)
            return archive(found, *tags), tags
    except (CannotBeNode, EngineUnavailable) as error:
        raise NoCluster(str(error)) from error


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise NoCluster(f"`{' '.join(command[:3])}` failed")


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    """Run the tests. After Ctrl-C they end in order, before the cluster goes; another Ctrl-C changes nothing."""
    command = [sys.executable, "-m", "pytest", "-q", "-rsx", *(arguments or ["tests/e2e"])]
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
            keep()
            return
        with kind_cluster() if kind else own_node() as environment:
            say(f"the cluster is ready after {time.monotonic() - started:.0f} s")
            status = _pytest(arguments or [], environment)
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
    except (BinaryError, ImageError, NodeError, LeftBehind, images.ImportFailed, OSError) as error:
        sys.exit(f"error: {error}")
