"""A Redis behind TLS (rediss://): its certificate is verified by its authority and its name."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from queueworker.routing.journal.redis_client import connect
from tests.support.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from devcluster.redis_server import RedisServer

SECONDS = 5


@asynccontextmanager
async def tls_in_front(redis: RedisServer, certificate: Path, key: Path) -> AsyncIterator[int]:
    """The port of a server that ends TLS and passes the bytes on."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one side has gone, so the other one goes, too
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", redis.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def run_script(url: str) -> object:
    client = connect(url, retry=Retry(NoBackoff(), 0), socket_timeout=SECONDS)
    try:
        script = client.exclusive_script("return {KEYS[1], ARGV[1]}")
        await script.connect(SECONDS)
        return await script.run(["key"], ["value"], SECONDS)
    finally:
        await client.aclose()


async def test_only_a_redis_of_a_known_authority_and_with_the_right_name_is_used(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "DNS:localhost")
    async with tls_in_front(own_redis, certificate, key) as port:
        with pytest.raises(RedisConnectionError, match="certificate verify failed"):
            await run_script(f"rediss://localhost:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await run_script(f"rediss://localhost:{port}") == [b"key", b"value"]
        with pytest.raises(RedisConnectionError, match=r"certificate is not valid for '127\.0\.0\.1'"):
            await run_script(f"rediss://127.0.0.1:{port}")
        assert await run_script(f"rediss://127.0.0.1:{port}?ssl_check_hostname=false") == [b"key", b"value"]
