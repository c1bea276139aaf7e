"""The cluster of the test run, and what a cluster must have for a test to run on it.

`python -m tools.e2e` says by environment variables where the cluster is and what it provides.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import CRD, Cluster, Release, installed
from tests.support.platform_on_cluster import Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

FEATURES = {"nodes", "processes", "dual-stack", "network-policy", "load-balancer"}

TEAM_DRAIN_SECONDS = 5
"""Tasks that an executor runs when it is deleted take half a second."""


def provided() -> set[str]:
    """What the cluster has: E2E_PROVIDES, by default nodes."""
    if not os.environ.get("E2E_KUBECONFIG"):
        return set()
    return set(os.environ.get("E2E_PROVIDES", "nodes").split(","))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"requires(*features): what the cluster must have, of {sorted(FEATURES)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = {feature for mark in item.iter_markers("requires") for feature in mark.args}
    assert wanted <= FEATURES, f"unknown: {wanted - FEATURES}"
    missing = sorted(wanted - provided())
    if missing:
        reason = os.environ.get("E2E_WHY_NOT") or "run `make e2e`, or set E2E_KUBECONFIG and E2E_PROVIDES"
        pytest.skip(f"no cluster with {' and '.join(missing)}: {reason}")


SLEEP_HOOK = 30
"""The minor version of Kubernetes that takes `preStop.sleep`."""


@pytest.fixture(scope="session")
def sleep_hook(cluster: Cluster) -> None:
    """For tests with pods whose preStop hook sleeps: those of a managed pool, and of the samples."""
    if cluster.minor_version() < SLEEP_HOOK:
        pytest.skip("the preStop hook of executors needs Kubernetes 1.30: docs/managed-pool.md")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    found = Cluster.of_environment()
    assert found is not None, "tests with this fixture are marked with requires(…)"
    there = found.kubectl("get", "crd", CRD, check=False).returncode == 0
    assert not there, f"the cluster has {CRD} already, which the tests would delete: use another cluster"
    return found


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """The operator as the chart makes it: two replicas, for the whole cluster; with a Service of all its families."""
    with installed(cluster, "service.ipFamilyPolicy=PreferDualStack") as release:
        yield release


@pytest.fixture(scope="module")
def team(cluster: Cluster, release: Release) -> Iterator[Platform]:
    """A platform that the release routes for."""
    with platform(cluster, drain_seconds=TEAM_DRAIN_SECONDS) as running:
        running.await_routing()
        yield running
