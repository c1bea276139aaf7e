"""Waits for the outcome of a task that an asynchronous executor has: for its event, or for what the logs say.

An event may be lost, and a task that somebody kills there has none. So the executor is asked for the task's logs every
few seconds. What the logs say counts only after one more period, because the event of a task that has just ended is
on its way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from queueworker.routing.http.transport import TooLarge, Transport, TransportError
from queueworker.routing.wire.published import RUNS, Lost, outcome_in_logs
from queueworker.routing.wire.reading import InvalidAnswer
from queueworker.routing.wire.task import path_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.wire.outcome import Outcome

LOGS_PERIOD_SECONDS = 3.0
LOGS_TIMEOUT_SECONDS = 5.0
# Logs hold the whole output each time: the larger they are, the less often they are asked for.
MAX_LOGS_BYTES_PER_SECOND = 256 * 1024
# After so many answers in a row that are not logs the executor is taken to have no such call.
MAX_FOREIGN_ANSWERS = 3


class OutcomeWaits:
    """Waits for outcomes, for one router. The owner sets `max_body_bytes` when it changes."""

    def __init__(self, transport: Transport, clock: Callable[[], float], max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._transport = transport
        self._clock = clock

    async def outcome(
        self,
        published: asyncio.Future[Outcome],
        executor: Executor | None,
        eval_id: str,
        seconds: float,
        most: float | None = None,
    ) -> Outcome | Lost | None:
        """The outcome, as it is published or as the executor's logs tell it; None when neither comes in time.

        With `most`, a dead router had the task: the executor is asked at once, and waited for while it says that the
        task runs, for at most `most` seconds.
        """
        started, asked = self._clock(), _Asked(LOGS_PERIOD_SECONDS if most is None else 0.0)
        while True:
            deadline = started + (seconds if most is None or not asked.runs else most)
            asks = executor is not None and asked.foreign < MAX_FOREIGN_ANSWERS
            left = deadline - self._clock()
            await asyncio.wait([published], timeout=max(0.0, min(left, asked.pause) if asks else left))
            if published.done():
                return published.result()
            if asked.ended is not None:
                return asked.ended
            if executor is None or not asks or self._clock() >= deadline:
                return None
            await self._ask_beside(published, executor, eval_id, asked)

    async def _ask_beside(
        self, published: asyncio.Future[Outcome], executor: Executor, eval_id: str, asked: _Asked
    ) -> None:
        """Ask for the logs, but no longer than until the outcome is published."""
        asking: asyncio.Future[Any] = asyncio.ensure_future(self._ask(executor, eval_id, asked))
        try:
            await asyncio.wait((published, asking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()

    async def _ask(self, executor: Executor, eval_id: str, asked: _Asked) -> None:
        url = f"{executor.endpoint.url}/logs/{path_id(eval_id)}"
        asked.pause = max(asked.pause, LOGS_PERIOD_SECONDS)
        try:
            status, body = await self._transport.get(url, LOGS_TIMEOUT_SECONDS, limit=self.max_body_bytes)
            told = outcome_in_logs(body if status == 200 else b"", eval_id)
        except InvalidAnswer:
            asked.foreign += 1
        except TooLarge as error:
            asked.pause = LOGS_PERIOD_SECONDS + error.limit / MAX_LOGS_BYTES_PER_SECOND
        except TransportError:
            pass  # asked again
        else:
            asked.runs = told == RUNS
            asked.ended = None if told == RUNS else told
            asked.foreign = 0
            asked.pause = LOGS_PERIOD_SECONDS + len(body) / MAX_LOGS_BYTES_PER_SECOND


class _Asked:
    """What came of asking for one task's logs. `pause`: seconds until they are asked for again."""

    def __init__(self, pause: float) -> None:
        self.ended: Outcome | Lost | None = None
        self.runs = False
        """By the last answer."""
        self.foreign = 0
        self.pause = pause
