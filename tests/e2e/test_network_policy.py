"""The chart's NetworkPolicy, on a cluster that enforces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queueworker.resource.urls import host_in_url
from tests.support.cluster import READY_SECONDS, installed
from tests.support.demo_processes import wait_until
from tests.support.platform_on_cluster import platform

if TYPE_CHECKING:
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.requires("nodes", "network-policy")

VALUES = (
    "networkPolicy.enabled=true",
    "networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.monitoring=allowed",
)


def test_only_the_peers_of_the_policy_reach_the_operator_and_tasks_flow(cluster: Cluster) -> None:
    """Also the standby reaches the leader, of whose objects its page tells."""
    with installed(cluster, *VALUES) as release, platform(cluster, executors=1, drain_seconds=1) as team:
        team.await_routing(1)
        team.route("policed")
        urls = [f"http://{host_in_url(pod['status']['podIP'])}:8084/api/overview" for pod in release.pods()]
        assert len(urls) == 2
        wait_until(lambda: not any(map(team.gets, urls)), "the policy is enforced", READY_SECONDS)
        cluster.kubectl("label", "namespace", team.namespace, "monitoring=allowed")
        wait_until(lambda: all(map(team.gets, urls)), "both replicas answer an allowed peer", READY_SECONDS)
        team.route("still")
