"""Each command block of README and docs runs here or in the test that it names, or says why nothing runs it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.doc_blocks import COMMANDS, ROOT, Block, Place, Step, blocks, command_blocks, differences, pages

ALL = [block for page in pages() for block in blocks(page)]
TO_RUN = [block for block in command_blocks() if not block.reason and not block.runner]


def page(tmp_path: Path, text: str) -> list[Block]:
    (tmp_path / "page.md").write_text(text)
    return blocks(tmp_path / "page.md", tmp_path)


def test_every_block_names_its_language() -> None:
    assert [block.name for block in ALL if not block.language] == []


def test_a_mark_stands_before_a_block_of_commands_only_and_is_one_of_the_two() -> None:
    marked = [block for block in ALL if block.reason or block.runner]
    assert [block.name for block in marked if block.language not in COMMANDS or (block.reason and block.runner)] == []


def test_every_test_that_is_named_takes_the_blocks_that_name_it() -> None:
    runners = {block.runner for block in ALL} - {""}
    assert {name for name in runners if "run_by(__file__)" not in (ROOT / name).read_text()} == set()


def test_most_blocks_are_run() -> None:
    run = [block for block in command_blocks() if not block.reason]
    assert len(run) > len(command_blocks()) / 2


@pytest.mark.parametrize("block", TO_RUN, ids=lambda block: block.name)
def test_a_command_block_runs(block: Block) -> None:
    Place().run_all(block)


def test_a_mark_belongs_to_the_next_block_only(tmp_path: Path) -> None:
    reason, late = "<!-- not run: needs Docker -->\n", "<!-- run by: late -->\nText.\n\n"
    text = f"{reason}```sh\na\n```\n\n```sh\nb\n```\n\n{late}```sh\nc\n```\n\n<!-- run by: it -->\n```sh\nd\n```\n"
    assert [(block.text.strip(), block.reason, block.runner) for block in page(tmp_path, text)] == [
        ("a", "needs Docker", ""),
        ("b", "", ""),
        ("c", "", ""),
        ("d", "", "it"),
    ]


def test_a_block_knows_its_section(tmp_path: Path) -> None:
    fence = "```sh\na\n```\n"
    text = f"{fence}\n# One\n\n{fence}\nText.\n\n## Two `words`\n\nText.\n\n{fence}"
    assert [block.section for block in page(tmp_path, text)] == ["", "One", "Two `words`"]


def test_a_command_with_a_prompt_has_the_output_below_it(tmp_path: Path) -> None:
    (block,) = page(tmp_path, "```console\n$ one\nits output\nexit status 3\n$ two\n```\n")
    assert [(step.script, step.output, step.status) for step in block.steps] == [
        ("one", "its output\nexit status 3\n", 3),
        ("two", "", 0),
    ]


def test_a_command_that_fails_in_the_middle_of_a_block_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit status 1"):
        Place(folder=tmp_path).run(Step("false\ntrue\n"))


def test_output_that_is_not_as_the_page_shows_is_found(tmp_path: Path) -> None:
    place = Place({"WHO": "you"}, {"NAME": "it"}, tmp_path)
    assert place.run(Step("echo $WHO NAME 5", "you NAME 6\n")) == "you it 5\n"
    with pytest.raises(AssertionError, match=r"lines that did not come: .'me it'"):
        place.run(Step("echo $WHO NAME", "me NAME\n"))


def test_without_an_installation_our_commands_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody has activated this environment."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    found = Step("command -v queueworker")
    assert Place(folder=tmp_path).run(found)
    with pytest.raises(AssertionError, match="exit status 1"):
        Place(folder=tmp_path, installed=False).run(found)


def test_a_page_with_our_commands_says_how_they_are_installed() -> None:
    """Or links to a page that says it. The runbooks have a page about all of them."""
    says = re.compile(r"pipx install|make demo-worker|\]\((\.\./)?(command|quick-start-worker)\.md")
    ours = re.compile(r"^(\$ )?(kubectl )?queueworker ", re.MULTILINE)
    running = {
        re.sub(r"(runbooks)/\w+\.md", r"\1/README.md", block.page)
        for block in command_blocks()
        if ours.search(block.text)
    }
    assert "docs/command.md" in running
    assert {page for page in running if not says.search((ROOT / page).read_text())} == set()


def test_numbers_addresses_times_and_widths_may_differ() -> None:
    shown = "AGE  6s\n● 3 wait  http://127.0.0.1:42441\n▃▃▁ 0.4 s, redis://a:1: no answer\n2026-11-26T04:27:00Z"
    got = "more\nAGE    2m3s\n● 14 wait http://q/\nmore\n▅ 1 s, redis://b: no answer\n2027-01-01T00:00:01Z\n"
    assert differences(shown, got) == []
    assert differences("a\nb", "b\na") == ["b"]
    assert differences("a\nb\nc", "a\nc") == ["b"]
    assert differences("3 of 3 healthy", "2 of 3 sick") == ["3 of 3 healthy"]
