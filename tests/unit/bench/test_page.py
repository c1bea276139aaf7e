"""docs/performance.md is put together from runs that measured a part of it each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure import Figure, median
from bench.page import table, write

if TYPE_CHECKING:
    from pathlib import Path

ORDER = ("First", "Second")


def test_a_run_replaces_what_it_measured_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    write(ORDER, {"Second": "two"}, page)
    write(ORDER, {"First": "one\n\n### a part of it"}, page)
    before = page.read_text()
    write(ORDER, {"First": "eins"}, page)
    after = page.read_text()

    assert before.index("## First") < before.index("### a part of it") < before.index("## Second")
    assert "eins" in after
    assert "### a part of it" not in after
    assert before[before.index("## Second") :] == after[after.index("## Second") :]


def test_a_table_keeps_its_columns_in_line() -> None:
    assert table(("", "tasks/s"), [("router", "7,000")]) == "|  | tasks/s |\n| --- | ---: |\n| router | 7,000 |\n"


def test_a_median_is_of_each_value_on_its_own() -> None:
    found = median([Figure(n, 1, n, n, 100 - n, n, n) for n in (1, 50, 3)])
    assert (found.tasks, found.memory_mib) == (3, 97)
