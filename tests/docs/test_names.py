"""The fields and variables that the pages for users name are there."""

from __future__ import annotations

import re

import pytest

from queueworker.processes.environment_table import VARIABLES
from queueworker.processes.tracing_settings import FIELDS
from tests.support.doc_blocks import ROOT

NAMES = ("how-to", "guarantees", "switching-over", "tasks", "troubleshooting")
PAGES = ("README.md", *(f"docs/{name}.md" for name in NAMES))
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
FIELD = re.compile(r"`(?:spec\.)?((?:queue|executors|routing|events|migration)\.[A-Za-z.]+)")
VARIABLE = re.compile(r"`([A-Z]+(?:_[A-Z]+)+)\b")
TRACING = {field.alias for field in FIELDS.values()}
OTHERS = {"DEMO_SECONDS", "DEMO_LEGACY", "DEMO_CONTEXT", "DEMO_NODE"}


@pytest.mark.parametrize("page", PAGES)
def test_every_field_is_in_the_reference(page: str) -> None:
    named = {name.rstrip(".") for name in FIELD.findall((ROOT / page).read_text())}
    assert {name for name in named if f"| `spec.{name}` |" not in REFERENCE} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_is_one_of_the_worker(page: str) -> None:
    named = set(VARIABLE.findall((ROOT / page).read_text()))
    assert named - {variable.name for variable in VARIABLES} - TRACING - OTHERS == set()


def test_names_are_found() -> None:
    assert FIELD.findall("`routing.retry.attempts: 2` `spec.queue.url`") == ["routing.retry.attempts", "queue.url"]
    assert VARIABLE.findall("`RETRY_ATTEMPTS=2`") == ["RETRY_ATTEMPTS"]
