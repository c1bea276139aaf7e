"""The HTTP session of Celery's tasks, with the client that `CELERY_HTTP` names."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pycurl import Curl

HEADERS = {"content-type": "application/json"}
CONNECTIONS = 64


class Post(Protocol):
    def __call__(self, url: str, body: bytes, timeout: float) -> bytes: ...


class _Kept(threading.local):
    """A libcurl handle, and so a kept connection, for each thread; created after the fork of prefork."""

    @cached_property
    def curl(self) -> Curl:
        import pycurl

        made = pycurl.Curl()
        made.setopt(pycurl.HTTPHEADER, [*(f"{name}: {value}" for name, value in HEADERS.items()), "Expect:"])
        made.setopt(pycurl.NOPROXY, "*")
        made.setopt(pycurl.NOSIGNAL, 1)
        return made


def session() -> Post:
    """requests is the usual choice, pycurl the fastest, and urllib3 the fastest that works with gevent."""
    match os.environ["CELERY_HTTP"]:
        case "pycurl":
            import pycurl

            kept = _Kept()

            def post(url: str, body: bytes, timeout: float) -> bytes:
                parts: list[bytes] = []
                curl = kept.curl
                curl.setopt(pycurl.URL, url)
                curl.setopt(pycurl.POSTFIELDS, body)
                curl.setopt(pycurl.TIMEOUT_MS, int(timeout * 1000))
                curl.setopt(pycurl.WRITEFUNCTION, parts.append)
                curl.perform()
                return b"".join(parts)

        case "urllib3":
            import urllib3

            pool = urllib3.PoolManager(maxsize=CONNECTIONS)

            def post(url: str, body: bytes, timeout: float) -> bytes:
                return pool.request("POST", url, body=body, headers=HEADERS, timeout=timeout).data

        case "requests":
            import requests

            requests_session = requests.Session()
            requests_session.trust_env = False

            def post(url: str, body: bytes, timeout: float) -> bytes:
                return requests_session.post(url, data=body, headers=HEADERS, timeout=timeout).content

        case other:
            raise ValueError(f"CELERY_HTTP={other}")
    return post
