"""Debian's Chromium, driven by Playwright. Nothing is downloaded, and the browser asks nobody but us."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import BrowserContext, Page

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "there is no Chromium: install Debian's package `chromium`"
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
)  # fmt: skip


class Browser:
    """Makes contexts, each of them with a profile of its own."""

    def __init__(self, playwright: Any) -> None:
        self._playwright = playwright
        self._folders: list[tempfile.TemporaryDirectory[str]] = []
        self._contexts: list[BrowserContext] = []

    async def context(self, **options: Any) -> BrowserContext:
        folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._folders.append(folder)
        context: BrowserContext = await self._playwright.chromium.launch_persistent_context(
            folder.name, executable_path=EXECUTABLE, headless=True, args=list(_FLAGS), **options
        )
        self._contexts.append(context)
        return context

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()
        for folder in self._folders:
            folder.cleanup()


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """All browsers that were started end with the block."""
    async with async_playwright() as playwright:
        made = Browser(playwright)
        try:
            yield made
        finally:
            await made.close()


async def open_page(made: Browser, *, width: int = 1280, height: int = 860, theme: str = "light") -> Page:
    """A page of that size whose system prefers that theme."""
    context = await made.context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    return context.pages[0]
