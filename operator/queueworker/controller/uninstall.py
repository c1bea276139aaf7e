"""Before the operator is removed: which objects it would leave behind that cannot be deleted any more.

An object with our finalizer waits for an operator. Once the operator, its rights or the CRD are gone, its deletion
hangs, and with it that of its namespace.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller import finalizer
from queueworker.controller.cluster import ObjectGone, StalePatch
from queueworker.controller.kinds import QUEUE_WORKERS
from queueworker.controller.watches import key_of

if TYPE_CHECKING:
    from queueworker.controller.cluster import Cluster
    from queueworker.controller.watches import Body

log = logging.getLogger(__name__)

HOLDER = "queueworker-uninstall"
STAND_BY_SECONDS = 120
"""For so long the operators stand by after a release: they would set the finalizer again."""
NOTICE_SECONDS = 8.0
"""A leader sees within this time that it has lost the Lease."""
SETTLE_SECONDS = 2.0
TRIES = 10


class ListRefused(Exception):
    """The objects of a namespace may not be listed. The message says what to do."""

    def __init__(self, namespace: str) -> None:
        where = f"in the namespace {namespace}" if namespace else "in all namespaces"
        gone = (
            ", or, if that namespace is gone, take it out of watchNamespaces, or use `helm uninstall --no-hooks`"
            if namespace
            else ""
        )
        super().__init__(f"QueueWorkers cannot be listed {where}: 403 Forbidden: allow it{gone}")


async def held(cluster: Cluster, namespaces: tuple[str, ...]) -> list[Body]:
    """The objects that have our finalizer; none without the CRD. Raises `ListRefused` or one of `cluster.FAILED`."""
    found: list[Body] = []
    for namespace in namespaces or ("",):
        try:
            found += await cluster.list_all(QUEUE_WORKERS, namespace)
        except ApiException as error:
            if error.status == 403:
                raise ListRefused(namespace) from error
            if error.status != 404:
                raise
    return [body for body in found if finalizer.is_held(body)]


async def release(
    cluster: Cluster,
    namespaces: tuple[str, ...],
    lease_namespace: str,
    lease_name: str,
    *,
    notice: float = NOTICE_SECONDS,
    settle: float = SETTLE_SECONDS,
) -> list[Body]:
    """Make the operators stand by, and remove the finalizer from all objects. Returns those that still have it.

    Tasks in flight stay in their journals. Raises as `held`.
    """
    if await _take_lease(cluster, lease_namespace, lease_name):
        log.info("the operators stand by for %d s", STAND_BY_SECONDS)
        await asyncio.sleep(notice)
    left = await held(cluster, namespaces)
    for _ in range(TRIES):
        for body in left:
            await _release(cluster, body)
        await asyncio.sleep(settle)
        left = await held(cluster, namespaces)
        if not left:
            break
    return left


async def _release(cluster: Cluster, body: Body) -> None:
    namespace, name = key_of(body)
    try:
        await cluster.patch_object(namespace, name, finalizer.releasing(body))
    except (ObjectGone, StalePatch):
        return  # the next list shows what it is now
    log.info("%s/%s is released", namespace, name)


async def _take_lease(cluster: Cluster, namespace: str, name: str) -> bool:
    """Take the Lease from whoever holds it. Returns False if there is none, and so no operator."""
    for _ in range(TRIES):
        lease: Any = await cluster.read_lease(namespace, name)
        if lease is None:
            return False
        lease.spec.holder_identity = HOLDER
        lease.spec.lease_duration_seconds = STAND_BY_SECONDS
        try:
            await cluster.write_lease(namespace, lease, create=False)
        except ApiException as error:
            if error.status != 409:
                raise
        else:
            return True
    raise TimeoutError(f"the Lease {namespace}/{name} changed whenever it was written")
