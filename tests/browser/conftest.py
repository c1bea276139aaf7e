"""A browser for the tests of this folder; without one they are skipped, and say which package is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import EXECUTABLE, MISSING, Browser, browser
from tests.support.redis_fixtures import redis_url, shared_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page


__all__ = ["redis_url", "shared_redis", "visitor"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if EXECUTABLE is None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=MISSING))


@dataclass
class Visitor:
    """Opens pages, and keeps what the browser complains of and whom it asks."""

    browser: Browser
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    async def open(self, url: str, *, width: int = 1280, height: int = 860, theme: str = "light") -> Page:
        context = await self.browser.context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        page = context.pages[0]
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        context.on("request", lambda request: self.asked.append(request.url))
        await page.goto(url)
        return page


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    async with browser() as made:
        yield Visitor(made)
