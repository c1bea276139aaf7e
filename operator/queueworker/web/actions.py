"""What a person may do on the page: send a failed task again, as `queueworker failed retry` does. Off by default."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import HTTPException
from redis.exceptions import RedisError

from queueworker.redaction import without_credentials
from queueworker.resend import FailedTasks, Resender, Sent, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queueworker.routing.config import RouterConfig
    from queueworker.web.source import Source

MAX_ACTIONS = 4
"""Retries at once; others wait."""


class Actions:
    """Retries for whoever has the token."""

    def __init__(self, source: Source, token: str) -> None:
        self._source = source
        self._token = token
        self._turns = asyncio.Semaphore(MAX_ACTIONS)
        self._under_way: set[tuple[str, str]] = set()

    @property
    def allowed(self) -> bool:
        return bool(self._token)

    def check(self, headers: Mapping[str, str]) -> str:
        """The token that was sent. Raises HTTPException: 403 if actions are off, 401 for another token."""
        if not self.allowed:
            raise HTTPException(HTTPStatus.FORBIDDEN, "actions are off: set WEB_ALLOW_ACTIONS and WEB_TOKEN")
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        # A standby passes the token on as X-API-Key.
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED, "this is not the token: see WEB_TOKEN", {"WWW-Authenticate": "Bearer"}
            )
        return given

    async def retry(self, group: str, eval_id: str, *, ambiguous: bool) -> Sent:
        """Raises HTTPException: 404 for an unknown object or task, 503 while Redis is away."""
        config = self._source.config(group)
        if config is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"this process does not route for a QueueWorker {group}")
        retry = (group, eval_id)
        # Until one retry has sent the task, the queue says to every other one that it has no such task.
        if retry in self._under_way:
            return Sent(eval_id, done=False, message="not sent: it is being sent at this moment")
        self._under_way.add(retry)
        try:
            async with self._turns:
                return await self._retry(config, group, eval_id, ambiguous=ambiguous)
        finally:
            self._under_way.discard(retry)

    async def _retry(self, config: RouterConfig, group: str, eval_id: str, *, ambiguous: bool) -> Sent:
        tasks = FailedTasks(config.redis_url, group)
        try:
            task = await tasks.get(eval_id)
            if task is None:
                raise HTTPException(HTTPStatus.NOT_FOUND, f"no failed task {eval_id} is kept any more")
            if reason := refusal(task, ambiguous=ambiguous):
                return Sent(eval_id, done=False, message=f"not sent: {reason}")
            async with aclosing(Resender(tasks, config.api_key, None)) as resender:
                return await resender.send(task)
        except (RedisError, OSError) as error:
            text = f"Redis did not answer: {without_credentials(str(error))}"
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, text) from error
        finally:
            await tasks.close()
