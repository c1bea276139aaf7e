"""`make demo DEMO_NODE=1`: the platform as pods on the cluster of this test run, and nothing of it afterwards."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from demo.kube import NAMESPACE
from demo.pods import OPERATOR, SYSTEM
from devcluster.spawning import end, spawn
from tests.support.accounts import AccountError
from tests.support.cluster import READY_SECONDS, ROOT
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import delete_workers
from tools.image import default_tag
from tools.platform_image import platform_tag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = [pytest.mark.requires("nodes"), pytest.mark.usefixtures("sleep_hook")]

ACCOUNT = re.compile(r"^submitted=(?P<submitted>\d+) routed=(?P<routed>\d+) .* lost=(?P<lost>-?\d+)$", re.MULTILINE)
ACTS_SECONDS = 20
DEMO_SECONDS = 600.0
STOP_SECONDS = 120.0


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, from which what a demo leaves is removed after the test."""
    if (cluster.image, cluster.platform_image) != (default_tag(), platform_tag()):
        pytest.skip(f"the demo runs {default_tag()} and {platform_tag()}, and the cluster has other images")
    yield cluster
    if leftovers(cluster):
        delete_workers(cluster, NAMESPACE)
        cluster.helm("uninstall", OPERATOR, "-n", SYSTEM, "--ignore-not-found", "--no-hooks")
        cluster.delete_crd()
        cluster.kubectl("delete", "namespace", NAMESPACE, SYSTEM, "--ignore-not-found", f"--timeout={READY_SECONDS}s")


def test_the_demo_on_pods_loses_no_task_and_leaves_nothing(empty: Cluster, tmp_path: Path) -> None:
    """Its first act moves the pool from 3 to 5 to 2 to 3 pods; after its seconds it begins no other."""
    context = empty.context or empty.kubectl("config", "current-context").stdout.strip()
    settings = {"KUBECONFIG": empty.kubeconfig, "DEMO_CONTEXT": context, "DEMO_SECONDS": str(ACTS_SECONDS)}
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = spawn([sys.executable, "-m", "demo", "--pods"], output, cwd=ROOT, env=os.environ | settings)
        try:
            status = demo.wait(DEMO_SECONDS)
        finally:
            end(demo, signal.SIGINT, STOP_SECONDS)
    text = log.read_text()
    check_account_line(text)
    assert status == 0, text
    assert re.search(r"^  \+ pool 3 > 5 > 2 +noticed .* healed ", text, re.MULTILINE), text
    wait_until(lambda: not leftovers(empty), "nothing of the demo is left", READY_SECONDS)


def check_account_line(text: str) -> None:
    """Raises AccountError unless the line is there, and every submitted task was routed and none was lost."""
    found = ACCOUNT.search(text)
    assert found, text
    if not int(found["submitted"]) == int(found["routed"]) > 0 == int(found["lost"]):
        raise AccountError(f"the account of the demo is {found[0]}\n{text}")


def leftovers(cluster: Cluster) -> list[str]:
    """What the demo makes in the whole cluster and is still there."""
    kinds = "crds,namespaces,clusterroles,clusterrolebindings"
    names = cluster.kubectl("get", kinds, "-o", "name").stdout.split()
    return [name for name in names if "queueworker" in name]
