"""Brings the objects of a pool to the API server. What is there and not ours is never touched."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.kinds import PODS, Kind
from queueworker.controller.managed_pool.objects import meddlers, owner_of, taken_over
from queueworker.controller.managed_pool.plan import Deletion
from queueworker.resource.names import FIELD_MANAGER
from queueworker.resource.reasons import Reason

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.managed_pool.objects import Owner
    from queueworker.controller.managed_pool.plan import PoolPod

    Body = dict[str, Any]

SERVICE = Kind("Service", "", "v1", "services")
BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
STATEFUL_SET = Kind("StatefulSet", "apps", "v1", "statefulsets")

MAX_MESSAGE = 700
"""Characters of the API server's words in a condition."""
MAX_DELETIONS = 50
"""Pods that are deleted at the same time."""
_REFUSED = frozenset({400, 422})
_OF_A_POLICY = re.compile(r" is forbidden: | denied (the )?request")
"""Of an admission webhook or a ValidatingAdmissionPolicy, which may answer with any status."""
_APPLY = {"fieldManager": FIELD_MANAGER, "force": "true"}
_CREATE = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
_PATCH = {"fieldManager": FIELD_MANAGER}


class PoolProblem(Exception):
    """The API server refuses. The message says what and why, in a sentence."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Applied(NamedTuple):
    """The object as it is now, and as it was found; None if it was not there. `meddlers`: who had changed it."""

    body: Body
    found: Body | None = None
    meddlers: tuple[str, ...] = ()


class PoolApi:
    """The objects of one QueueWorker. Every call raises `PoolProblem`, or one of `cluster.FAILED`."""

    def __init__(self, cluster: Cluster, owner: Owner) -> None:
        self._cluster = cluster
        self._owner = owner

    async def apply(self, kind: Kind, body: Body) -> Applied:
        """Create the object, or make it what the body says: fields of its spec that somebody added are removed.

        The uid keeps all changes to the object that was seen. ApiException 409: another one has taken its place, or
        the object has changed meanwhile.
        """
        name = body["metadata"]["name"]
        live = await self._read(kind, name)
        if live is None:
            return Applied(await self._create(kind, body))
        self._refuse_foreign(kind, live)
        who, fields = tuple(meddlers(live)), taken_over(live)
        if fields != live["metadata"].get("managedFields", []):
            await self._take_over(kind, live, fields)
        own = body | {"metadata": body["metadata"] | {"uid": live["metadata"]["uid"]}}
        return Applied(await self._request("PATCH", kind, name, own, "apply-patch+yaml", **_APPLY), live, who)

    async def delete(self, kind: Kind, name: str) -> None:
        """Delete the object if it is there and ours, and by garbage collection all that it controls."""
        live = await self._read(kind, name)
        if live is None or owner_of(live) != self._owner.uid:
            return
        await self._delete(kind, name, {"uid": live["metadata"]["uid"]})

    async def delete_pod(self, deletion: Deletion) -> None:
        """Delete this very pod, and no other one that has its name by now."""
        grace = {"gracePeriodSeconds": 1} if deletion.now else {}
        await self._delete(PODS, deletion.pod.name, {"uid": deletion.pod.uid}, **grace)

    async def end_pods(self, pods: Iterable[PoolPod], ends: Counter[str]) -> None:
        """Delete pods that have nothing to finish, many at a time: the first one must not be made again meanwhile.

        `ends` counts the deletions by the name of the pod, also those that failed. At the end, the first failure is
        raised.
        """
        places = asyncio.Semaphore(MAX_DELETIONS)

        async def end(pod: PoolPod) -> None:
            async with places:
                ends[pod.name] += 1
                await self.delete_pod(Deletion(pod, now=True))

        # Not by a TaskGroup: before Python 3.13, a child that fails leaves its parent's task with a request to cancel.
        ended = await asyncio.gather(*map(end, pods), return_exceptions=True)
        for error in filter(None, ended):
            raise error

    async def _read(self, kind: Kind, name: str) -> Body | None:
        """An empty patch changes nothing and returns the object, so the operator needs no right to read Services."""
        try:
            return await self._request("PATCH", kind, name, {}, "merge-patch+json", **_PATCH)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def _create(self, kind: Kind, body: Body) -> Body:
        """An apply would change an object of that name that has appeared since the look; a POST is answered with 409.

        The dry run finds what only an apply refuses, such as two variables of one name: all later changes are applies.
        """
        name = body["metadata"]["name"]
        await self._request("PATCH", kind, name, body, "apply-patch+yaml", **_APPLY, dryRun="All")
        return await self._request("POST", kind, "", body, "json", **_CREATE)

    async def _take_over(self, kind: Kind, live: Body, fields: list[Body]) -> None:
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/metadata/managedFields", "value": fields},
        ]
        await self._request("PATCH", kind, live["metadata"]["name"], patch, "json-patch+json", **_PATCH)

    async def _delete(self, kind: Kind, name: str, preconditions: Mapping[str, str], **options: Any) -> None:
        body = {"preconditions": dict(preconditions), "propagationPolicy": "Background"} | options
        try:
            await self._request("DELETE", kind, name, body, "json")
        except ApiException as error:
            if error.status not in {404, 409}:  # gone, or another one of that name
                raise

    def _refuse_foreign(self, kind: Kind, live: Body) -> None:
        if owner_of(live) != self._owner.uid:
            where = f"{kind.name} {self._owner.namespace}/{live['metadata']['name']}"
            text = (
                f"{where} is there and does not belong to this QueueWorker: delete it, or give the object another name"
            )
            raise PoolProblem(Reason.NAME_TAKEN, text)

    async def _request(self, method: str, kind: Kind, name: str, body: Any, content: str, **query: str) -> Body:
        try:
            return await self._cluster.request(
                method, kind, self._owner.namespace, name, body=body, content_type=f"application/{content}", query=query
            )
        except ApiException as error:
            problem = _problem(error)
            raise error if problem is None else problem from error


def _problem(error: ApiException) -> PoolProblem | None:
    """What the API server says about our objects; None if it says something about itself."""
    message = _message(error)
    if error.status == 403 or (error.status in _REFUSED and _OF_A_POLICY.search(message)):
        return PoolProblem(Reason.NOT_PERMITTED, message)
    if error.status in _REFUSED or (error.status == 500 and "typed" in message):
        return PoolProblem(Reason.INVALID_TEMPLATE, message)
    return None


def _message(error: ApiException) -> str:
    try:
        text = str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        text = f"{error.status} {error.reason or ''}".strip()
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} …"
