"""The alert rules of the chart: they name metrics that exist, fire when they should, and have a runbook each."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.charts import CHART
from tests.support.operating import ROOT
from tests.support.promql import unknown

RULES = CHART / "files" / "alerts.yaml"
CASES = Path(__file__).with_name("alerts.test.yaml")
RUNBOOKS = ROOT / "docs" / "runbooks"
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="there is no promtool: apt-get install prometheus"
)


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_names_metrics_that_exist() -> None:
    assert unknown(rule["expr"] for rule in alerts().values()) == set()


def test_a_metric_that_does_not_exist_would_be_noticed() -> None:
    assert unknown(["rate(queueworker_tasks_failed[5m]) > sum(queueworker_ready)"]) == {"queueworker_tasks_failed"}


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_severity_and_a_runbook_that_says_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert "\n## How to look\n" in text
    assert "\n## What to do\n" in text


def test_there_is_no_runbook_without_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == alerts().keys() | {"README"}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = {case["name"] for case in yaml.safe_load(CASES.read_text())["tests"]}
    assert cases == {f"{name} {what}" for name in alerts() for what in ("fires", "does not fire")}


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


@needs_promtool
def test_the_rules_and_their_templates_are_valid() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(RULES))
