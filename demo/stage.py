"""The effects of the show: it reads the facts, and carries out the commands."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from demo import account
from demo.routers import GROUP
from demo.services.queue import Account
from demo.show.acts import Kind
from demo.show.facts import Facts, Legacy, Router, router_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo.processes import EventRedis, Line, Service
    from demo.routers import Routers
    from demo.show.acts import Command

ANSWER_SECONDS = 2.0


@dataclass
class Platform:
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

    platform: Platform
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=ANSWER_SECONDS, trust_env=False))
    leading: int = 0
    """Which of the routers led when one was last seen to lead."""
    _accounts: dict[str, Account] = field(default_factory=dict)

    def observe(self) -> Facts:
        platform = self.platform
        queue_answers, counts = self._account(platform.line)
        return Facts(
            at=time.monotonic(),
            router=self._router(),
            queue_answers=queue_answers,
            submitted=counts.submitted,
            handed_out=counts.handed_out,
            reported=counts.completed + counts.failed,
            stored=account.stored(platform.database, platform.line.prefix),
            legacy=self._legacy(),
        )

    def queue_account(self, line: Line) -> Account:
        """The queue's counts; the last ones while it does not answer."""
        return self._account(line)[1]

    def _account(self, line: Line) -> tuple[bool, Account]:
        found = self._get(f"{line.queue_url}/account")
        if found is not None:
            self._accounts[line.prefix] = Account(**found)
        return found is not None, self._accounts.get(line.prefix, Account())

    def _legacy(self) -> Legacy | None:
        if self.platform.legacy is None:
            return None
        line, _ = self.platform.legacy
        counts = self.queue_account(line)
        stored = account.stored(self.platform.database, line.prefix).total
        return Legacy(counts.submitted, counts.handed_out, counts.completed + counts.failed, stored)

    def _router(self) -> Router | None:
        urls = self.platform.routers.urls
        for index in sorted(range(len(urls)), key=lambda index: index != self.leading):
            status = self._get(f"{urls[index]}/status/{GROUP}")
            if status is not None:
                self.leading = index
                return router_from(urls[index], status)
        return None

    def _get(self, url: str) -> dict[str, Any] | None:
        try:
            answer = self.client.get(url)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None


class Stage:
    """Carries out commands one after the other in `thread`, which has one worker, so that the screen stays alive.

    The processes that it starts end with the thread.
    """

    def __init__(self, platform: Platform, observer: Observer, thread: ThreadPoolExecutor) -> None:
        self._platform = platform
        self._observer = observer
        self._thread = thread
        self._running: list[Future[None]] = []
        self.kills: list[float] = []
        """When the router was killed, in seconds on the monotonic clock."""

    def do(self, command: Command) -> None:
        """Begin to carry it out. Raises the error of an earlier command."""
        self.check()
        self._running.append(self._thread.submit(self._actions()[command.kind], command.number))

    def check(self) -> None:
        """Raise the error of a command that failed."""
        for done in [future for future in self._running if future.done()]:
            self._running.remove(done)
            done.result()

    def stop_load(self) -> Future[int]:
        """Stop it after all commands. The result is how many tasks the queue accepted."""
        return self._thread.submit(self._platform.line.stop_load)

    def _actions(self) -> dict[Kind, Callable[[int], None]]:
        return {
            Kind.KILL_EXECUTOR: self._kill_executor,
            Kind.START_EXECUTORS: self._start_executors,
            Kind.KILL_ROUTER: self._kill_router,
            Kind.START_ROUTER: self._start_routers,
            Kind.STOP_REDIS: lambda _: self._platform.redis.kill(),
            Kind.START_REDIS: self._start_redis,
            Kind.STOP_QUEUE: self._stop_queues,
            Kind.START_QUEUE: self._start_queues,
            Kind.SCALE: self._scale,
        }

    def _kill_executor(self, number: int) -> None:
        for line in self._platform.lines:
            line.kill_executor(number)

    def _start_executors(self, _number: int) -> None:
        for line in self._platform.lines:
            line.restart_executors()

    def _kill_router(self, _number: int) -> None:
        self._platform.routers.services[self._observer.leading].kill()
        self.kills.append(time.monotonic())
        if self._platform.legacy is not None:
            self._platform.legacy[1].kill()

    def _start_routers(self, _number: int) -> None:
        for service in self._platform.routers.services:
            service.start()
        if self._platform.legacy is not None:
            self._platform.legacy[1].start()

    def _scale(self, executors: int) -> None:
        self._platform.line.start_executors(range(1, executors + 1))
        self._platform.routers.scale(executors)

    def _start_redis(self, _number: int) -> None:
        self._platform.redis.start()
        self._platform.redis.open()

    def _stop_queues(self, _number: int) -> None:
        for line in self._platform.lines:
            line.queue.stop()

    def _start_queues(self, _number: int) -> None:
        for line in self._platform.lines:
            line.queue.start()
