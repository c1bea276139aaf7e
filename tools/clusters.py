"""Clusters with nodes that have our images: a node on this machine, or a cluster of kind."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.node import images
from devcluster.node.layout import CONTEXT, Layout
from devcluster.node.node import NodeError, check, down, node, programs, up
from devcluster.node.preflight import CannotBeNode
from devcluster.progress import say
from tools.container_engine import EngineUnavailable, engine
from tools.image import ROOT
from tools.platform_image import archive, build_both

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND_CLUSTER = "queueworker-e2e"
KIND_CONFIG = ROOT / "tools" / "kind.yaml"


class NoCluster(Exception):
    """There is no cluster with nodes. The message says why."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster whose nodes have the images. `provides` is what tests may require of it, separated by commas."""

    kubeconfig: str
    context: str
    image: str
    platform_image: str
    provides: str = "nodes"

    def environment(self) -> dict[str, str]:
        """The environment of tests/e2e."""
        return {
            "E2E_KUBECONFIG": self.kubeconfig,
            "E2E_CONTEXT": self.context,
            "E2E_IMAGE": self.image,
            "E2E_PLATFORM_IMAGE": self.platform_image,
            "E2E_PROVIDES": self.provides,
        }


@contextmanager
def own_node() -> Iterator[Nodes]:
    """Make this machine a node for the length of the block. Raises `NoCluster` where that is not possible."""
    path, tags = _prepare()
    with ExitStack() as stack:
        try:
            layout = stack.enter_context(node())
        except NodeError as error:
            raise NoCluster(f"the node did not come up: {error}") from error
        started = time.monotonic()
        images.load(layout, path)
        say(f"loaded the images in {time.monotonic() - started:.0f} s")
        yield _nodes(layout, tags)


@contextmanager
def kind_cluster() -> Iterator[Nodes]:
    """A cluster of kind for the length of the block. Raises `NoCluster` without kind or Docker."""
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
            yield Nodes(kubeconfig, f"kind-{KIND_CLUSTER}", *tags, "nodes,network-policy")
        finally:
            _run("kind", "delete", "cluster", *base, "--kubeconfig", kubeconfig)


def keep() -> Nodes:
    """Make this machine a node with the images that stays until `down`. Raises `NoCluster`."""
    layout = Layout()
    path, tags = _prepare()
    machine = check(layout)
    try:
        up(layout, machine, keep=True)
        images.load(layout, path)
    except BaseException:
        down(layout)
        raise
    return _nodes(layout, tags)


def _nodes(layout: Layout, tags: tuple[str, str]) -> Nodes:
    provides = "nodes,processes,dual-stack" if layout.dual_stack else "nodes,processes"
    return Nodes(str(layout.kubeconfig), CONTEXT, *tags, provides)


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
