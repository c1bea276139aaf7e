"""Each command block of README and docs runs here, or says beside it why it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import COMMANDS, ROOT, Block, blocks, pages

SECONDS = 60
ALL = [block for page in pages() for block in blocks(page)]
TO_RUN = [block for block in ALL if block.language in COMMANDS and not block.reason]


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in the repository's folder, with this environment's commands first on PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.commands],
        cwd=folder,
        env=os.environ | {"PATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def page(tmp_path: Path, text: str) -> list[Block]:
    (tmp_path / "page.md").write_text(text)
    return blocks(tmp_path / "page.md", tmp_path)


def test_every_block_names_its_language() -> None:
    assert [block.name for block in ALL if not block.language] == []


def test_a_reason_stands_before_a_block_of_commands_only() -> None:
    assert [block.name for block in ALL if block.reason and block.language not in COMMANDS] == []


def test_some_blocks_are_run() -> None:
    assert len(TO_RUN) >= 4


@pytest.mark.parametrize("block", TO_RUN, ids=lambda block: block.name)
def test_a_command_block_runs(block: Block) -> None:
    ended = run(block, ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_reason_belongs_to_the_next_block_only(tmp_path: Path) -> None:
    reason, late = "<!-- not run: needs Docker -->\n", "<!-- not run: late -->\nText.\n\n"
    text = f"{reason}```sh\na\n```\n\n```sh\nb\n```\n\n{late}```sh\nc\n```\n"
    assert [(block.text.strip(), block.reason) for block in page(tmp_path, text)] == [
        ("a", "needs Docker"),
        ("b", ""),
        ("c", ""),
    ]


def test_a_block_knows_its_section(tmp_path: Path) -> None:
    fence = "```sh\na\n```\n"
    text = f"{fence}\n# One\n\n{fence}\nText.\n\n## Two `words`\n\nText.\n\n{fence}"
    assert [block.section for block in page(tmp_path, text)] == ["", "One", "Two `words`"]


def test_the_output_in_a_console_block_is_not_run(tmp_path: Path) -> None:
    (block,) = page(tmp_path, "```console\n$ true\noutput\n$ true\n```\n")
    assert block.commands == "true\ntrue"


def test_a_command_that_fails_in_the_middle_of_a_block_is_found(tmp_path: Path) -> None:
    (block,) = page(tmp_path, "```sh\nfalse\ntrue\n```\n")
    assert run(block, tmp_path).returncode == 1
