"""A command on a terminal of its own, pyte's, whose screen can be read and whose keys can be pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyte

from devcluster.children import die_with_parent
from tools.terminal_svg import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tools.terminal_svg import Line

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 80, 24
LOOK_SECONDS = 0.2
STOP_SECONDS = 10.0
_ALTERNATE = re.compile(rb"\x1b\[\?1049([hl])")


class Terminal:
    """A terminal that begins anew when a full-screen program takes it, and when the program gives it back."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self._size = columns, rows
        self._clear()

    def feed(self, data: bytes) -> None:
        for index, part in enumerate(_ALTERNATE.split(data)):
            if index % 2:
                self._clear()
            else:
                self._stream.feed(part)

    @property
    def text(self) -> str:
        return "\n".join(self._shown.display)

    def lines(self) -> tuple[Line, ...]:
        columns, rows = self._size
        return tuple(_runs(self._shown.buffer[row], columns) for row in range(rows))

    def _clear(self) -> None:
        self._shown = pyte.Screen(*self._size)
        self._stream = pyte.ByteStream(self._shown)


def _runs(row: Mapping[int, pyte.screens.Char], columns: int) -> Line:
    """The cells of a row, those of equal style together; without those that are blank."""
    runs: list[Run] = []
    for column in range(columns):
        cell = row[column]
        last = runs[-1] if runs else None
        if last is not None and (last.colour, last.bold) == (cell.fg, cell.bold):
            runs[-1] = Run(last.column, last.text + cell.data, last.colour, last.bold)
        else:
            runs.append(Run(column, cell.data, cell.fg, cell.bold))
    return tuple(run for run in runs if run.text.strip())


class Session:
    """A command on a terminal, in the repository's folder. It ends with the block."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], columns: int = COLUMNS, rows: int = ROWS
    ) -> None:
        """`environ` is the whole environment of the command; TERM is added."""
        self.terminal = Terminal(columns, rows)
        self._seen: set[str] = set()
        self._descriptor, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environ, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        return self.terminal.text

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def press(self, key: str) -> None:
        os.write(self._descriptor, key.encode())

    def watch(self, seconds: float) -> None:
        """Take what arrives in that time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                try:
                    self.terminal.feed(os.read(self._descriptor, 65536))
                except OSError:  # the program has ended
                    time.sleep(max(0.0, left))
        self._seen |= {run.colour for line in self.terminal.lines() for run in line}

    def until(self, condition: Callable[[str], bool], seconds: float) -> None:
        """Return when the screen's text fulfils the condition. Raises TimeoutError with the text."""
        deadline = time.monotonic() + seconds
        while not condition(self.text):
            over = self.ended or time.monotonic() > deadline
            self.watch(LOOK_SECONDS)
            if over and not condition(self.text):
                raise TimeoutError(f"not within {seconds:.0f} s, or before its end; the screen is:\n{self.text}")

    def wait(self, seconds: float) -> int:
        """The exit status. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"did not end within {seconds:.0f} s; the screen is:\n{self.text}")
            self.watch(LOOK_SECONDS)
        self.watch(LOOK_SECONDS)
        return self._process.wait()

    def colours(self) -> set[str]:
        """Those that were seen, beside the terminal's own."""
        return self._seen - {"default"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._descriptor)
