"""`check` as lines of text: errors and warnings stand out, and each says what to do."""

from __future__ import annotations

from textwrap import wrap
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
    """What to do, which is never coloured, has a line of its own unless it fits beside the message."""
    sign, hint = _sign(finding.level, glyphs), glyphs.hint
    advice = f"{hint} {finding.advice}" if finding.advice else ""
    indent = " " * (len(sign) + 1)
    width = max(20, size.width - len(indent))
    if len(f"{finding.message} {advice}") <= width:
        return [[(f"{sign} {finding.message}", finding.level), (f" {advice}".rstrip(), "")]]
    style = finding.level if finding.level is Level.ERROR else ""
    first, *rest = _wrapped(finding.message, width)
    more = [[(indent + line, style)] for line in rest]
    advices = [[(indent + line, "")] for line in _wrapped(advice, width, " " * (len(hint) + 1))]
    return [[(f"{sign} {first}", finding.level)], *more, *advices]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _sign(level: Level, glyphs: Glyphs) -> str:
    if level is Level.OK:
        return "✔" if glyphs is UNICODE else "+"
    return glyphs.levels[level]


def _total(found: Sequence[Finding]) -> Line:
    errors, warnings, total = counts(found)
    text = f"{counted(errors, 'error')}, {counted(warnings, 'warning')} in {counted(total, 'check')}"
    return [(f"{text}{'; exit status 1' if errors else ''}", Level.ERROR if errors else "bold")]
