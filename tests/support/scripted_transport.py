"""A transport that answers from a script, and keeps what it was sent."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from queueworker.routing.http.transport import Answer, TransportError


@dataclass
class ScriptedTransport:
    """Answers a path with the next of its answers; the last one stays. An error is raised."""

    answers: dict[str, deque[Answer | TransportError]] = field(default_factory=dict)
    sent: list[tuple[str, bytes | None]] = field(default_factory=list)
    """Path and body of each request; a GET has no body."""
    seconds: float = 0.0
    """Until a request is answered."""
    under_way: int = 0
    """Requests that are not answered yet."""

    def script(self, path: str, *answers: Answer | TransportError | tuple[int, bytes]) -> None:
        made = (a if isinstance(a, TransportError) else Answer(*a) for a in answers)
        self.answers[path] = deque(made)

    def paths(self) -> list[str]:
        return [path for path, _ in self.sent]

    async def get(self, url: str, timeout: float, key: str | None = None, *, limit: int) -> Answer:
        return await self._next(url, None)

    async def post(
        self, url: str, body: bytes, timeout: float, key: str | None = None, *, limit: int, headers: str = ""
    ) -> Answer:
        return await self._next(url, body)

    async def close(self) -> None: ...

    async def _next(self, url: str, body: bytes | None) -> Answer:
        path = "/" + url.partition("://")[2].partition("/")[2]
        self.sent.append((path, body))
        if self.seconds:
            self.under_way += 1
            await asyncio.sleep(self.seconds)
            self.under_way -= 1
        answers = self.answers[path]
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if isinstance(answer, TransportError):
            raise answer
        return answer
