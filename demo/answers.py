"""Reads JSON from services and API server, for the observers of the show."""

from __future__ import annotations

from typing import Any

import httpx


def get_json(client: httpx.Client, url: str) -> dict[str, Any] | None:
    """The object of a 200; None if there is no answer, or another one."""
    try:
        answer = client.get(url)
    except httpx.HTTPError:
        return None
    return answer.json() if answer.status_code == 200 else None
