"""Checks of the demo queue's account, and the error of tasks that are lost or reported twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class AccountError(AssertionError):
    """Tasks were lost, reported twice, or not reported in time. Such a test is never run again (see the Makefile)."""


def check_account(counts: Mapping[str, int], **expected: int) -> None:
    """Raises AccountError unless these counts of the queue are as expected."""
    found = {name: counts[name] for name in expected}
    if found != expected:
        raise AccountError(f"the queue's account is {found}, and should be {expected}")
