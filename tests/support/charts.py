"""The chart, rendered by Helm without a cluster."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

import yaml

from devcluster import binaries
from devcluster.server import OPERATOR_ACCOUNT
from tests.support.operating import ROOT

CHART = ROOT / "charts" / "queueworker-operator"
NAMESPACE, NAME = OPERATOR_ACCOUNT
CRD = "queueworkers.crucible.dev"
IMAGE = f"image.repository={NAME}"
"""The one value that is required."""
Objects = dict[tuple[str, str], dict[str, Any]]
"""By kind and name."""


def helm(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([binaries.helm(), *args], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, done.stderr
    return done


@cache
def template(*values: str, release: str = NAME) -> str:
    """The manifest; `values` as `--set` takes them."""
    sets = [part for value in (IMAGE, *values) for part in ("--set", value)]
    return helm("template", release, str(CHART), "-n", NAMESPACE, *sets).stdout


def documents(text: str) -> list[dict[str, Any]]:
    """By the loader in C: the one in Python takes a third of a second for the CRD."""
    return [item for item in yaml.load_all(text, yaml.CSafeLoader) if item]


def by_name(text: str) -> Objects:
    """The release's own objects: neither hooks nor tests."""
    found = documents(text)
    return {(item["kind"], item["metadata"]["name"]): item for item in found if not is_hook(item)}


def hooks(text: str) -> Objects:
    return {(item["kind"], item["metadata"]["name"]): item for item in documents(text) if is_hook(item)}


def is_hook(item: dict[str, Any]) -> bool:
    return "helm.sh/hook" in (item["metadata"].get("annotations") or {})


def render(*values: str, release: str = NAME) -> Objects:
    return by_name(template(*values, release=release))


def pod(objects: Objects, name: str = NAME) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", name]["spec"]["template"]["spec"]
    return spec


def container(objects: Objects, name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = pod(objects, name)["containers"][0]
    return found
