"""Outcomes that arrive as events: asynchronous executors answer `running`, and publish how the task ended.

The router subscribes before it sends the first task to an executor whose kind is not known yet, so that an outcome
published right after the answer is not missed. It unsubscribes once every executor is known to be synchronous, because
then the channels carry only what routers publish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from queueworker.routing.aio import cancelled
from queueworker.routing.backoff import exponential
from queueworker.routing.journal.redis_client import connect
from queueworker.routing.limits import KIB, MIB
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED, CHANNEL_FAILED, Outcome
from queueworker.routing.wire.published import Published, parse_published
from queueworker.routing.wire.reading import id_at_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

log = logging.getLogger(__name__)

CHANNELS = (CHANNEL_COMPLETED, CHANNEL_FAILED)
SUBSCRIBE_SECONDS = 2.0
MAX_RECONNECT_SECONDS = 1.0
# What is published while nobody is subscribed is lost, so a dead connection that nobody closed has to be noticed.
SILENCE_SECONDS = 5.0
# What an event may hold beside a result of the largest size.
EVENT_ROOM_BYTES = 64 * KIB


class AsyncOutcomes:
    """Subscribes to the outcome channels while needed, and hands each outcome to the task that waits for it.

    `max_body_bytes` is `routing.maxBodyMebibytes` in bytes; a larger outcome fails its task. The owner sets it when it
    changes.
    """

    def __init__(self, redis_url: str, connect: Callable[..., Redis] = connect, *, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._url = redis_url
        self._connect = connect
        self._subscribers: dict[str, asyncio.Future[Outcome]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._failures = 0
        """In a row, of the subscription."""
        self._settled = asyncio.Event()
        """Set while the channels are subscribed to, or after `SUBSCRIBE_SECONDS` without Redis."""

    async def listen(self) -> None:
        """Subscribe to the channels. Returns when that is done, or after a moment without Redis (it keeps trying)."""
        while True:
            if self._listener is None:
                self._unsettle()
                self._listener = asyncio.create_task(self._listen_forever(), name="async outcomes")
            await self._settled.wait()
            if self._listener is not None:
                return  # else it was stopped meanwhile, because no task was waiting yet

    def log_in(self, redis_url: str) -> None:
        """As the user of this URL, from the next connection on; a subscription that Redis upholds stays."""
        self._url = redis_url

    @property
    def listening(self) -> bool:
        return self._listener is not None

    async def stop_listening(self) -> None:
        """Unsubscribe from the channels, unless a task waits for its outcome."""
        if self._listener is not None and not self._subscribers:
            listener, self._listener = self._listener, None
            await cancelled(listener)

    async def close(self) -> None:
        self._subscribers.clear()
        await self.stop_listening()

    def subscribe(self, eval_id: str) -> asyncio.Future[Outcome]:
        """A future for the task's outcome. Call it before the task is sent, and `unsubscribe` in the end."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._subscribers[eval_id] = future
        return future

    def unsubscribe(self, eval_id: str) -> None:
        self._subscribers.pop(eval_id, None)

    def _unsettle(self) -> None:
        """Not subscribed: tasks that are about to be sent wait, for a moment at most."""
        settled = self._settled = asyncio.Event()
        asyncio.get_running_loop().call_later(SUBSCRIBE_SECONDS, settled.set)

    async def _listen_forever(self) -> None:
        while True:
            redis = self._connect(self._url, socket_connect_timeout=SUBSCRIBE_SECONDS)
            try:
                async with redis.pubsub() as pubsub:
                    await pubsub.subscribe(*CHANNELS)
                    await self._receive(pubsub)
            except Exception as error:  # whatever it is: outcomes must be heard again
                self._failures += 1
                if self._failures == 1:
                    known = isinstance(error, RedisError | OSError)
                    log.warning("subscription to the outcome channels broke: %s", error, exc_info=not known)
                    if self._settled.is_set():
                        self._unsettle()
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await redis.aclose()
            await asyncio.sleep(exponential(self._failures, 0.1, MAX_RECONNECT_SECONDS))

    async def _receive(self, pubsub: PubSub) -> None:
        """Receive until the connection breaks. Raises RedisError or OSError."""
        pinged = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if pinged:
                    raise RedisError(f"no answer within {SILENCE_SECONDS:.0f} s")
                await pubsub.ping()
            elif message["type"] == "subscribe":
                self._confirmed(message["data"])
            elif message["type"] == "message":
                try:
                    self._take(message["channel"].decode(), message["data"])
                except Exception:  # a defect of ours: the other outcomes must be heard
                    log.exception("an event on %s could not be read", message["channel"])
            pinged = message is None

    def _confirmed(self, channels: int) -> None:
        """Redis has confirmed the subscription to so many channels. An ACL may refuse it: that is told here too."""
        if channels == len(CHANNELS):
            if self._failures:
                log.warning("subscribed to the outcome channels again")
            self._failures = 0
            self._settled.set()

    def _take(self, channel: str, payload: bytes) -> None:
        if not self._subscribers:
            return
        eval_id = id_at_start(payload)
        if eval_id is not None and eval_id not in self._subscribers:
            return  # of another router's task; it may be large
        if len(payload) > self.max_body_bytes + EVENT_ROOM_BYTES:
            published = None if eval_id is None else Published(eval_id, self._too_large(len(payload)))
        else:
            published = parse_published(channel, payload)
        future = None if published is None else self._subscribers.get(published.eval_id)
        if published is not None and future is not None and not future.done():
            future.set_result(published.outcome)

    def _too_large(self, size: int) -> Outcome:
        limit = f"{self.max_body_bytes / MIB:g} MiB"
        error = f"the published outcome has {size:,} bytes, more than routing.maxBodyMebibytes allows ({limit})"
        return Outcome(completed=False, error=error, published=True)
