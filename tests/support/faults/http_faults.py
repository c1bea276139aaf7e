"""Faults of one HTTP exchange: arguments of `HttpProxy.spoil`."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults.proxy import Exchange, Fault, Message
    from tests.support.foreign_answers import ForeignAnswer


def response(status: int, body: bytes = b"{}", content_type: str = "application/json") -> bytes:
    """An answer, as bytes."""
    head = f"HTTP/1.1 {status} Spoilt\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def foreign(answer: ForeignAnswer) -> bytes:
    """As `response`."""
    return response(answer.status, answer.body, answer.content_type)


def answers(data: bytes, *, forwarded: bool = False) -> Fault:
    """The client gets this answer; the peer acts on the request only if it is `forwarded`."""

    async def fault(exchange: Exchange) -> None:
        if forwarded:
            await exchange.forward()
        await exchange.reply(data)

    return fault


def rewrites(change: Callable[[Message], bytes]) -> Fault:
    """The peer acts on the request, and the client gets `change` of its answer."""

    async def fault(exchange: Exchange) -> None:
        await exchange.reply(change(await exchange.forward()))

    return fault


def passes() -> Fault:
    """No fault: the request and its answer are kept, and pass."""

    async def fault(exchange: Exchange) -> None:
        await exchange.reply((await exchange.forward()).raw)

    return fault


def resets(*, forwarded: bool) -> Fault:
    """The connection is reset after the request was written: before or after the peer acted on it."""

    async def fault(exchange: Exchange) -> None:
        if forwarded:
            await exchange.forward()
        exchange.reset()

    return fault


def resets_if_kept_alive() -> Fault:
    """The keep-alive race: the peer closes the idle connection just as this request is written to it."""

    async def fault(exchange: Exchange) -> None:
        if exchange.earlier:
            exchange.reset()
        else:
            await exchange.reply((await exchange.forward()).raw)

    return fault


def hangs(*, forwarded: bool = False) -> Fault:
    """The request is accepted and never answered."""

    async def fault(exchange: Exchange) -> None:
        if forwarded:
            await exchange.forward()
        await asyncio.Event().wait()

    return fault


def delays(seconds: float) -> Fault:
    """The peer is slow to act."""

    async def fault(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.reply((await exchange.forward()).raw)

    return fault


def halves() -> Fault:
    """The peer acts on the request; the connection ends in the middle of its answer's body."""

    async def fault(exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.reply(answer.head + answer.body[: len(answer.body) // 2])
        exchange.writer.close()

    return fault


def half_a_chunk() -> Fault:
    """As `halves`, in chunked encoding: the connection ends in the middle of a chunk."""

    async def fault(exchange: Exchange) -> None:
        body = (await exchange.forward()).body
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        await exchange.reply(head + f"{len(body):x}\r\n".encode() + body[: len(body) // 2])
        exchange.writer.close()

    return fault


def trickles(seconds_a_byte: float = 1.0) -> Fault:
    """The peer acts on the request; its answer comes a byte at a time."""

    async def fault(exchange: Exchange) -> None:
        for byte in (await exchange.forward()).raw:
            await exchange.reply(bytes([byte]))
            await asyncio.sleep(seconds_a_byte)

    return fault


def mislabels(by: int) -> Fault:
    """The answer's Content-Length is wrong by so many bytes; the connection ends after the body."""

    async def fault(exchange: Exchange) -> None:
        answer = await exchange.forward()
        claim = b"Content-Length: %d" % (len(answer.body) + by)
        await exchange.reply(re.sub(rb"(?i)content-length: *\d+", claim, answer.head) + answer.body)
        exchange.writer.close()

    return fault


def closes_after_answering() -> Fault:
    """The answer is whole and does not announce that the connection ends after it."""

    async def fault(exchange: Exchange) -> None:
        await exchange.reply((await exchange.forward()).raw)
        exchange.writer.close()

    return fault


def changes_key(key: str) -> Fault:
    """The peer gets this `X-API-Key`, so the client finds that the peer has another key."""

    async def fault(exchange: Exchange) -> None:
        head = re.sub(rb"(?im)^x-api-key: *[^\r]*", b"X-API-Key: " + key.encode(), exchange.request.head)
        exchange.request = replace(exchange.request, head=head)
        await exchange.reply((await exchange.forward()).raw)

    return fault
