"""The table of failed tasks on screens of all widths."""

from __future__ import annotations

import pytest

from queueworker.cli.failed_table import table
from queueworker.cli.plugin.screen import ASCII

UUID = "9f0c6b1e-2ad5-4d0b-9b8e-7c1f4fb0aa11"
ERROR = "executor-1 answered 500 Internal Server Error: upstream connect error"


def row(eval_id: str = UUID, error: str = ERROR) -> dict[str, str]:
    where = {"WHEN": "2026-11-26T04:27:00Z", "ATTEMPTS": "1", "EXECUTOR": "executor-1"}
    return {"ID": eval_id} | where | {"ERROR": error}


def test_without_a_width_everything_is_shown() -> None:
    head, line = table([row()])
    assert head == f"{'ID':<36}  {'WHEN':<20}  ATTEMPTS  EXECUTOR    ERROR"
    assert line == f"{UUID}  2026-11-26T04:27:00Z  1         executor-1  {ERROR}"


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (140, ["ID", "WHEN", "ATTEMPTS", "EXECUTOR", "ERROR"]),
        (100, ["ID", "WHEN", "EXECUTOR", "ERROR"]),
        (80, ["ID", "EXECUTOR", "ERROR"]),
        (60, ["ID", "ERROR"]),
    ],
)
def test_a_narrow_screen_has_fewer_columns_and_whole_ids(width: int, names: list[str]) -> None:
    head, line = table([row()], width)
    assert head.split() == names
    assert line.startswith(f"{UUID}  ")
    assert len(line) <= width


def test_an_error_that_does_not_fit_is_cut_at_its_end() -> None:
    _, first, second = table([row(error="short"), row()], 80)
    assert first.endswith("  short")
    assert (len(second), second[-2:]) == (80, "r…")
    assert table([row()], 80, glyphs=ASCII)[1].endswith(" Int...")


def test_wide_characters_take_two_cells() -> None:
    lines = table([row(eval_id="評価", error="ok"), row(eval_id="abcdef", error="ok")])
    assert lines[1].startswith("評価    2026")
    assert lines[2].startswith("abcdef  2026")
