"""Runs the show: on a terminal as a live screen, otherwise as lines."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live

from demo.settling import Settling
from demo.show import keys
from demo.show.screen import ASCII, Symbols, act_number, draw, result, symbols_for
from demo.show.show import Outcome
from demo.show.view import View

if TYPE_CHECKING:
    from concurrent.futures import Future

    from demo.show.facts import Facts
    from demo.show.show import Show
    from demo.stage import Platform, Stage

PERIOD_SECONDS = 0.25
LINE_SECONDS = 5.0


class Finale:
    """Stops the load, then waits until nothing more is expected."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stopping: Future[int] | None = None
        self._settling: Settling | None = None

    @property
    def submitted(self) -> int:
        """Tasks that the queue accepted. Waits for the load to end."""
        assert self._stopping is not None
        return self._stopping.result()

    def is_over(self, facts: Facts) -> bool:
        if self._stopping is None:
            self._stopping = self._stage.stop_load()
        if not self._stopping.done():
            return False
        if self._settling is None:
            self._settling = Settling(self._stage.kills, facts.at)
        return self._settling.is_done(facts, self.submitted)


class Output(Protocol):
    def update(self, view: View) -> None: ...


class Lines:
    """For a log: a line for each act that begins and ends, and one every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = self._ended = 0
        self._next = 0.0
        self._over = False
        self._pods: dict[str, str] = {}

    def update(self, view: View) -> None:
        show, facts = view.show, view.facts
        for performance in show.performances[self._begun :]:
            self._console.print(f"{act_number(show, performance)}: {performance.act.title}")
        self._begun = len(show.performances)
        ended = [p for p in show.performances if p.outcome is not Outcome.RUNNING]
        for performance in ended[self._ended :]:
            self._console.print(f"  {result(performance, ASCII)}")
        self._ended = len(ended)
        self._print_pods({pod.name: pod.status for pod in facts.pods})
        if show.over and not self._over:
            self._over = True
            self._console.print("stopping the load and waiting for the tasks in flight")
        if facts.at >= self._next:
            self._next = facts.at + LINE_SECONDS
            self._console.print(state(show, facts))

    def _print_pods(self, pods: dict[str, str]) -> None:
        """A line for each pod that has changed, as `kubectl get pods -w` prints them."""
        for name in sorted(pods | self._pods):
            status = pods.get(name, "gone")
            if status != self._pods.get(name, "gone"):
                self._console.print(f"  pod {name}: {status}")
        self._pods = pods


class Screen:
    """For a person: redrawn with each observation."""

    def __init__(self, live: Live, symbols: Symbols) -> None:
        self._live = live
        self._symbols = symbols

    def update(self, view: View) -> None:
        size = self._live.console.size
        self._live.update(Group(*draw(view, size.width, size.height, self._symbols)), refresh=True)


def perform(show: Show, platform: Platform, stage: Stage, console: Console) -> int:
    """Run until the show is over and all tasks have ended. Returns how many were submitted.

    On Ctrl-C no act begins any more, and the one that is on is brought to its end.
    """
    finale = Finale(stage)
    with ExitStack() as stack:
        read = stack.enter_context(keys.pressed())
        view = View(show, platform.observe(), hint=platform.hint)
        output = _output(console, stack)
        while True:
            try:
                _turn(view, platform, stage, read())
                output.update(view)
                if show.over and finale.is_over(view.facts):
                    return finale.submitted
                time.sleep(PERIOD_SECONDS)
            except KeyboardInterrupt:
                if show.ending:
                    raise
                show.end()


def _turn(view: View, platform: Platform, stage: Stage, pressed: str) -> None:
    facts = platform.observe()
    view.add(facts)
    stage.check()
    for key in pressed:
        view.show.press(key, facts)
    for command in view.show.step(facts):
        stage.do(command)


def _output(console: Console, stack: ExitStack) -> Output:
    if not console.is_terminal or console.is_dumb_terminal:
        return Lines(console)
    live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
    return Screen(live, symbols_for(console.encoding, os.environ))


def state(show: Show, facts: Facts) -> str:
    """The line of every few seconds."""
    router, stored = facts.router, facts.stored
    if not show.has_begun:
        return f"starting: waiting for {'the first router' if router is None else 'queue, Redis and executors'}"
    what = "no router answers"
    if router is not None:
        what = f"routing, executors {sum(e.healthy for e in router.pool)}/{len(router.pool)}"
    return f"{what}: submitted {facts.submitted}, completed {stored.completed}, failed {stored.failed}"
