"""People who look at the page: clients that ask for what a page with an opened object asks for, as often as it does."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD_SECONDS = 1.0
"""`PERIOD_MS` in web/static/poll.js: from an answer to the next question."""


@dataclass
class Seen:
    """What all of them got. `answers` are the seconds that each answer took; `refused` are statuses of errors."""

    answers: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)


@contextmanager
def viewers(url: str, count: int) -> Iterator[Seen]:
    """So many clients ask until the end of the block, each by a connection of its own. At first nobody may listen."""
    seen, stop = Seen(), threading.Event()
    threads = [threading.Thread(target=_look, args=(url, seen, stop), daemon=True) for _ in range(count)]
    for number, thread in enumerate(threads):
        time.sleep(PERIOD_SECONDS / count if number else 0)  # people do not come all at once
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _look(url: str, seen: Seen, stop: threading.Event) -> None:
    tags: dict[str, str] = {}
    opened = ""
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as client:
        while not stop.wait(PERIOD_SECONDS):
            try:
                overview = _ask(client, "/api/overview", tags, seen)
                if overview is not None and overview.status_code == httpx.codes.OK:
                    opened = overview.json()["objects"][0][0]
                if opened:
                    _ask(client, f"/api/objects/{opened}", tags, seen)
            except httpx.TransportError:  # not there yet, or not any more
                continue


def _ask(client: httpx.Client, path: str, tags: dict[str, str], seen: Seen) -> httpx.Response | None:
    began = time.monotonic()
    answer = client.get(path, headers={"If-None-Match": tags[path]} if path in tags else {})
    if answer.is_error:
        seen.refused.append(answer.status_code)
        return None
    tags[path] = answer.headers["etag"]
    seen.answers.append(time.monotonic() - began)
    return answer
