"""`queueworker failed` in a pod of the operator: it asks the API server for the object's Redis."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from queueworker.routing.journal import failed_tasks as failures
from queueworker.routing.journal.failed_tasks import FailedTask
from tests.support.kube_api import KubeApi
from tests.support.worker_processes import run_command

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

REF = {"events": {"redisURLSecretRef": {"name": "redis", "key": "url"}}}


async def listed(api: KubeApi, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBECONFIG": api.kubeconfig(folder)}
    return await asyncio.to_thread(run_command, "failed", "list", "--group", f"team/{name}", **environ)


def secret(url: str) -> dict[str, Any]:
    return {"data": {"url": base64.b64encode(url.encode()).decode()}}


async def test_the_redis_of_an_object_is_found_by_itself(redis_url: str, tmp_path: Path) -> None:
    hash_key, index, _ = failures.keys("queueworker:{team/legacy}:")
    task = FailedTask("a", "oops", 1, "executor-1", 1.0, "http://queue", False, 2, b"{}")
    with Redis.from_url(redis_url) as redis:
        redis.hset(hash_key, "a", task.encode())
        redis.zadd(index, {"a": 1000})
    async with KubeApi("legacy", {"spec": REF | {"newer": 1}}, secret(redis_url)) as api:
        told = await listed(api, tmp_path, "legacy")
    assert told.stdout.splitlines()[1].split()[0] == "a", told.stderr


@pytest.mark.parametrize(
    ("name", "spec", "url", "words"),
    [
        ("other", {}, "redis://redis", "it does not exist"),
        ("legacy", REF, "redis://:hunter2@redis/hunter2", "its path must be the number of a database"),
        ("legacy", {"queue": {"url": "queue"}}, "", "its spec is invalid"),
        (
            "legacy",
            {"events": {"redisURLSecretRef": {"name": "redis", "key": "no"}}},
            "x",
            "has no key no: add the key",
        ),
    ],
)
async def test_a_redis_that_cannot_be_found_is_told_with_the_way_out(
    tmp_path: Path, name: str, spec: dict[str, Any], url: str, words: str
) -> None:
    async with KubeApi("legacy", {"spec": spec}, secret(url)) as api:
        told = await listed(api, tmp_path, name)
    assert told.returncode == 1
    assert told.stderr.startswith(f"QueueWorker team/{name}, whose Redis is asked for: ")
    assert words in told.stderr
    assert told.stderr.endswith("; set --group, or --redis-url or REDIS_URL\n")
    assert "hunter2" not in told.stderr
