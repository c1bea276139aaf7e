"""Takes the pictures of the page for README and docs: `python -m tests.browser.pictures docs/images`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from queueworker.web.app import Mode, create_app
from queueworker.web.server import serve
from queueworker.web.source import OperatorView
from tests.browser.chromium import browser, open_page
from tests.support.page_world import PageWorld, example

if TYPE_CHECKING:
    from playwright.async_api import Page

WIDTHS = {"wide": (1280, 860), "phone": (390, 844)}
PAGES = {"list": ("#/", "default/legacy"), "object": ("#/default/legacy", "Pipeline")}
LEADING = OperatorView(leading=True, leader="queueworker-operator-6f9c7", identity="queueworker-operator-6f9c7")
NOBODY = OperatorView(leading=False, leader="", identity="queueworker-operator-x8k2d")


async def take(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = PageWorld(view=LEADING)
    async with serve(create_app(source, Mode.OPERATOR), "127.0.0.1", 0) as port, browser() as chromium:
        for width, (x, y) in WIDTHS.items():
            for theme in ("light", "dark"):
                page = await open_page(chromium, width=x, height=y, theme=theme)
                for name, (route, shown) in PAGES.items():
                    source.shown = example()
                    await page.goto(f"http://127.0.0.1:{port}/{route}")
                    await page.get_by_text(shown).first.wait_for()
                    await page.locator("path.line[d]").first.wait_for(state="attached")
                    await page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=width == "wide")
                    if (name, width, theme) == ("list", "wide", "light"):
                        await _without_a_leader(page, source, folder)
                await page.context.close()


async def _without_a_leader(page: Page, source: PageWorld, folder: Path) -> None:
    """The open page while a standby answers that nobody leads."""
    source.view = NOBODY
    await page.get_by_text("nobody leads").wait_for()
    await page.screenshot(path=folder / "no-leader-wide-light.png")
    source.view = LEADING


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
