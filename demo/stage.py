"""The platform that the show runs on, and the thread that carries out its commands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from demo.show.acts import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future, ThreadPoolExecutor

    from rich.console import Console

    from demo.account import Account
    from demo.show.acts import Act, Command
    from demo.show.facts import Facts


class Platform(Protocol):
    """Everything that runs: on this machine, or as pods of a cluster."""

    @property
    def acts(self) -> Sequence[Act]:
        """The programme."""

    @property
    def hint(self) -> str:
        """A command for another terminal; empty: none."""

    def observe(self) -> Facts:
        """Read the state of everything; what does not answer is down."""

    def carry_out(self, command: Command) -> None:
        """Return when it is done. Raises DemoError."""

    def stop_load(self) -> int:
        """Returns how many tasks the queue accepted; -1 if the load ended with an error."""

    def take_account(self, kills: Sequence[float], submitted: int, console: Console) -> Account:
        """Account for each task. `kills` are seconds on this machine's monotonic clock.

        Prints what the legacy loop lost, if it runs.
        """

    def log_lines(self) -> list[str]:
        """The logs of the routers."""


class Stage:
    """Carries out commands one after the other in `thread`, which has one worker, so that the screen stays alive.

    The processes that it starts end with the thread.
    """

    def __init__(self, platform: Platform, thread: ThreadPoolExecutor) -> None:
        self._platform = platform
        self._thread = thread
        self._running: list[Future[None]] = []
        self.kills: list[float] = []
        """When the router was killed, in seconds on the monotonic clock."""

    def do(self, command: Command) -> None:
        """Begin to carry it out. Raises the error of an earlier command."""
        self.check()
        self._running.append(self._thread.submit(self._carry_out, command))

    def check(self) -> None:
        """Raise the error of a command that failed."""
        for done in [future for future in self._running if future.done()]:
            self._running.remove(done)
            done.result()

    def stop_load(self) -> Future[int]:
        """Stop it after all commands. The result is how many tasks the queue accepted."""
        return self._thread.submit(self._platform.stop_load)

    def _carry_out(self, command: Command) -> None:
        self._platform.carry_out(command)
        if command.kind is Kind.KILL_ROUTER:
            self.kills.append(time.monotonic())
