"""The commands of docs/install.md, as they are written there: from nothing to a routed task, and back to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster import binaries
from tests.support.cluster import COMMAND_SECONDS, NAME, READY_SECONDS, RESTRICTED
from tests.support.doc_blocks import Place, run_by
from tests.support.platform_on_cluster import platform_in
from tools.image import default_tag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Cluster

BLOCKS = run_by(__file__)
SYSTEM = "queueworker-system"


class Reader:
    """Somebody who follows the page, with kubectl and helm, and a kubeconfig for the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        config = folder / "admin"
        config.write_text(cluster.kubectl("config", "view", "--minify", "--flatten").stdout)
        self._place = Place.on_cluster(str(config), folder, "default", {}, binaries.helm(), installed=False)

    def follow(self, section: str, number: int = 0) -> None:
        """Run the commands of a section: of its blocks for this test, the one of that number."""
        block = [block for block in BLOCKS if block.section == section][number]
        try:
            for step in block.steps:
                self._place.run(step, 2 * COMMAND_SECONDS)
        except BaseException:
            print(self._cluster.story(SYSTEM))
            raise

    def leftovers(self) -> list[str]:
        """What the installation made and is still there."""
        kinds = "crds,namespaces,clusterroles,clusterrolebindings"
        names = self._cluster.kubectl("get", kinds, "-o", "name").stdout.split()
        return [name for name in names if "queueworker" in name]


@pytest.fixture
def reader(cluster: Cluster, tmp_path: Path) -> Iterator[Reader]:
    if cluster.image != default_tag():
        pytest.skip(f"the page installs {default_tag()}, and E2E_IMAGE is {cluster.image}")
    yield Reader(cluster, tmp_path)
    cluster.helm("uninstall", NAME, "-n", SYSTEM, "--ignore-not-found", "--no-hooks")
    cluster.delete_crd()
    cluster.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", f"--timeout={READY_SECONDS}s")


@pytest.mark.requires("nodes")
def test_helm_installs_upgrades_rolls_back_and_removes_it(cluster: Cluster, reader: Reader) -> None:
    reader.follow("Helm")
    with (
        cluster.namespace("team") as namespace,
        platform_in(cluster, namespace, executors=1, drain_seconds=1) as team,
    ):
        team.await_routing(1)
        team.route("installed")
        reader.follow("Upgrade")
        team.route("upgraded")
        reader.follow("Rollback")
        team.route("rolled-back")
        reader.follow("Removal", 0)
    assert reader.leftovers() == []


@pytest.mark.requires("nodes")
def test_kustomize_installs_and_removes_it(cluster: Cluster, reader: Reader) -> None:
    reader.follow("Kustomize")
    assert RESTRICTED.items() <= cluster.get("namespace", SYSTEM)["metadata"]["labels"].items()
    with (
        cluster.namespace("team") as namespace,
        platform_in(cluster, namespace, executors=1, drain_seconds=1) as team,
    ):
        team.await_routing(1)
        team.route("kustomized")
        reader.follow("Removal", 1)
    assert reader.leftovers() == []


def test_every_block_that_says_so_is_followed_here() -> None:
    sections = sorted(block.section for block in BLOCKS)
    assert sections == ["Helm", "Kustomize", "Removal", "Removal", "Rollback", "Upgrade"]
