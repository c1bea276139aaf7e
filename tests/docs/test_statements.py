"""What the pages say of limits and of the compose file holds in the code."""

from __future__ import annotations

import re

import pytest
import yaml

from devcluster.binaries import OLDEST_HELM
from queueworker.controller.leadership import DURATION_SECONDS, RETRY_SECONDS
from queueworker.processes.environment import load
from queueworker.routing.limits import TIMES
from tests.support.doc_blocks import ROOT, blocks

SWITCHING = ROOT / "docs" / "switching-over.md"
NEW_LINES = {"image", "stop_grace_period", "restart"}


def test_the_timeline_of_a_kill_is_that_of_the_journal_and_of_the_lease() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    assert f"| up to {TIMES.lease:g} | the lease of the dead router ends |" in page
    assert f"| up to {TIMES.lease + TIMES.heartbeat:g} | at its next heartbeat (every {TIMES.heartbeat:g} s)" in page
    # A standby sees the last renewal one read later, and its end another one.
    assert f"at most {DURATION_SECONDS + 2 * RETRY_SECONDS:g} s after the leader" in page


STARTS = ("docs/install.md", "manifests/operator/deployment.yaml", "charts/queueworker-operator/values.yaml")


def test_the_start_takes_the_same_time_wherever_it_is_said() -> None:
    figures = re.compile(r"about (\S+) s of CPU time: (\S+) s at a limit of 100m")
    said = {page: figures.findall((ROOT / page).read_text()) for page in STARTS}
    assert len({tuple(found) for found in said.values()}) == 1, said
    ((with_one_cpu, with_a_tenth),) = said[STARTS[0]]
    assert float(with_a_tenth) == 10 * float(with_one_cpu)


@pytest.mark.parametrize(
    "page", ["docs/install.md", "docs/quick-start-kind.md", "charts/queueworker-operator/README.md"]
)
def test_the_oldest_helm_is_the_oldest_that_the_tests_take(page: str) -> None:
    major, minor = OLDEST_HELM
    assert re.findall(r"Helm (\d+(?:\.\d+)?) or newer", (ROOT / page).read_text()) == [f"{major}.{minor}"]


def test_the_compose_file_changes_in_the_lines_that_are_named() -> None:
    files = [yaml.safe_load(block.text) for block in blocks(SWITCHING) if block.language == "yaml"]
    before, after = (file["services"]["queue-worker"] for file in files)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed == NEW_LINES
    assert int(after["stop_grace_period"].removesuffix("s")) > load({}).config.spec.routing.drain_seconds


def test_the_worker_takes_the_environment_of_the_legacy_worker() -> None:
    (before, *_) = [yaml.safe_load(block.text) for block in blocks(SWITCHING) if block.language == "yaml"]
    spec = load(before["services"]["queue-worker"]["environment"]).config.spec
    assert (spec.executors.count, str(spec.queue.url)) == (3, "http://queue:8081")
