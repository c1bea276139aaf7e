"""The samples are valid, and their pods can start: the project builds their image, and its entrypoint takes their args.

tests/e2e/test_samples.py starts them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from queueworker.resource.spec import QueueWorkerSpec
from tests.support.operating import ROOT
from tools.platform_image import platform_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
DOCKERFILE = ROOT / "tools" / "platform.Dockerfile"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "manifests" / "samples" / name).read_text()))


def containers(part: Any) -> Iterator[dict[str, Any]]:
    """Of all pods in an object, wherever their template stands."""
    if isinstance(part, dict):
        yield from part.get("containers", [])
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for child in children:
        yield from containers(child)


PODS = [(path.name, container) for path in SAMPLES for item in documents(path.name) for container in containers(item)]


def test_samples_have_pods() -> None:
    assert {name for name, _ in PODS} == {"managed.yaml", "own-statefulset.yaml"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_the_queueworker_of_a_sample_is_valid(path: Any) -> None:
    specs = [item["spec"] for item in documents(path.name) if item["kind"] == "QueueWorker"]
    assert [QueueWorkerSpec.model_validate(spec) for spec in specs]


@pytest.mark.parametrize(("name", "container"), PODS, ids=[name for name, _ in PODS])
def test_the_image_of_a_pod_is_the_platforms_and_its_entrypoint_takes_the_args(
    name: str, container: dict[str, Any]
) -> None:
    assert container["image"] == platform_tag(), name
    assert "command" not in container
    found = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    _, *options = json.loads(found[1])
    done = subprocess.run(
        [sys.executable, *options, *container["args"], "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
