"""Processes of the demo that can be ended and started again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
from redis import Redis

from demo.services.gateway import MAX_EXECUTORS, START_SECONDS
from devcluster.children import Child
from devcluster.ports import free_ports
from devcluster.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SUBSCRIBE_SECONDS = 10.0
MAX_WAITING = 100
"""Tasks in the queue above which none is submitted: on a slow machine the demo has to end, too."""
SLOW_PERCENT = 10
"""Tasks that take half a second: with 20 tasks a second about two are executing at any moment, so that what is killed
is killed in the middle of something."""
CHANNEL = "evaluation:completed"


class DemoError(Exception):
    """The demo cannot continue. The message says why and what to do."""


class Service:
    """One of our modules. Each start has a log of its own, `folder/name.N.log`."""

    def __init__(self, folder: Path, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._name = name
        self._command = command
        self._starts = 0
        self._child: Child | None = None
        self.env = env or {}

    @property
    def logs(self) -> list[Path]:
        return [self._log(number) for number in range(1, self._starts + 1)]

    def start(self) -> None:
        """Start it; nothing happens if it runs. Its environment is `env`, as it is now."""
        if self._child is None or self._child.process.poll() is not None:
            self._starts += 1
            self._child = Child(*self._command, log=self._log(self._starts), env=self.env)

    def first_line(self) -> str:
        """The line that it prints when it is ready. Raises RuntimeError if it does not start."""
        assert self._child is not None
        return self._child.first_line()

    def stop(self) -> str:
        """Send SIGTERM and wait. Returns the rest of its output; empty if it was stopped already."""
        child, self._child = self._child, None
        return "" if child is None else child.stop()

    def kill(self) -> None:
        if self._child is not None:
            self._child.process.kill()
            self._child.process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _log(self, number: int) -> Path:
        return self._folder / f"{self._name}.{number}.log"


class EventRedis:
    """A Redis that the router cannot reach before the storage worker has subscribed.

    Pub/sub keeps nothing for a subscriber that is away, and after an outage the router publishes at once what it kept.
    So the server starts on a port that only the storage worker knows, and moves to the router's when that is back.
    Connections stay as they are when it moves. It needs Redis 7.
    """

    def __init__(self) -> None:
        self._server = RedisServer()
        (self._port,) = free_ports(1)

    @property
    def url(self) -> str:
        """For the router."""
        return f"redis://127.0.0.1:{self._port}"

    @property
    def subscriber_url(self) -> str:
        """For the storage worker."""
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def open(self) -> None:
        """Move to the router's port. Raises DemoError if nobody subscribes."""
        deadline = time.monotonic() + SUBSCRIBE_SECONDS
        with Redis.from_url(self._server.url) as client:
            while not dict(client.pubsub_numsub(CHANNEL))[CHANNEL.encode()]:
                if time.monotonic() > deadline:
                    raise DemoError(f"the storage worker did not subscribe within {SUBSCRIBE_SECONDS:.0f} s")
                time.sleep(0.02)
            client.config_set("port", self._port)

    def kill(self) -> None:
        self._server.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def load_arguments(queue_url: str, rate: float, prefix: str) -> list[str]:
    """Of `demo.services.load`, for the show. `rate` is in tasks a second."""
    options = {
        "queue-url": queue_url,
        "rate": rate,
        "prefix": prefix,
        "max-waiting": MAX_WAITING,
        "slow-percent": SLOW_PERCENT,
    }
    return [f"--{name}={value}" for name, value in options.items()]


class Line:
    """A queue with tasks coming in, and executors: what a router works for. The tasks' ids begin with `prefix`."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.prefix = prefix
        self.actions = folder / f"{prefix}-actions.jsonl"
        """The queue's `ActionLog`."""
        (port,) = free_ports(1)
        self.queue_url = f"http://127.0.0.1:{port}"
        kept = ("--keep", str(folder / f"{prefix}-tasks.json"), "--record", str(self.actions))
        self.queue = Service(folder, f"{prefix}-queue", "demo.services.queue", "--port", str(port), *kept)
        self._gateway = Service(folder, f"{prefix}-executors", "demo.services.gateway")
        self._folder = folder
        self._load: Service | None = None
        self._killed: list[int] = []
        self.gateway_url = ""

    def start(self, executors: int) -> None:
        """Return when the queue and that many executors can be reached."""
        self.queue.start()
        self._gateway.start()
        self.gateway_url = self._gateway.first_line().split()[-1]
        self.start_executors(range(1, executors + 1))
        self.queue.first_line()

    def start_load(self, rate: float) -> None:
        arguments = load_arguments(self.queue_url, rate, self.prefix)
        self._load = Service(self._folder, f"{self.prefix}-load", "demo.services.load", *arguments)
        self._load.start()

    def stop_load(self) -> int:
        """Returns how many tasks the queue accepted; -1 if the load ended with an error."""
        return -1 if self._load is None else int(self._load.stop().rpartition("=")[2] or -1)

    def executor_url(self, number: int | str = "{n}") -> str:
        return f"{self.gateway_url}/executors/{number}"

    def kill_executor(self, number: int) -> None:
        self._killed.append(number)
        self._process(number, "kill")

    def restart_executors(self) -> None:
        """Start those that were killed."""
        self.start_executors(self._killed)
        self._killed.clear()

    def start_executors(self, numbers: Iterable[int]) -> None:
        """Start those that do not run, all at once. Returns when they can be reached."""
        with ThreadPoolExecutor(MAX_EXECUTORS) as threads:
            list(threads.map(lambda number: self._process(number, "start"), numbers))

    def _process(self, number: int, verb: str) -> None:
        """Raises DemoError if the gateway does not do it."""
        url = f"{self.gateway_url}/processes/{number}/{verb}"
        try:
            httpx.post(url, timeout=START_SECONDS, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise DemoError(f"executor-{number}: the gateway could not {verb} it: {error!r}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._load is not None:
            self._load.stop()
        self.queue.stop()
        self._gateway.stop()
