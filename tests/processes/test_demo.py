"""The demo without Kubernetes, from its start to its account: in a log, and on a terminal."""

from __future__ import annotations

import os
import re

from tests.support.doc_blocks import Place, run_by
from tools.terminal import Session

(ON_A_TERMINAL, BY_ITSELF) = run_by(__file__)
LIMIT_SECONDS = 240
"""For a loaded machine; it takes half a minute."""
ACCOUNT = re.compile(r"submitted=(\d+) routed=(\d+) completed=\d+ failed=\d+ lost=(\d+)")


def test_the_demo_ends_by_itself_with_an_account() -> None:
    (step,) = BY_ITSELF.steps
    written = Place({"DEMO_LEGACY": "1"}, {"DEMO_SECONDS=30": "DEMO_SECONDS=4"}).run(step, LIMIT_SECONDS)
    assert re.search(r"^the page: http://127\.0\.0\.1:\d+/$", written, re.MULTILINE)
    assert "ACT 1 of 5: An executor is killed" in written
    assert re.search(r"^  \+ executor killed +noticed .* healed ", written, re.MULTILINE)
    assert "\x1b" not in written
    submitted, routed, lost = map(int, next(ACCOUNT.finditer(written)).groups())
    assert submitted == routed > 0
    assert lost == 0
    assert re.search(r"^legacy loop: submitted=\d+ waiting=\d+ stored=\d+ lost=\d+$", written, re.MULTILINE)


def test_a_person_kills_the_router_and_ends_the_demo() -> None:
    """On a terminal without colour and without UTF-8."""
    with Session(["bash", "-c", ON_A_TERMINAL.text], os.environ | {"NO_COLOR": "1", "LC_ALL": "C"}) as session:
        session.until(lambda text: "q end" in text, LIMIT_SECONDS)
        session.press(" ")
        session.press("r")
        session.until(lambda text: "+ router killed" in text, LIMIT_SECONDS)
        shown = session.text
        session.press("q")
        session.until(lambda text: "stopping everything" in text, LIMIT_SECONDS)
        account = ACCOUNT.search(session.text)
        assert session.wait(LIMIT_SECONDS) == 0
    assert shown.isascii()
    assert session.colours() == set()
    assert account is not None
