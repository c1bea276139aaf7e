"""`check` as lines of text: errors and warnings stand out, and each says what to do."""

from __future__ import annotations

from textwrap import TextWrapper
from typing import TYPE_CHECKING

from queueworker.cli.plugin.findings import counts
from queueworker.cli.plugin.screen import UNICODE, Glyphs, Line, Size
from queueworker.cli.plugin.values import Level
from queueworker.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.cli.plugin.findings import Finding


def check_lines(found: Sequence[Finding], size: Size, glyphs: Glyphs, *, short: bool) -> list[Line]:
    """`short`: only errors and warnings. Findings about one object follow its name."""
    lines: list[Line] = []
    subject = ""
    for finding in found:
        if short and finding.level not in {Level.ERROR, Level.WARNING}:
            continue
        if finding.subject != subject:
            subject = finding.subject
            lines.append([(subject, "bold")])
        lines += _finding(finding, size, glyphs)
    return [*lines, _total(found)]


def _finding(finding: Finding, size: Size, glyphs: Glyphs) -> list[Line]:
    """What to do follows on the same line if both fit there, otherwise on a line of its own."""
    sign = _sign(finding.level, glyphs)
    width = max(20, size.width - len(sign) - 1)
    style = finding.level if finding.level is Level.ERROR else ""
    first, *rest = _wrapped(finding.message, f"{glyphs.hint} {finding.advice}" if finding.advice else "", width)
    return [[(f"{sign} {first}", finding.level)], *([(" " * (len(sign) + 1) + line, style)] for line in rest)]


def _wrapped(message: str, advice: str, width: int) -> list[str]:
    whole = f"{message} {advice}".rstrip()
    if len(whole) <= width:
        return [whole]
    fill = TextWrapper(width, break_on_hyphens=False, break_long_words=False)
    lines = fill.wrap(message)
    fill.subsequent_indent = " " * (advice.find(" ") + 1)  # as wide as the sign of the advice
    return lines + fill.wrap(advice)


def _sign(level: Level, glyphs: Glyphs) -> str:
    if level is Level.OK:
        return "✔" if glyphs is UNICODE else "+"
    return glyphs.levels[level]


def _total(found: Sequence[Finding]) -> Line:
    errors, warnings, total = counts(found)
    text = f"{counted(errors, 'error')}, {counted(warnings, 'warning')} in {counted(total, 'check')}"
    return [(f"{text}{'; exit status 1' if errors else ''}", Level.ERROR if errors else "bold")]
