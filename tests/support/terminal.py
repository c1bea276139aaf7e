"""A command on a terminal of 80 columns and 24 lines, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WAIT_SECONDS = 60.0


class Terminal:
    """What the command wrote is in `text`; what is typed goes to it."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.text = ""
        self._descriptor = descriptor

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, words: str) -> None:
        """Return when the command has written the words after those that were waited for before."""
        begin, deadline = len(self.text), time.monotonic() + WAIT_SECONDS
        while words not in self.text[begin:]:
            assert time.monotonic() < deadline, f"{words!r} was not written: {self.text[-2000:]}"
            if not self._read() and self.process.poll() is not None:
                raise AssertionError(f"the command ended without {words!r}: {self.text[-2000:]}")

    def end(self) -> int:
        """Returns the exit status; all that was written is in `text` then."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self._read() or self.process.poll() is None:
            assert time.monotonic() < deadline, f"the command does not end: {self.text[-2000:]}"
        return self.process.wait()

    def _read(self) -> bool:
        if not select.select([self._descriptor], [], [], 0.1)[0]:
            return False
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # Linux' way to say that the other side is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[Terminal]:
    """The command runs until the end of the block at the latest."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = dict(environ) | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environ, start_new_session=True)
    os.close(its)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
