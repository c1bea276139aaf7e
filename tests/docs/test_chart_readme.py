"""The README of the chart leads to the page about installing."""

from __future__ import annotations

import re

from tests.support.charts import CHART
from tests.support.doc_blocks import ROOT

PAGE = (ROOT / "docs" / "install.md").read_text()
README = (CHART / "README.md").read_text()
OF_THE_README_ITSELF = {"the-image", "helm"}


def test_each_section_of_the_page_is_in_the_table_and_each_link_leads_to_one() -> None:
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)}
    linked = set(re.findall(r"\]\(\.\./\.\./docs/install\.md#([^)]+)\)", README))
    assert linked == sections - OF_THE_README_ITSELF
