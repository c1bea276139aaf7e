"""docs/metrics.md is made from what a scrape answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.processes import metrics_reference

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_reference_has_a_row_for_each_metric_and_is_up_to_date() -> None:
    text = metrics_reference.reference()
    assert all(f"\n| `{name}` | " in text for name in metrics_reference.families() if name.startswith("queueworker_"))
    assert metrics_reference.PATH.read_text() == text
    assert metrics_reference.run(check=True) == 0


def test_a_row_names_the_type_the_labels_and_who_has_the_metric() -> None:
    rows = {row.split("`")[1]: row for row in metrics_reference.reference().splitlines() if row.startswith("| `")}
    assert "| histogram | `queueworker`, `outcome` |" in rows["queueworker_task_seconds"]
    assert "Operator only." in rows["queueworker_lease_changes_total"]
    assert "Operator only." not in rows["queueworker_ready"]


def test_a_reference_that_is_out_of_date_is_told_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "metrics.md"
    stale.write_text("old")
    assert metrics_reference.run(stale, check=True) == 1
    assert "docs/metrics.md is out of date: run `make generate`" in capsys.readouterr().err
    assert metrics_reference.run(stale, check=False) == 0
    assert metrics_reference.run(stale, check=True) == 0
