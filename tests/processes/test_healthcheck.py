"""What the image's HEALTHCHECK asks, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from queueworker.cli.healthcheck import healthcheck
from queueworker.web.app import create_app
from queueworker.web.server import serve
from tests.support.web_source import FakeSource


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
async def test_a_process_that_answers_is_alive_whatever_address_it_listens_on(host: str) -> None:
    async with serve(create_app(FakeSource()), host, 0) as port:
        alive, said = await asyncio.to_thread(healthcheck, host, port)
    assert (alive, said[:3]) == (True, "200")


async def test_another_answer_than_200_is_no_sign_of_life() -> None:
    async with serve(create_app(FakeSource()), "127.0.0.1", 0) as port:
        alive, said = await asyncio.to_thread(healthcheck, "127.0.0.1", port, "/nowhere")
    assert (alive, said[:3]) == (False, "404")


def test_no_answer_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    alive, said = healthcheck("127.0.0.1", port)
    assert not alive
    assert said.startswith(f"no answer from 127.0.0.1:{port}: ")
