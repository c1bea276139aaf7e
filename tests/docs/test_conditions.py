"""docs/conditions.md has every condition type and every reason, and no others."""

from __future__ import annotations

import re

from queueworker.resource.reasons import ConditionType, Reason
from tests.support.doc_blocks import ROOT

PAGE = (ROOT / "docs" / "conditions.md").read_text()
SOURCES = (ROOT / "operator" / "queueworker" / "controller").rglob("*.py")
EVENTS_ONLY = {name for path in SOURCES for name in re.findall(r'ObjectEvent\("\w+", "(\w+)"', path.read_text())}


def test_every_condition_type_has_its_part() -> None:
    headings = ", ".join(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)).split(", ")
    assert set(headings) - {"Events"} == set(ConditionType)


def test_every_reason_is_described() -> None:
    rows = re.findall(r"^\| (?:(?:True|False|Unknown) \| )?`(\w+)` \|", PAGE, re.MULTILINE)
    assert set(rows) == {reason.value for reason in Reason} | EVENTS_ONLY
    assert EVENTS_ONLY
