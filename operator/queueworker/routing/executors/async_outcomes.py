"""Outcomes that arrive as events: executors of the later kind answer `running`, and publish how it ended.

The subscription is there before the first task of an executor whose kind is not known yet, so that an
outcome published right after the answer is not missed; it goes once every executor is known to answer
with the outcome itself, because then the channels carry only what we publish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

import orjson
from redis.exceptions import RedisError

from queueworker.routing.aio import cancelled
from queueworker.routing.backoff import exponential
from queueworker.routing.journal.redis_client import connect
from queueworker.routing.wire.task import CHANNEL_COMPLETED, CHANNEL_FAILED, Outcome, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

log = logging.getLogger(__name__)

SUBSCRIBE_SECONDS = 2.0
RECONNECT_MOST_SECONDS = 1.0
# What is published while nobody listens is gone, so a connection that died in silence has to be found out.
SILENCE_SECONDS = 5.0
# An event as it commonly begins: whose it is can be told without reading all of it.
_HEAD = re.compile(rb'\s*\{\s*"eval_id"\s*:\s*("[^"\\\x00-\x1f\x80-\xff]*")')


class Completions:
    """Listens on the outcome channels while it is wanted, and hands outcomes to whoever waits for the id."""

    def __init__(self, redis_url: str, connect: Callable[..., Redis] = connect) -> None:
        self._url = redis_url
        self._connect = connect
        self._expected: dict[str, asyncio.Future[Outcome]] = {}
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    async def listen(self) -> None:
        """Subscribe; return when subscribed, or after a moment when Redis is away (it goes on trying)."""
        while True:
            if self._task is None:
                self._unsettle()
                self._task = asyncio.create_task(self._listen_for_ever(), name="completions")
            await self._settled.wait()
            if self._task is not None:
                return  # else it was stopped meanwhile, because nobody waited yet

    @property
    def listening(self) -> bool:
        return self._task is not None

    def expect(self, eval_id: str) -> asyncio.Future[Outcome]:
        """Call before the task is sent; the future gets its outcome, if one comes by. `forget` it in the end."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._expected[eval_id] = future
        return future

    def forget(self, eval_id: str) -> None:
        self._expected.pop(eval_id, None)

    async def stop(self) -> None:
        """Unsubscribe, unless somebody waits."""
        if self._task is not None and not self._expected:
            task, self._task = self._task, None
            await cancelled(task)

    async def close(self) -> None:
        self._expected.clear()
        await self.stop()

    def _unsettle(self) -> None:
        """Not subscribed: whoever is about to send a task waits, for a moment at most."""
        settled = self._settled = asyncio.Event()
        asyncio.get_running_loop().call_later(SUBSCRIBE_SECONDS, settled.set)

    async def _listen_for_ever(self) -> None:
        failures = 0
        while True:
            redis = self._connect(self._url, socket_connect_timeout=SUBSCRIBE_SECONDS)
            try:
                async with redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL_COMPLETED, CHANNEL_FAILED)
                    self._settled.set()
                    failures = 0
                    await self._receive(pubsub)
            except (RedisError, OSError) as error:
                failures += 1
                if failures == 1:
                    log.warning("subscription to the outcome channels broke: %s", error)
                    if self._settled.is_set():
                        self._unsettle()
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await redis.aclose()
            await asyncio.sleep(exponential(failures, 0.1, RECONNECT_MOST_SECONDS))

    async def _receive(self, pubsub: PubSub) -> None:
        """Until the connection breaks. Raises RedisError or OSError."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if asked:
                    raise RedisError(f"no answer within {SILENCE_SECONDS:.0f} s")
                await pubsub.ping()
            elif message["type"] == "message":
                self._take(message["channel"].decode(), message["data"])
            asked = message is None

    def _take(self, channel: str, payload: bytes) -> None:
        head = _HEAD.match(payload)
        if not self._expected or (head is not None and orjson.loads(head[1]) not in self._expected):
            return  # somebody else's, and it may be large
        try:
            data: Any = orjson.loads(payload)
            future = self._expected.get(data["eval_id"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return
        if future is None or future.done():
            return
        result = data.get("result")
        if isinstance(result, dict):
            outcome = outcome_of(result, orjson.dumps(result))
        else:
            outcome = Outcome(completed=channel == CHANNEL_COMPLETED, result=None)
        if channel == CHANNEL_FAILED:
            error = data.get("error") or outcome.error or "Execution failed"
            outcome = Outcome(completed=False, error=str(error), result=outcome.result)
        future.set_result(Outcome(outcome.completed, outcome.error, outcome.result, published=True))
