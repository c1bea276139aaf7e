"""Calls to the API server that kopf does not offer. They have no logic of their own."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from queueworker.resource import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from queueworker.resource.spec import SecretKeyRef

REQUEST_SECONDS = 5.0
# When hundreds of objects start at once, all of them write status. More concurrent writes slow the API server down so
# much that they time out, and with them the renewal of the Lease.
MAX_STATUS_WRITES = 8
# The errors of a call while the API server is away: connection refused, broken or too slow.
UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)
FAILED = (ApiException, *UNREACHABLE)


class SecretNotFound(Exception):
    """The Secret or its key does not exist or cannot be read. The message names both."""


class Cluster:
    """Use with `async with`. `on_answer` is called after every answer of the API server, also after an error.

    `in_pod`: we run in the cluster, so its names of Services can be looked up.
    """

    def __init__(self, on_answer: Callable[[], None], *, in_pod: bool = False) -> None:
        self.in_pod = in_pod
        self._on_answer = on_answer
        self._api: client.ApiClient | None = None
        self._status_writes = asyncio.Semaphore(MAX_STATUS_WRITES)

    async def __aenter__(self) -> Self:
        await config.load_config()  # type: ignore[no-untyped-call]
        self._api = client.ApiClient()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]

    async def secret(self, namespace: str, ref: SecretKeyRef) -> str:
        """Returns the value of the key. Raises `SecretNotFound` or one of `UNREACHABLE`."""
        where = f"Secret {namespace}/{ref.name}"
        try:
            secret = await self._call(client.CoreV1Api(self._api).read_namespaced_secret, ref.name, namespace)
        except ApiException as error:
            if error.status == 404:
                raise SecretNotFound(f"{where} does not exist: create it with the key {ref.key}") from error
            raise SecretNotFound(f"{where} cannot be read: {error.status} {error.reason}") from error
        value = (secret.data or {}).get(ref.key)
        if value is None:
            raise SecretNotFound(f"{where} has no key {ref.key}: add the key, or change the reference")
        try:
            return base64.b64decode(value).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SecretNotFound(f"{where}: the value of {ref.key} is not UTF-8 text") from error

    async def patch_status(self, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Apply a merge patch to the object's status; waits for a free place. Raises one of `FAILED`."""
        async with self._status_writes:
            await self._call(
                client.CustomObjectsApi(self._api).patch_namespaced_custom_object_status,
                *(names.GROUP, names.VERSION, namespace, names.PLURAL, name),
                {"status": status},
                _content_type="application/merge-patch+json",
            )

    async def can_watch(self, namespaces: tuple[str, ...]) -> None:
        """List as the watch does. Raises one of `FAILED` if the CRD, the permission or the API server is missing."""
        api = client.CustomObjectsApi(self._api)
        kind = (names.GROUP, names.VERSION)
        if not namespaces:
            await self._call(api.list_cluster_custom_object, *kind, names.PLURAL, limit=1)
        for namespace in namespaces:
            await self._call(api.list_namespaced_custom_object, *kind, namespace, names.PLURAL, limit=1)

    async def read_lease(self, namespace: str, name: str) -> Any:
        """Returns the V1Lease, or None if it does not exist yet. Raises one of `FAILED`."""
        try:
            return await self._call(client.CoordinationV1Api(self._api).read_namespaced_lease, name, namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def write_lease(self, namespace: str, lease: Any, *, create: bool) -> Any:
        """Create or replace the Lease. Raises one of `FAILED`; if another replica wrote it first, ApiException 409."""
        api = client.CoordinationV1Api(self._api)
        if create:
            return await self._call(api.create_namespaced_lease, namespace, lease)
        return await self._call(api.replace_namespaced_lease, lease.metadata.name, namespace, lease)

    async def _call(self, verb: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            answer = await verb(*args, _request_timeout=REQUEST_SECONDS, **options)
        except ApiException:
            self._on_answer()
            raise
        self._on_answer()
        return answer
