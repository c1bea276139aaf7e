"""Options of `queueworker failed`: which group's tasks, and in which Redis."""

# ruff: noqa: PLC0415 -- every command imports this module, so it imports its dependencies late
from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from queueworker.processes.environment import journal_group
from queueworker.processes.pod import runs_in_pod
from queueworker.resource.redis_url import DEFAULT_REDIS_URL, InvalidRedisUrl, redis_target

WORKER_GROUPS = "worker/"
"""How the default groups of workers begin, which belong to no object."""
_GROUP = re.compile(r"[^/\s]+/[^/\s]+")
_QUEUE_URL = "http://queue:8081"


def fail(message: str) -> Any:
    """End the command with status 1 and the message."""
    print(message, file=sys.stderr)
    raise typer.Exit(1)


def redis_url_of(given: str | None, group: str) -> str:
    """The option's, else in a pod that of the QueueWorker whose namespace/name the group is, else the default."""
    if given:
        return given
    if not runs_in_pod(os.environ) or group.startswith(WORKER_GROUPS):
        return DEFAULT_REDIS_URL
    return asyncio.run(_from_object(group))


async def _from_object(group: str) -> str:
    from kubernetes.aio.config import ConfigException
    from pydantic import ValidationError

    from queueworker.controller.cluster import FAILED, Cluster, SecretUnavailable
    from queueworker.controller.inputs import redis_url

    namespace, _, name = group.partition("/")
    try:
        async with Cluster(lambda: None, in_pod=True) as cluster:
            body = await cluster.read_object(namespace, name)
            if body is not None:
                return await redis_url(cluster, namespace, body)
            why = "it does not exist"
    except (SecretUnavailable, InvalidRedisUrl) as error:
        why = str(error)
    except ValidationError:
        why = "its spec is invalid"
    except (*FAILED, ConfigException) as error:
        why = f"it cannot be read: {getattr(error, 'status', '')} {getattr(error, 'reason', error)}"
    return str(fail(f"QueueWorker {group}, whose Redis is asked for: {why}; set --group, or --redis-url or REDIS_URL"))


def _group(given: str | None) -> str:
    if given:
        if not _GROUP.fullmatch(given):
            raise typer.BadParameter(
                f"{given!r} is not a group: give two words with a slash between them, for example default/legacy"
            )
        return given
    url = os.environ.get("QUEUE_SERVICE_URL") or _QUEUE_URL
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return journal_group(url)
    except ValueError:  # of a port or an address that is none
        pass
    shown = "(value not shown)" if "@" in url else repr(url)  # what stands before an @ may be a password
    raise typer.BadParameter(f"without --group, QUEUE_SERVICE_URL must be an http:// or https:// URL, not {shown}")


def read_redis_url(given: str | None) -> str | None:
    """Callback of an option. Raises BadParameter if it is no Redis URL."""
    try:
        if given:
            redis_target(given, local=True)
    except InvalidRedisUrl as error:
        raise typer.BadParameter(str(error)) from error
    return given


Group = Annotated[
    str,
    typer.Option(
        metavar="GROUP",
        envvar="JOURNAL_GROUP",
        default_factory=lambda: _group(None),
        callback=_group,
        show_default="made from QUEUE_SERVICE_URL, as for a worker",
        help="Group of the tasks: namespace/name of a QueueWorker object, or JOURNAL_GROUP of a worker.",
    ),
]
RedisURL = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="REDIS_URL",
        show_envvar=True,
        callback=read_redis_url,
        show_default=f"in a pod that of the QueueWorker named by --group, else {DEFAULT_REDIS_URL}",
        help="Redis of the router.",
    ),
]
