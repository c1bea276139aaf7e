"""Single keys from the terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[], str]


@contextmanager
def pressed() -> Iterator[Read]:
    """A function that returns the keys that were pressed since its last call. Ctrl-C still interrupts.

    Without a terminal there are no keys. The terminal gets its settings back at the end of the block.
    """
    if not sys.stdin.isatty():
        yield str
        return
    import termios  # noqa: PLC0415 -- Windows has neither of the two
    import tty  # noqa: PLC0415 -- likewise

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda: _read(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int) -> str:
    if not select.select([descriptor], [], [], 0)[0]:
        return ""
    return os.read(descriptor, 64).decode(errors="ignore")
