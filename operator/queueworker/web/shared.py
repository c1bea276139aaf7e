"""Answers that many viewers share: built at most once a second, only when somebody asks, compressed once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from fastapi import Request

BUILD_SECONDS = 0.9
"""Shortest time between two builds: a little less than the second after which a viewer asks again."""
MAX_KEPT = 64
"""Answers that are kept, the newest used."""
MIN_GZIP_BYTES = 1024
GZIP_LEVEL = 5
_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Body:
    """JSON, plain and compressed. The tag is that of the content without its time, so it is a weak one."""

    raw: bytes
    zipped: bytes
    etag: str

    @classmethod
    def of(cls, fields: Mapping[str, Any], now: float) -> Body:
        """`fields` may not be empty. `now` is Unix time in seconds and becomes the first field."""
        content = orjson.dumps(fields)
        return cls.made(b'{"time":%.3f,' % now + content[1:], hashlib.blake2b(content, digest_size=12).hexdigest())

    @classmethod
    def made(cls, raw: bytes, digest: str) -> Body:
        zipped = gzip.compress(raw, GZIP_LEVEL, mtime=0) if len(raw) >= MIN_GZIP_BYTES else b""
        return cls(raw, zipped, f'W/"{digest}"')


class Shared:
    """Keeps each answer for about a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Body]] = OrderedDict()
        self._making: dict[str, asyncio.Task[Body]] = {}

    def get(self, key: str) -> Body | None:
        """The answer, if it was built in the last second."""
        built_at, body = self._kept.get(key, (float("-inf"), None))
        return body if self._clock() - built_at < BUILD_SECONDS else None

    async def get_or_make(self, key: str, make: Callable[[], Coroutine[Any, Any, Body]]) -> Body:
        """The answer; made once for all who wait for it. Raises what `make` raises."""
        body = self.get(key)
        if body is not None:
            return body
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, make), name=f"answer {key}")
            making.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(making)

    async def _make(self, key: str, make: Callable[[], Coroutine[Any, Any, Body]]) -> Body:
        return self.keep(key, await make())

    def keep(self, key: str, body: Body) -> Body:
        self._kept[key] = (self._clock(), body)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return body


def respond(request: Request, body: Body, headers: Mapping[str, str]) -> Response:
    """304 if the client has this content already."""
    sent = {**_HEADERS, "ETag": body.etag, **headers}
    if request.headers.get("if-none-match") == body.etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=sent)
    if body.zipped and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(body.zipped, media_type="application/json", headers=sent | {"Content-Encoding": "gzip"})
    return Response(body.raw, media_type="application/json", headers=sent)
