"""The loop that the model of the platform runs on."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.support.model.virtual_time import TimeStandsStill, VirtualLoop


def test_a_wait_that_is_too_short_to_be_added_to_the_time_ends_as_it_would_in_reality() -> None:
    loop = VirtualLoop()

    async def wait() -> None:
        until = loop.time() + 1e-12
        while (left := until - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left / 100):
                    await asyncio.Event().wait()

    loop.run_until_complete(wait())
    loop.close()


def test_a_busy_loop_is_found_and_named() -> None:
    loop = VirtualLoop()

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(TimeStandsStill, match="spin"):
        loop.run_until_complete(spin())
    loop.close()
