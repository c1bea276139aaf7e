"""docs/queueworker.md and docs/http.md say what commands and routes there are."""

from __future__ import annotations

import re

from tools.reference_pages import command_page, http_page


def test_every_command_has_its_help() -> None:
    page = command_page()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert {"queueworker", "queueworker worker", "queueworker failed retry"} <= set(headings)
    assert page.count("Usage: ") == len(headings)


def test_every_route_is_listed_for_operator_and_worker() -> None:
    operator, worker = http_page().split("## Worker")
    for part in (operator, worker):
        for route in ("GET /health", "GET /status", "GET /metrics", "GET /livez", "GET /readyz", "GET /api/overview"):
            assert f"| `{route}` |" in part
