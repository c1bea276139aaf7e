"""Colours of log lines: on a terminal only."""

from __future__ import annotations

import io
import logging

import pytest

from queueworker.processes.logs import ColourFormatter, TextFormatter, has_colours


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_only_a_terminal_has_colours(stream: io.StringIO, environ: dict[str, str], expected: bool) -> None:
    assert has_colours(stream, environ) is expected


def test_a_coloured_line_has_the_same_text() -> None:
    record = logging.LogRecord("queueworker.web", logging.WARNING, "", 1, "slow WARNING queueworker.web: x", (), None)
    coloured = ColourFormatter().format(record)
    assert "\x1b[33mWARNING\x1b[0m" in coloured
    plain = coloured
    for code in ("\x1b[33m", "\x1b[0m", "\x1b[2m"):
        plain = plain.replace(code, "")
    assert plain == TextFormatter().format(record)
