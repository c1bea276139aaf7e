"""Executors without a network: a transport that answers what the test says, and keeps every call."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

import orjson

from queueworker.routing.http.transport import Answer, TransportError

HEALTHY = Answer(200, b'{"status": "healthy"}')
UNHEALTHY = Answer(503, b"starting")


class Call(NamedTuple):
    method: str
    url: str
    timeout: float
    limit: int
    body: bytes
    at: float
    """Seconds on the loop's clock."""
    headers: str = ""


class FakeTransport:
    """`health` and `capacity` are by host, and HEALTHY and 404 where nothing is said. `answers` is for `/execute`.

    `logs` is for `/logs`; its last answer is given again and again.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.health: dict[str, Answer | TransportError] = {}
        self.capacity: dict[str, object] = {}
        self.answers: deque[Answer | TransportError] = deque()
        self.logs: deque[Answer | TransportError] = deque([Answer(404, b"Not Found")])
        self.health_seconds = 0.0
        self.logs_seconds = 0.0
        self.execute_seconds = 0.0
        self.probing = 0
        """Health checks under way."""

    async def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Answer:
        self.calls.append(Call("GET", url, timeout, limit, b"", _now()))
        host, _, path = url.removeprefix("http://").partition("/")
        if path == "capacity":
            return _capacity(self.capacity.get(host))
        if path.startswith("logs/"):
            await asyncio.sleep(self.logs_seconds)
            return _answer(self.logs.popleft() if len(self.logs) > 1 else self.logs[0])
        self.probing += 1
        try:
            await asyncio.sleep(self.health_seconds)
        finally:
            self.probing -= 1
        return _answer(self.health.get(host, HEALTHY))

    async def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Answer:
        self.calls.append(Call("POST", url, timeout, limit, body, _now(), headers))
        await asyncio.sleep(self.execute_seconds)
        return _answer(self.answers.popleft())

    async def close(self) -> None: ...

    def checks(self, host: str) -> int:
        """Health checks of that host until now."""
        return sum(call.url == f"http://{host}/health" for call in self.calls)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _capacity(value: object) -> Answer:
    if value is None:
        return Answer(404, b"Not Found")
    if isinstance(value, TransportError):
        raise value
    if isinstance(value, Answer):
        return value
    return Answer(200, value if isinstance(value, bytes) else orjson.dumps({"max_concurrent": value}))


def _answer(answer: Answer | TransportError) -> Answer:
    if isinstance(answer, Exception):
        raise answer
    return answer
