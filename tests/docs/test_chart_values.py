"""The chart takes the values that the pages show, and kustomize their kustomization."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster import binaries
from queueworker import __version__
from tests.support.charts import CHART, NAME, Objects, by_name, container, helm
from tests.support.doc_blocks import ROOT, Block, blocks, pages

if TYPE_CHECKING:
    from pathlib import Path

Values = dict[str, Any]
DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
IMAGE = {"image": {"repository": "an-image"}}
"""The one value that is required, if the page has none."""
YAML = [block for page in pages() for block in blocks(page) if block.language == "yaml"]
OF_GITOPS = {"Application": ("spec", "source"), "HelmRelease": ("spec", "chart", "spec")}
"""Kinds with values of a chart, and where they name the folder of the chart."""


def values_in(block: Block) -> Values | None:
    """The values of the chart that it shows; None if it shows none."""
    shown = yaml.safe_load(block.text)
    if shown.get("kind") == "Application":
        return dict(shown["spec"]["source"]["helm"]["valuesObject"])
    if shown.get("kind") == "HelmRelease":
        return dict(shown["spec"]["values"])
    return dict(shown) if shown.keys() <= DEFAULTS.keys() else None


VALUES = [(block, values) for block in YAML if (values := values_in(block)) is not None]


def rendered(values: Values, folder: Path) -> Objects:
    (folder / "values.yaml").write_text(yaml.safe_dump(IMAGE | values))
    return by_name(helm("template", NAME, str(CHART), "--values", str(folder / "values.yaml")).stdout)


@pytest.mark.parametrize(("block", "values"), VALUES, ids=[block.name for block, _ in VALUES])
def test_the_chart_takes_the_values_of_a_page_and_they_have_an_effect(
    block: Block, values: Values, tmp_path: Path
) -> None:
    assert rendered(values, tmp_path) != rendered({}, tmp_path), block.text


def test_the_values_of_every_block_about_installing_are_rendered() -> None:
    rest = {block.name for block in YAML if block.page == "docs/install.md"} - {block.name for block, _ in VALUES}
    assert rest == {kustomization().name}


@pytest.mark.parametrize("kind", OF_GITOPS)
def test_the_gitops_objects_name_the_folder_of_the_chart(kind: str) -> None:
    (shown,) = [found for block in YAML if (found := yaml.safe_load(block.text)).get("kind") == kind]
    for key in OF_GITOPS[kind]:
        shown = shown[key]
    assert ROOT / (shown.get("path") or shown["chart"]) == CHART


def kustomization() -> Block:
    (found,) = [block for block in YAML if "images:" in block.text and block.section == "Kustomize"]
    return found


def test_the_kustomization_of_the_page_names_folders_that_are_there_and_replaces_the_image(tmp_path: Path) -> None:
    shown = yaml.safe_load(kustomization().text)
    folders = [re.fullmatch(r"https://[^/]+/[^/]+//([^?]+)\?ref=v(.+)", url) for url in shown["resources"]]
    assert [found and found[2] for found in folders] == [__version__]
    shown["resources"] = [os.path.relpath(ROOT / found[1], tmp_path.resolve()) for found in folders if found]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(shown))
    done = subprocess.run([binaries.kubectl(), "kustomize", tmp_path], capture_output=True, text=True, check=True)
    image = container(by_name(done.stdout))["image"]
    assert image == f"registry.example/queueworker-operator:{__version__}"


def test_every_value_that_a_page_names_is_one_of_the_chart() -> None:
    maps = "|".join(key for key, value in DEFAULTS.items() if isinstance(value, dict) and value)
    replaced = {"rbac.secretNames"}

    def is_there(name: str) -> bool:
        node: Any = DEFAULTS
        for key in name.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        return node is not None

    texts = {page.name: page.read_text() for page in pages() if page.name != "CHANGELOG.md"}
    named = {name: page for page, text in texts.items() for name in re.findall(rf"`((?:{maps})(?:\.[A-Za-z]+)+)", text)}
    assert len(named) > len(replaced)
    assert {name: page for name, page in named.items() if name not in replaced and not is_there(name)} == {}
