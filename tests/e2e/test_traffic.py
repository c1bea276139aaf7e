"""An operator installed by the chart routes on nodes, whatever happens to pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import RESTRICTED, is_ready

if TYPE_CHECKING:
    from tests.support.cluster import Cluster, Release
    from tests.support.platform_on_cluster import Platform

pytestmark = pytest.mark.requires("nodes")


def test_the_chart_installs_under_restricted_pod_security_with_two_ready_pods(
    cluster: Cluster, release: Release
) -> None:
    labels = cluster.get("namespace", release.namespace)["metadata"]["labels"]
    assert RESTRICTED.items() <= labels.items()
    assert [is_ready(pod) for pod in release.pods()] == [True, True]
    assert release.await_leader()


def test_every_task_is_reported_and_stored_once(team: Platform) -> None:
    before = team.queue.account()
    ids = team.queue.submit("traffic", 200, 0.05)
    account = team.queue.settle()
    counts = {name: account[name] - before[name] for name in account}
    assert (counts["submitted"], counts["handed_out"], counts["completed"]) == (200, 200, 200)
    assert (counts["failed"], counts["reported_twice"], counts["unknown_reports"]) == (0, 0, 0)
    assert sorted(name for name in team.started() if name in set(ids)) == sorted(ids)
    stored = team.stored()
    assert (stored["distinct"], stored["failed"]) == (account["completed"], 0)
