"""The demo without Kubernetes, from its start to its account: in a log, and on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tools.recording import Session

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "demo", "--worker", "--rate", "5"]
LIMIT_SECONDS = 240
"""For a loaded machine; it takes half a minute."""
ACCOUNT = re.compile(r"submitted=(\d+) routed=(\d+) completed=\d+ failed=\d+ lost=(\d+)")


def test_the_demo_ends_by_itself_with_an_account() -> None:
    ended = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env=os.environ | {"DEMO_SECONDS": "4", "DEMO_LEGACY": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^the page: http://127\.0\.0\.1:\d+/$", ended.stdout, re.MULTILINE)
    assert "ACT 1 of 5: An executor is killed" in ended.stdout
    assert re.search(r"^  \+ executor killed +noticed .* healed ", ended.stdout, re.MULTILINE)
    assert "\x1b" not in ended.stdout
    submitted, routed, lost = map(int, next(ACCOUNT.finditer(ended.stdout)).groups())
    assert submitted == routed > 0
    assert lost == 0
    assert re.search(r"^legacy loop: submitted=\d+ waiting=\d+ stored=\d+ lost=\d+$", ended.stdout, re.MULTILINE)


def test_a_person_kills_the_router_and_ends_the_demo() -> None:
    """On a terminal without colour and without UTF-8."""
    with Session(COMMAND, {"NO_COLOR": "1", "LC_ALL": "C"}) as session:
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
