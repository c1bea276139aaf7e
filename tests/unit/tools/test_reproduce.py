"""What the comparison of two builds says, without a container engine."""

from __future__ import annotations

import re

from tools.image import ROOT
from tools.reproduce import MAX_NAMED, differences, other_checkout


def test_equal_layers_have_no_differences() -> None:
    assert differences({"opt": "time=0"}, {"opt": "time=0"}) == []


def test_each_entry_that_differs_is_named_with_both_its_states() -> None:
    once, again = {"same": "time=0", "opt": "time=0", "gone": "time=0"}, {"same": "time=0", "opt": "time=7"}
    assert differences(once, again) == ["gone: time=0, then is not there", "opt: time=0, then time=7"]


def test_so_many_differences_are_counted_and_not_all_named() -> None:
    once = {f"file-{number}": "time=0" for number in range(MAX_NAMED + 3)}
    lines = differences(once, {})
    assert len(lines) == MAX_NAMED + 1
    assert lines[-1] == "and 3 more"


def test_the_other_checkout_has_all_that_the_build_reads_with_other_times_and_modes() -> None:
    read = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    with other_checkout() as folder:
        assert {path.name for path in folder.iterdir()} == read | {"Dockerfile", ".dockerignore"}
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert len({path.stat().st_mtime for path in files}) == 1
