"""`top`: looks once a second, draws, and takes keys, until q or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.live import Live as Screen
from rich.text import Text

from queueworker import __version__
from queueworker.cli.plugin import objects, screen
from queueworker.cli.plugin.api import Api
from queueworker.cli.plugin.checks import look
from queueworker.cli.plugin.live import Operator
from queueworker.cli.plugin.problems import Problem
from queueworker.cli.plugin.top_screen import TopState, farewell, press, rows_of, top_lines
from queueworker.cli.plugin.view import view
from queueworker.routing.aio import happens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from queueworker.cli.plugin.access import Access
    from queueworker.cli.plugin.values import View

LOOK_SECONDS = 1.0
OBJECTS_A_SECOND = 100
"""Of more objects than this the operator is asked more rarely: an answer about 500 takes it 80 ms."""
OBJECTS_SECONDS = 5.0
"""The objects themselves change rarely; the operator is asked each time."""
KEYS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\r": "enter",
    "\n": "enter",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\x08": "backspace",
}


@dataclass
class Watching:
    """What was seen last, and what the person has chosen."""

    everywhere: bool
    state: TopState = field(default_factory=TopState)
    views: list[View] = field(default_factory=list)
    first: list[View] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked_at: float = float("-inf")
    problem: str = ""

    async def look(self, api: Api, operator: Operator) -> None:
        """Ask for what has changed. A problem is shown, and what was seen before stays."""
        try:
            if time.monotonic() - self.asked_at > OBJECTS_SECONDS:
                self.bodies = await objects.some(api, everywhere=self.everywhere)
                self.asked_at = time.monotonic()
            live = await look(api, operator)
        except Problem as problem:
            self.problem = str(problem)
            return
        self.problem = ""
        self.views = [view(body, live, datetime.now(UTC), version=__version__) for body in self.bodies]
        self.first = self.first or self.views

    def press(self, key: str) -> None:
        self.state = press(self.state, key, rows_of(self.views, self.state))


async def once(access: Access) -> list[View]:
    """All objects at this moment. Raises Problem."""
    async with Api(access) as api:
        watching = Watching(access.all_namespaces)
        await watching.look(api, Operator(api, access.operator))
        if watching.problem:
            raise Problem(watching.problem)
        return watching.views


async def top(access: Access) -> str:
    """Runs until the person ends it; returns the last line. Raises Problem if the first look fails."""
    glyphs, started = screen.glyphs_for(sys.stdout, os.environ), time.monotonic()
    watching = Watching(access.all_namespaces)
    pressed = asyncio.Event()

    def on_key(key: str) -> None:
        watching.press(key)
        pressed.set()

    async with Api(access) as api:
        operator = Operator(api, access.operator)
        await watching.look(api, operator)
        if watching.problem:
            raise Problem(watching.problem)
        with Screen(console=screen.console(), screen=True, auto_refresh=False) as drawn, keys(on_key):
            while not watching.state.done:
                drawn.update(_drawing(watching, glyphs), refresh=True)
                pressed.clear()
                if not await happens(pressed, pause(len(watching.views))) and not watching.state.paused:
                    await watching.look(api, operator)
    return farewell(watching.views, watching.first, time.monotonic() - started, glyphs)


def pause(objects: int) -> float:
    """Seconds between two looks at so many objects."""
    return LOOK_SECONDS * max(1.0, objects / OBJECTS_A_SECOND)


def _drawing(watching: Watching, glyphs: screen.Glyphs) -> Text:
    size = screen.size_of(sys.stdout)
    height = (size.height or 24) - (1 if watching.problem else 0)
    lines = list(top_lines(watching.views, watching.state, screen.Size(size.width, height), glyphs))
    if watching.problem:
        lines.append(screen.cut([(f"no answer: {watching.problem}", "error")], size.width, glyphs))
    return Text("\n", no_wrap=True).join(screen.as_text(line) for line in lines)


@contextmanager
def keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """Calls `on_key` for each key that is pressed, until the block ends. The terminal is as before afterwards."""
    stream = sys.stdin.fileno()
    if not os.isatty(stream):
        yield
        return
    before = termios.tcgetattr(stream)
    loop = asyncio.get_running_loop()
    try:
        tty.setcbreak(stream)
        loop.add_reader(stream, _read_keys, stream, on_key)
        yield
    finally:
        loop.remove_reader(stream)
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def _read_keys(stream: int, on_key: Callable[[str], None]) -> None:
    for key in split(os.read(stream, 1024).decode(errors="ignore")):
        on_key(key)


def split(text: str) -> Sequence[str]:
    """The keys of what a terminal sent; an arrow is three characters."""
    found = []
    while text:
        size = 3 if text[:3] in KEYS else 1
        found.append(KEYS.get(text[:size], text[:size]))
        text = text[size:]
    return found
