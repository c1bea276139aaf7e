"""The workflows give tests what they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster import binaries
from devcluster.packages import TEST_PACKAGES
from tests.support.operating import ROOT

if TYPE_CHECKING:
    from pathlib import Path

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


GNU_SED = pytest.mark.skipif(sys.platform != "linux", reason="the step uses GNU sed, as the runner has it")


@GNU_SED
def test_each_node_of_kind_gets_the_image_of_the_version_under_test(tmp_path: Path) -> None:
    (script,) = [step["run"] for step in steps("ci.yaml", "e2e") if "kind.yaml" in step.get("run", "")]
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "kind.yaml", tmp_path / "tools")
    node = {"NODE": "v1.36.4@sha256:0123"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=os.environ | node, check=True)
    nodes = yaml.safe_load((tmp_path / "tools" / "kind.yaml").read_text())["nodes"]
    assert {item["role"] for item in nodes} == {"control-plane", "worker"}
    assert {item["image"] for item in nodes} == {"kindest/node:v1.36.4@sha256:0123"}


@GNU_SED
def test_a_released_chart_names_its_image_and_links_to_pages_of_its_version(tmp_path: Path) -> None:
    (script,) = [step["run"] for step in steps("release.yaml", "release") if "helm package" in step.get("run", "")]
    shutil.copytree(ROOT / "charts", tmp_path / "charts")
    helm = tmp_path / "bin" / "helm"
    helm.parent.mkdir()
    helm.write_text(f'#!/bin/sh\n[ "$1" = push ] || exec {binaries.helm()} "$@"\n')
    helm.chmod(0o755)
    environment = {
        "PATH": f"{helm.parent}:{os.environ['PATH']}",
        "IMAGE": "registry.example/queueworker-operator",
        "PROJECT": "https://git.example/project",
        "VERSION": "v1.2.3",
        "CHARTS": "oci://registry.example/charts",
    }
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=os.environ | environment, check=True)
    (package,) = (tmp_path / "dist").glob("*.tgz")
    subprocess.run(["tar", "-xzf", package], cwd=tmp_path / "dist", check=True)
    chart = tmp_path / "dist" / "queueworker-operator"
    links = re.findall(r"\]\(([^)]+)\)", (chart / "README.md").read_text())
    assert "https://git.example/project/blob/v1.2.3/docs/install.md" in links
    assert [link for link in links if not link.startswith("https://")] == []
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (about["home"], about["sources"]) == (environment["PROJECT"], [environment["PROJECT"]])
    assert yaml.safe_load((chart / "values.yaml").read_text())["image"]["repository"] == environment["IMAGE"]
