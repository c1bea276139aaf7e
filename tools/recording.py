"""`make recording`: runs `make demo-worker` on a terminal of its own, and writes what is seen there as an animated SVG.

Nothing in the picture is made by hand: it is what one run showed, at twice its speed. The terminal is pyte's.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyte

from devcluster.children import die_with_parent
from tools.terminal_svg import Frame, Run, animation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tools.terminal_svg import Line

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
COLUMNS, ROWS = 80, 20
FRAME_SECONDS = 0.5
SPEED = 2.0
LAST_FRAME_SECONDS = 8.0
LIMIT_SECONDS = 300.0
OVER = "All acts are over"
_ALTERNATE = re.compile(rb"\x1b\[\?1049([hl])")


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    lines: tuple[Line, ...]


class Terminal:
    """A terminal that begins anew when a full-screen program takes it, and when the program gives it back."""

    def __init__(self) -> None:
        self.was_full_screen = False
        self._clear()

    def feed(self, data: bytes) -> None:
        for index, part in enumerate(_ALTERNATE.split(data)):
            if index % 2:
                self.was_full_screen = True
                self._clear()
            else:
                self._stream.feed(part)

    @property
    def text(self) -> str:
        return "\n".join(self._shown.display)

    def lines(self) -> tuple[Line, ...]:
        return tuple(_runs(self._shown.buffer[row]) for row in range(ROWS))

    def _clear(self) -> None:
        self._shown = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._shown)


def _runs(row: Mapping[int, pyte.screens.Char]) -> Line:
    """The cells of a row, those of equal style together; without those that are blank."""
    runs: list[Run] = []
    for column in range(COLUMNS):
        cell = row[column]
        last = runs[-1] if runs else None
        if last is not None and (last.colour, last.bold) == (cell.fg, cell.bold):
            runs[-1] = Run(last.column, last.text + cell.data, last.colour, last.bold)
        else:
            runs.append(Run(column, cell.data, cell.fg, cell.bold))
    return tuple(run for run in runs if run.text.strip())


class Session:
    """A command on a terminal. It is killed at the end of the block if it still runs."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self.terminal = Terminal()
        self._seen: set[str] = set()
        self._descriptor, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | environ,
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
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:.0f} s; the screen is:\n{self.text}")
            self.watch(FRAME_SECONDS)

    def wait(self, seconds: float) -> int:
        """The exit status. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"did not end within {seconds:.0f} s; the screen is:\n{self.text}")
            self.watch(FRAME_SECONDS)
        return self._process.wait()

    def colours(self) -> set[str]:
        """Those that were seen, beside the terminal's own."""
        return self._seen - {"default"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._descriptor)


def record(command: list[str]) -> list[Sample]:
    """What is seen from the first full screen on. When the acts are over, the program gets a q. Raises TimeoutError."""
    samples, began, asked = list[Sample](), time.monotonic(), False
    with Session(command, {}) as session:
        while (now := time.monotonic() - began) < LIMIT_SECONDS:
            session.watch(FRAME_SECONDS)
            if session.terminal.was_full_screen:
                samples.append(Sample(now, session.terminal.lines()))
            if OVER in session.text and not asked:
                session.press("q")
                asked = True
            if session.ended:
                return samples
        raise TimeoutError(f"the demo did not end within {LIMIT_SECONDS:.0f} s; the screen is:\n{session.text}")


def frames(samples: list[Sample]) -> list[Frame]:
    """Each different picture once, with the time that it is shown; without empty ones."""
    found: list[Frame] = []
    for sample, after in zip(samples, [*samples[1:], None], strict=True):
        seconds = LAST_FRAME_SECONDS if after is None else (after.at - sample.at) / SPEED
        if found and found[-1].lines == sample.lines:
            found[-1] = Frame(sample.lines, found[-1].seconds + seconds)
        elif any(sample.lines):
            found.append(Frame(sample.lines, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE)
    parser.add_argument("command", nargs="*", default=[sys.executable, "-m", "demo", "--worker"])
    options = parser.parse_args()
    picture = animation(frames(record(options.command)), COLUMNS, ROWS, "The demo, recorded by make recording")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture)
    print(f"{options.output}: {len(picture) // 1024} KiB")


if __name__ == "__main__":
    main()
