"""The show on this machine: reads the facts, and carries out the commands."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from demo.account import Account, stored, stored_ids
from demo.answers import get_json
from demo.routers import GROUP
from demo.services.queue import Account as Counts
from demo.settling import settle_legacy
from demo.show.acts import ACTS, Kind
from demo.show.facts import Facts, Legacy, Router, router_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

    from demo.processes import EventRedis, Line, Service
    from demo.routers import Routers
    from demo.show.acts import Command

ANSWER_SECONDS = 2.0


@dataclass
class Parts:
    """All that runs. The legacy loop has a line of its own."""

    redis: EventRedis
    database: Path
    line: Line
    routers: Routers
    legacy: tuple[Line, Service] | None = None

    @property
    def lines(self) -> list[Line]:
        return [self.line, *([self.legacy[0]] if self.legacy else [])]


@dataclass
class Observer:
    """Reads the state of everything; what does not answer is down. Nothing takes longer than `ANSWER_SECONDS`."""

    parts: Parts
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=ANSWER_SECONDS, trust_env=False))
    leading: int = 0
    """Which of the routers led when one was last seen to lead."""
    _counts: dict[str, Counts] = field(default_factory=dict)

    def observe(self) -> Facts:
        parts = self.parts
        queue_answers, counts = self._queue(parts.line)
        return Facts(
            at=time.monotonic(),
            router=self._router(),
            queue_answers=queue_answers,
            submitted=counts.submitted,
            handed_out=counts.handed_out,
            reported=counts.completed + counts.failed,
            stored=stored(parts.database, parts.line.prefix),
            legacy=self._legacy(),
        )

    def queue_counts(self, line: Line) -> Counts:
        """The queue's counts; the last ones while it does not answer."""
        return self._queue(line)[1]

    def _queue(self, line: Line) -> tuple[bool, Counts]:
        found = get_json(self.client, f"{line.queue_url}/account")
        if found is not None:
            self._counts[line.prefix] = Counts(**found)
        return found is not None, self._counts.get(line.prefix, Counts())

    def _legacy(self) -> Legacy | None:
        if self.parts.legacy is None:
            return None
        line, _ = self.parts.legacy
        counts = self.queue_counts(line)
        total = stored(self.parts.database, line.prefix).total
        return Legacy(counts.submitted, counts.handed_out, counts.completed + counts.failed, total)

    def _router(self) -> Router | None:
        urls = self.parts.routers.urls
        for index in sorted(range(len(urls)), key=lambda index: index != self.leading):
            status = get_json(self.client, f"{urls[index]}/status/{GROUP}")
            if status is not None:
                self.leading = index
                return router_from(urls[index], status)
        return None


class LocalPlatform:
    """The platform as processes of this machine. See `demo.stage.Platform`."""

    acts = ACTS
    hint = ""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.observer = Observer(parts)

    def observe(self) -> Facts:
        return self.observer.observe()

    def stop_load(self) -> int:
        return self._parts.line.stop_load()

    def take_account(self, kills: Sequence[float], submitted: int, console: Console) -> Account:
        line, database = self._parts.line, self._parts.database
        outcomes = stored_ids(database, line.prefix)
        actions = line.actions.read_bytes().splitlines()
        counts = self.observer.queue_counts(line)
        routed = counts.completed + counts.failed
        account = Account.of(submitted, routed, stored(database, line.prefix), outcomes, actions, kills)
        if self._parts.legacy is not None:
            settle_legacy(self._parts, self.observer, console)
        return account

    def log_lines(self) -> list[str]:
        logs = [log.read_text(errors="replace") for service in self._parts.routers.services for log in service.logs]
        return [line for log in logs for line in log.splitlines()]

    def carry_out(self, command: Command) -> None:
        self._actions()[command.kind](command.number)

    def _actions(self) -> dict[Kind, Callable[[int], None]]:
        return {
            Kind.KILL_EXECUTOR: self._kill_executor,
            Kind.START_EXECUTORS: self._start_executors,
            Kind.KILL_ROUTER: self._kill_router,
            Kind.START_ROUTER: self._start_routers,
            Kind.STOP_REDIS: lambda _: self._parts.redis.kill(),
            Kind.START_REDIS: self._start_redis,
            Kind.STOP_QUEUE: self._stop_queues,
            Kind.START_QUEUE: self._start_queues,
            Kind.SCALE: self._scale,
        }

    def _kill_executor(self, number: int) -> None:
        for line in self._parts.lines:
            line.kill_executor(number)

    def _start_executors(self, _number: int) -> None:
        for line in self._parts.lines:
            line.restart_executors()

    def _kill_router(self, _number: int) -> None:
        self._parts.routers.services[self.observer.leading].kill()
        if self._parts.legacy is not None:
            self._parts.legacy[1].kill()

    def _start_routers(self, _number: int) -> None:
        for service in self._parts.routers.services:
            service.start()
        if self._parts.legacy is not None:
            self._parts.legacy[1].start()

    def _scale(self, executors: int) -> None:
        self._parts.line.start_executors(range(1, executors + 1))
        self._parts.routers.scale(executors)

    def _start_redis(self, _number: int) -> None:
        self._parts.redis.start()
        self._parts.redis.open()

    def _stop_queues(self, _number: int) -> None:
        for line in self._parts.lines:
            line.queue.stop()

    def _start_queues(self, _number: int) -> None:
        for line in self._parts.lines:
            line.queue.start()
