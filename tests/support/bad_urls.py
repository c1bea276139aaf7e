"""URLs that a spec refuses, with the words of the refusal: pydantic and a real API server must agree on them."""

from __future__ import annotations

from typing import Any

_HTTP = "must be an http:// or https:// URL with a host"
_QUERY = "must have no query and no fragment"
_USER = "must hold no user and no password"
_BASE = "a template with {n} in host or path, whose own port counts if it has one"
_REDIS = "must be a redis:// or rediss:// URL with a host"
_OPTIONS = "may have after its host only the number of a database, and of options only db, "
_PASSWORD = "must hold no password, which everybody could read here: put the URL into a Secret"

HTTP_URLS = [
    ("", _HTTP),
    ("queue:8081", _HTTP),
    ("redis://queue:8081", _HTTP),
    ("http://", _HTTP),
    ("http://:8081", _HTTP),
    ("http://a..b", _HTTP),
    (f"http://{'x' * 64}", _HTTP),
    ("http://queue:0", _HTTP),
    ("http://queue:65536", _HTTP),
    ("http://queue:99999", _HTTP),
    ("http://que ue", _HTTP),
    ("http://queue/a b", _HTTP),
    ("http://queue/\u00e9", _HTTP),
    ("http://queue\n", _HTTP),
    ("http://[::1", _HTTP),
    ("http://queue?x=1", _QUERY),
    ("http://queue/path?", _QUERY),
    ("http://queue#x", _QUERY),
]
HTTP_URLS_OF_NEW_OBJECTS = [("http://user:pw@queue", _USER), ("http://user@queue/x", _USER)]
BASE_URLS = [
    ("executor", "must be an http:// or https:// URL"),
    ("http://executor:8083", _BASE),
    ("http://gw/exec", _BASE),
    ("http://gw?x=1", _BASE),
    ("http://10.0.0.5", _BASE),
    ("http://[::1]", _BASE),
    ("http://executor.", _BASE),
    ("http://executor-{n}:{n}", _BASE),
    ("http://executor-{n}:65536", _BASE),
    ("http://executor-{m}", _BASE),
    ("http://executor-{n}/{m}", _BASE),
    ("http://executor-{n}?x=1", _BASE),
    ("http://executor-{n}#x", _BASE),
]
BASE_URLS_OF_NEW_OBJECTS = [("http://u:p@gw", _USER)]
REDIS_URLS = [
    ("redis:6379", _REDIS),
    ("http://redis:6379", _REDIS),
    ("unix:///run/redis.sock", _REDIS),
    ("redis://", _REDIS),
    ("redis://redis:0", _REDIS),
    ("redis://redis/abc", _OPTIONS),
    ("redis://redis?foo=1", _OPTIONS),
    ("redis://redis?decode_responses=true", _OPTIONS),
    ("redis://redis/0#x", _OPTIONS),
]
REDIS_URLS_OF_NEW_OBJECTS = [
    ("redis://:pw@redis", _PASSWORD),
    ("redis://user:pw@redis:6379/1", _PASSWORD),
    ("redis://redis?db=1&password=pw", _PASSWORD),
]

GOOD: list[dict[str, Any]] = [
    {"queue": {"url": url}}
    for url in (
        "http://queue:8081",
        "HTTPS://queue.team.svc.cluster.local./",
        "http://10.0.0.7:80/a/b//c@d",
        "http://[fe80::1]:8081",
        "http://que_ue",
    )
] + [
    {"executors": {"baseURL": url}}
    for url in (
        "http://executor",
        "https://executor.team/",
        "http://10-0-0-5",
        "http://executor-{n}.executor",
        "http://{n}.executor.team.svc:9000",
        "http://gateway:9000/executors/{n}",
        "http://[::1]:9000/executors/{n}/",
    )
] + [
    {"events": {"redisURL": url}}
    for url in (
        "redis://redis:6379",
        "rediss://user@redis/3?ssl_cert_reqs=CERT_NONE&socket_timeout=5",
        "redis://[::1]:6379/",
    )
]  # fmt: skip


def refused(*, new: bool) -> list[tuple[dict[str, Any], str]]:
    """Specs and the words that refuse them. `new`: what only the API server refuses, because it once was taken."""
    http, base, redis = (
        (HTTP_URLS_OF_NEW_OBJECTS, BASE_URLS_OF_NEW_OBJECTS, REDIS_URLS_OF_NEW_OBJECTS)
        if new
        else (HTTP_URLS, BASE_URLS, REDIS_URLS)
    )
    return [
        *(({"queue": {"url": url}}, words) for url, words in http),
        *(({"executors": {"endpoints": [url]}}, words) for url, words in http),
        *(({"executors": {"baseURL": url}}, words) for url, words in base),
        *(({"events": {"redisURL": url}}, words) for url, words in redis),
    ]
