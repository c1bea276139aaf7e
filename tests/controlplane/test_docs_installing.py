"""The command blocks about installing and removing that need no nodes, on an API server of this file's own."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from devcluster import binaries
from devcluster.server import ControlPlane
from tests.controlplane import conftest as shared
from tests.support.charts import CRD, NAME, NAMESPACE, helm
from tests.support.doc_blocks import Block, Place, run_by
from tests.support.operating import install_crd, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.controlplane.conftest import Kubectl

WATCHES, BY_KUSTOMIZE, PATCHES = "kubectl get queueworkers -w", "apply --server-side -k", "finalizers"
# Helm comes first: it takes over nothing that others have made, and leaves nothing.
BLOCKS = sorted(run_by(__file__), key=lambda block: ("helm" not in block.text, BY_KUSTOMIZE in block.text))
STUCK = "stuck"
"""A QueueWorker that no operator releases."""


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    found = shared.kubectl_of(control_plane)
    for name in (NAMESPACE, "team-a", "team-b"):
        found("create", "namespace", name)
    return found


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, folder: Path) -> Place:
    names = {
        "--from-file=ca.crt": f"--from-file=ca.crt={control_plane.ca_file}",
        "NAME -n NAMESPACE": f"{STUCK} -n default",
    }
    return Place.on_cluster(control_plane.admin_kubeconfig, folder, "default", names, binaries.helm())


@contextmanager
def prepared(block: Block, control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[None]:
    """What the block expects to find is there; a release is removed afterwards."""
    at = ("--kubeconfig", control_plane.admin_kubeconfig, "-n", NAMESPACE)
    if "helm" not in block.text:
        install_crd(kubectl)
    if PATCHES in block.text:
        kubectl("apply", "-f", "-", input=worker(STUCK))
        kubectl("patch", "qw", STUCK, "--type=merge", "-p", json.dumps({"metadata": {"finalizers": ["test.dev/x"]}}))
        kubectl("delete", "qw", STUCK, "--wait=false")
    yield
    if "helm" in block.text:
        helm("uninstall", NAME, *at, "--no-hooks")  # nothing runs the hook's Job here
        kubectl("delete", "crd", CRD)


@pytest.mark.parametrize("block", [b for b in BLOCKS if WATCHES not in b.text], ids=lambda block: block.name)
def test_a_command_block_runs(block: Block, place: Place, control_plane: ControlPlane, kubectl: Kubectl) -> None:
    with prepared(block, control_plane, kubectl):
        place.run_all(block)
    if PATCHES in block.text:
        assert kubectl("get", "qw", STUCK, "--ignore-not-found").stdout == ""


@pytest.mark.parametrize("block", [b for b in BLOCKS if WATCHES in b.text], ids=lambda block: block.name)
def test_a_watch_shows_the_object_until_ctrl_c(block: Block, place: Place, kubectl: Kubectl) -> None:
    install_crd(kubectl)
    running = place.start(block.text)
    assert running.stdout is not None
    try:
        assert any(line.startswith("legacy ") for line in running.stdout)
    finally:
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=20)
