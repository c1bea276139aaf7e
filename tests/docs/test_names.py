"""The fields, variables, images, programs and targets of make that pages, manifests and programs name are there."""

from __future__ import annotations

import re

import pytest

from queueworker.processes.environment_table import VARIABLES
from queueworker.processes.tracing_settings import FIELDS
from tests.support.doc_blocks import ROOT, pages
from tools.image import BASE_TAG, default_tag
from tools.platform_image import platform_tag

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


BUILT = {default_tag(), platform_tag(), BASE_TAG, "queueworker-operator:demo"}
"""The images that this project builds, the last one by compose.yaml."""
# Neither a port of a Service, nor a service account in the operator's namespace.
IMAGE = re.compile(r"(?<![\w-])(?<!services/)queueworker-(?!system:)[a-z]+:[a-z0-9][\w.-]*(?<!\.)")
MODULE = re.compile(r"\bpython3? -m ((?:tools|devcluster|demo|bench|queueworker|tests)\b(?:\.\w+)*)")
TARGET = re.compile(r"(?:(?<=`)|^[ #]*|run: |\$\()make ([a-z][a-z0-9-]*)(?=`| [A-Z_]+=| +#| \||$)", re.MULTILINE)
FOLDERS = ("charts", "docs", "manifests", "tools", "demo", "devcluster", ".github")
SUFFIXES = {".md", ".yaml", ".py", ".txt", ".tpl"}
FILES = [
    *pages(),
    ROOT / "compose.yaml",
    ROOT / "Makefile",
    *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.suffix in SUFFIXES),
]


def named(pattern: re.Pattern[str]) -> dict[str, str]:
    """What it finds, each with a file that names it."""
    found = {name: str(file.relative_to(ROOT)) for file in FILES for name in pattern.findall(file.read_text())}
    assert found
    return found


def test_every_image_of_ours_is_one_that_is_built() -> None:
    assert {image: file for image, file in named(IMAGE).items() if image not in BUILT} == {}


def test_every_program_of_ours_is_there() -> None:
    def there(module: str) -> bool:
        place = (ROOT / ("operator" if module.startswith("queueworker") else "")).joinpath(*module.split("."))
        return (place / "__main__.py").exists() or "__main__" in place.with_suffix(".py").read_text()

    assert {module: file for module, file in named(MODULE).items() if not there(module)} == {}


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {target: file for target, file in named(TARGET).items() if target not in targets} == {}
