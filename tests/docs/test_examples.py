"""The YAML in README and docs can be read, and its QueueWorkers are valid."""

from __future__ import annotations

import pytest
import yaml

from queueworker.resource.spec import QueueWorkerSpec
from tests.support.doc_blocks import Block, blocks, pages

YAML = [block for page in pages() for block in blocks(page) if block.language == "yaml"]
PAGES_OF_THE_SPEC = {"README.md", "docs/managed-pool.md"}


def test_there_are_examples() -> None:
    assert {block.page for block in YAML} >= PAGES_OF_THE_SPEC


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.name)
def test_an_example_is_valid(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        assert document
        ours = document.get("kind", "QueueWorker") == "QueueWorker"
        if block.page in PAGES_OF_THE_SPEC and ours and "spec" in document:
            QueueWorkerSpec.model_validate(document["spec"])
