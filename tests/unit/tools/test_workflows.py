"""The workflows give tests what they need."""

from __future__ import annotations

from typing import Any

import yaml

from devcluster.packages import TEST_PACKAGES
from tests.support.operating import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
OF_THE_RUNNER = {"chromium"}
"""What GitHub's runners have; Ubuntu's package of that name is a snap."""


def steps(workflow: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((WORKFLOWS / workflow).read_text())["jobs"][job]["steps"]
    return found


def commands(workflow: str, job: str) -> str:
    return "\n".join(step.get("run", "") for step in steps(workflow, job))


def test_the_job_that_runs_the_tests_has_the_whole_history() -> None:
    """tests/unit/journal/test_rollback.py runs the code of an earlier commit."""
    assert "make test\n" in commands("ci.yaml", "test")
    checkouts = [step for step in steps("ci.yaml", "test") if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["fetch-depth"] for step in checkouts] == [0]


def test_the_job_that_runs_the_tests_has_the_packages_that_only_root_can_install() -> None:
    needed = {package for names in TEST_PACKAGES.values() for package in names.split()}
    assert needed - OF_THE_RUNNER - set(commands("ci.yaml", "test").split()) == set()
