"""`python -m demo.control_plane`: ready the binaries, or run a control plane to play with."""

from __future__ import annotations

import signal
import sys

import typer

from demo.control_plane import binaries
from demo.control_plane.server import ControlPlane, ControlPlaneError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command(name="binaries")
def ready() -> None:
    """Find or build all binaries; the last line is the folder that holds them."""
    print(binaries.assets())


@app.command()
def helm() -> None:
    """Print the path of a helm, built if need be."""
    print(binaries.helm())


@app.command()
def up() -> None:
    """Run etcd and kube-apiserver until Ctrl-C; prints how to reach them."""
    with ControlPlane() as plane:
        print(f"export KUBECONFIG={plane.admin_kubeconfig}", flush=True)
        signal.sigwait([signal.SIGINT, signal.SIGTERM])


if __name__ == "__main__":
    try:
        app()
    except (binaries.BinaryError, ControlPlaneError) as error:
        sys.exit(f"error: {error}")
