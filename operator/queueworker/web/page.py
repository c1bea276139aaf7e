"""Serves the page at `/` and its files. The page has no data: it asks `/api`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import HTTPException, Response

from queueworker.web.assets import FOLDER

if TYPE_CHECKING:
    from fastapi import FastAPI

    from queueworker.web.assets import Assets

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ASSET_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


def add_page(app: FastAPI, assets: Assets) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(assets.page, media_type="text/html", headers=_PAGE_HEADERS)

    @app.get(f"/{FOLDER}/{{name}}", include_in_schema=False)
    async def asset(name: str) -> Response:
        found = assets.by_name.get(name)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "another version of the page: load it again")
        return Response(found.content, media_type=found.media_type, headers=_ASSET_HEADERS)
