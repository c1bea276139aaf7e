"""`make recording`: runs the demo on a terminal of its own, and writes what is seen there as an animated SVG.

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

import pyte

from tools.terminal_svg import Frame, Run, animation

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
COLUMNS, ROWS = 80, 22
FRAME_SECONDS = 0.5
SPEED = 2.0
LAST_FRAME_SECONDS = 8.0
LIMIT_SECONDS = 300.0
OVER = "All acts are over"
_ALTERNATE = re.compile(rb"\x1b\[\?1049([hl])")


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    lines: tuple[tuple[Run, ...], ...]


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

    def _clear(self) -> None:
        self._shown = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._shown)

    @property
    def text(self) -> str:
        return "\n".join(self._shown.display)

    def lines(self) -> tuple[tuple[Run, ...], ...]:
        return tuple(_runs(self._shown.buffer[row]) for row in range(ROWS))


def _runs(row: dict[int, pyte.screens.Char]) -> tuple[Run, ...]:
    """The cells of a row, those of equal style together; without blanks at the end."""
    runs: list[Run] = []
    for column in range(COLUMNS):
        cell = row[column]
        last = runs[-1] if runs else None
        if last is not None and (last.colour, last.bold) == (cell.fg, cell.bold):
            runs[-1] = Run(last.column, last.text + cell.data, last.colour, last.bold)
        else:
            runs.append(Run(column, cell.data, cell.fg, cell.bold))
    return tuple(run for run in runs if run.text.strip())


def record(command: list[str]) -> list[Sample]:
    """What is seen from the first full screen on. When the acts are over, the program gets a q. Raises TimeoutError."""
    descriptor, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environ = os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    environ.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=ours, stdout=ours, stderr=ours, start_new_session=True
    )
    os.close(ours)
    terminal, samples, began, asked = Terminal(), list[Sample](), time.monotonic(), False
    while (now := time.monotonic() - began) < LIMIT_SECONDS:
        terminal.feed(_read(descriptor, until=began + now + FRAME_SECONDS))
        if terminal.was_full_screen:
            samples.append(Sample(now, terminal.lines()))
        if OVER in terminal.text and not asked:
            os.write(descriptor, b"q")
            asked = True
        if process.poll() is not None:
            return samples
    process.terminate()
    raise TimeoutError(f"the demo did not end within {LIMIT_SECONDS:.0f} s; the screen was:\n{terminal.text}")


def _read(descriptor: int, until: float) -> bytes:
    """What arrives until then, in seconds on the monotonic clock."""
    data = b""
    while (left := until - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            try:
                data += os.read(descriptor, 65536)
            except OSError:  # the program has ended
                time.sleep(max(0.0, left))
    return data


def frames(samples: list[Sample]) -> list[Frame]:
    """Each different picture once, with the time that it is shown."""
    found: list[Frame] = []
    for sample, after in zip(samples, [*samples[1:], None], strict=True):
        seconds = LAST_FRAME_SECONDS if after is None else (after.at - sample.at) / SPEED
        if found and found[-1].lines == sample.lines:
            found[-1] = Frame(sample.lines, found[-1].seconds + seconds)
        else:
            found.append(Frame(sample.lines, seconds))
    return [frame for frame in found if any(frame.lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE)
    parser.add_argument("command", nargs="*", default=[sys.executable, "-m", "demo"])
    options = parser.parse_args()
    picture = animation(frames(record(options.command)), COLUMNS, ROWS, "The demo, recorded by make recording")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture)
    print(f"{options.output}: {len(picture) // 1024} KiB")


if __name__ == "__main__":
    main()
