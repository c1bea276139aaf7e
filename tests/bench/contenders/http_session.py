"""The HTTP session that Celery's tasks keep: the client that `CELERY_HTTP` names."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyreqwest.client import SyncClient

HEADERS = {"content-type": "application/json"}
CONNECTIONS = 64


class Post(Protocol):
    def __call__(self, url: str, body: bytes, timeout: float) -> bytes: ...


@cache
def _pyreqwest() -> SyncClient:
    """Made when it is first used, so after prefork's fork: its runtime's thread would not be in the child."""
    from pyreqwest.client import SyncClientBuilder

    return SyncClientBuilder().no_proxy().default_headers(HEADERS).build()


def session() -> Post:
    """`requests` is what most would write; pyreqwest is the fastest; urllib3 the fastest that gevent can switch in."""
    match os.environ["CELERY_HTTP"]:
        case "pyreqwest":

            def post(url: str, body: bytes, timeout: float) -> bytes:
                request = _pyreqwest().post(url).timeout(timedelta(seconds=timeout)).body_bytes(body).build()
                return request.send().bytes().to_bytes()

        case "urllib3":
            import urllib3

            pool = urllib3.PoolManager(maxsize=CONNECTIONS)

            def post(url: str, body: bytes, timeout: float) -> bytes:
                return pool.request("POST", url, body=body, headers=HEADERS, timeout=timeout).data

        case "requests":
            import requests

            kept = requests.Session()
            kept.trust_env = False

            def post(url: str, body: bytes, timeout: float) -> bytes:
                return kept.post(url, data=body, headers=HEADERS, timeout=timeout).content

        case other:
            raise ValueError(f"CELERY_HTTP={other}")
    return post
