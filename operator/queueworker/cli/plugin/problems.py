"""What ends a command with status 1."""

from __future__ import annotations


class Problem(Exception):
    """The message is for the person at the terminal: what is wrong, and what to do."""
