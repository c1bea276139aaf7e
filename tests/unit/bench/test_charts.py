"""The charts of the benches' pages are drawn from the tables in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.charts import CHARTS, DOCS, bars, column, draw, links
from bench.page import write

TABLE = "| | tasks/s | MiB |\n| --- | ---: | ---: |\n| the legacy loop | 281 | 37 |\n| this router | 8,441 | 72 |\n"
OTHER = "| a |\n| --- |\n| 1 |\n"
PAGE = f"# Performance\n\n## Other\n\n{OTHER}\n## Side by side\n\n{OTHER}\n{TABLE}\nText.\n"


def widths(svg: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect x="\d+" y="\d+" width="([\d.]+)"', svg)]


def test_a_column_is_read_from_the_first_table_that_has_it() -> None:
    assert column(PAGE, "Side by side", "tasks/s") == [("the legacy loop", 281.0), ("this router", 8441.0)]
    assert column(PAGE, "Other", "tasks/s") == []
    assert column(PAGE, "Missing", "tasks/s") == []


def test_bars_are_as_long_as_their_values_and_say_them() -> None:
    svg = bars("A & B", [("one", 1000.0), ("two", 2000.0), ("none", 0.0)])
    one, two, none = widths(svg)
    assert (one * 2, none) == (two, 0)
    assert "A &amp; B" in svg
    assert ">2,000<" in svg


def test_values_that_are_all_zero_are_drawn() -> None:
    assert widths(bars("", [("a", 0.0)])) == [0]


def test_a_run_draws_the_charts_of_its_sections_and_links_them(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    write(["Side by side"], {"Side by side": TABLE}, page)
    assert links("Side by side") in page.read_text()
    assert [path.name for path in sorted((tmp_path / "images").iterdir())] == ["chart-side-by-side-tasks-s.svg"]


@pytest.mark.parametrize("name", ["performance.md", "balance.md"])
def test_the_charts_in_docs_are_those_of_the_tables(name: str, tmp_path: Path) -> None:
    text = (DOCS / name).read_text()
    (tmp_path / name).write_text(text)
    for path in draw(tmp_path / name):
        assert path.read_text() == (DOCS / path.relative_to(tmp_path)).read_text(), "run `python -m bench.charts`"
        assert path.relative_to(tmp_path).as_posix() in text


def test_every_chart_has_a_file_of_its_own() -> None:
    assert len({chart.image for chart in CHARTS}) == len(CHARTS)
