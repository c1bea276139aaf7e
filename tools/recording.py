"""`make recording`: runs `make demo-worker` on a terminal of its own, and writes what is seen there as an animated SVG.

Nothing in the picture is made by hand: it is what one run showed, at twice its speed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.terminal import COLUMNS, Session
from tools.terminal_svg import Frame, animation

if TYPE_CHECKING:
    from tools.terminal_svg import Line

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
ROWS = 20
FRAME_SECONDS = 0.5
SPEED = 2.0
LAST_FRAME_SECONDS = 8.0
LIMIT_SECONDS = 300.0
BEGUN, OVER = "ACT 1 ", "All acts are over"


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    lines: tuple[Line, ...]


def record(command: list[str]) -> list[Sample]:
    """The pictures from the first act on. When the acts are over, the program gets a q. Raises TimeoutError."""
    samples, began, asked = list[Sample](), time.monotonic(), False
    with Session(command, os.environ | {"LC_ALL": "C.UTF-8"}, rows=ROWS) as session:
        while (now := time.monotonic() - began) < LIMIT_SECONDS:
            ended = session.ended  # what it wrote last is read after that
            session.watch(FRAME_SECONDS)
            if samples or BEGUN in session.text:
                samples.append(Sample(now, session.terminal.lines()))
            if OVER in session.text and not asked:
                session.press("q")
                asked = True
            if ended:
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
