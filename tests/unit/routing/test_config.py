"""What a spec means to its router: whether it routes, and to which executors."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Intent, RouterConfig, intent, static_endpoints


def spec(**parts: Any) -> QueueWorkerSpec:
    return QueueWorkerSpec.model_validate(parts)


@pytest.mark.parametrize(
    ("suspend", "percent", "force", "wanted"),
    [
        (False, 0, False, Intent.ROUTE),
        (False, 50, False, Intent.ROUTE),
        (False, 99, False, Intent.ROUTE),
        (False, 100, False, Intent.STANDBY),
        (False, 100, True, Intent.ROUTE),
        (True, 0, False, Intent.SUSPEND),
        (True, 100, False, Intent.SUSPEND),
        (True, 100, True, Intent.SUSPEND),
    ],
)
def test_suspension_is_stronger_than_force_and_force_than_the_percentage(
    suspend: bool, percent: int, force: bool, wanted: Intent
) -> None:
    assert intent(spec(suspend=suspend, migration={"celeryPercent": percent, "forceLegacyQueue": force})) is wanted


@pytest.mark.parametrize(
    ("executors", "wanted"),
    [
        ({}, [("executor-1", "http://executor-1:8083")]),
        ({"count": 0}, []),
        (
            {"count": 2, "baseURL": "http://e/", "port": 1},
            [("executor-1", "http://e-1:1"), ("executor-2", "http://e-2:1")],
        ),
        ({"count": 9, "endpoints": ["http://10.0.0.7:8083/"]}, [("10.0.0.7:8083", "http://10.0.0.7:8083")]),
        ({"endpoints": ["https://a/b", "http://[::1]:1"]}, [("a/b", "https://a/b"), ("[::1]:1", "http://[::1]:1")]),
        (
            {"endpoints": ["HTTP://A:80/", "http://a", "https://B:443/x/", "https://b/x", "http://a:8080"]},
            [("A:80", "http://a"), ("B:443/x", "https://b/x"), ("a:8080", "http://a:8080")],
        ),
        ({"endpoints": ["http://u:pw@a"]}, [("a", "http://u:pw@a")]),
        ({"baseURL": "http://executor-{n}.executor"}, [("executor-1", "http://executor-1.executor:8083")]),
        ({"baseURL": "http://gateway:9000/executors/{n}/"}, [("executor-1", "http://gateway:9000/executors/1")]),
        ({"baseURL": "https://gateway/{n}/x", "port": 1}, [("executor-1", "https://gateway:1/1/x")]),
        ({"baseURL": "http://[::1]/{n}"}, [("executor-1", "http://[::1]:8083/1")]),
        ({"service": {"name": "executor"}}, None),
    ],
)
def test_executors_are_numbered_or_listed_once_or_watched(executors: dict[str, Any], wanted: Any) -> None:
    found = static_endpoints(spec(executors=executors))
    assert (None if found is None else [(e.name, e.url) for e in found]) == wanted


def test_a_config_shows_neither_key_nor_password() -> None:
    assert "s3cret" not in repr(RouterConfig("g", spec(), "redis://:s3cret@r", "s3cret"))


@pytest.mark.parametrize(
    ("queue", "redis", "wanted"),
    [
        ("queue", "redis://new@a", ("queue", "new key", "redis://new@a")),
        ("other", "redis://new@a", ("queue", "old key", "redis://new@a")),
        ("queue", "redis://new@b", ("queue", "new key", "redis://old@a")),
        ("other", "redis://new@b", ("queue", "old key", "redis://old@a")),
    ],
)
def test_a_router_keeps_its_peers_and_takes_a_new_key_and_user_of_them(
    queue: str, redis: str, wanted: tuple[str, str, str]
) -> None:
    def config(queue: str, redis: str, age: str, concurrency: int) -> RouterConfig:
        parts = {"queue": {"url": f"http://{queue}"}, "executors": {"concurrency": concurrency}}
        return RouterConfig("default/legacy", spec(**parts), redis, f"{age} key")

    found = config(queue, redis, "new", 2).at(config("queue", "redis://old@a", "old", 1))
    assert (found.spec.queue.url, found.api_key, found.redis_url) == (f"http://{wanted[0]}", *wanted[1:])
    assert found.spec.executors.concurrency == 2
