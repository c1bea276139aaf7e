"""Calls to the API server that kopf does not offer. They have no logic of their own."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import kopf
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.api_failures import answer_of, failure_of
from queueworker.controller.kinds import CRDS, EVENTS, QUEUE_WORKERS, SECRETS
from queueworker.resource import names
from queueworker.resource.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queueworker.controller.kinds import Kind
    from queueworker.resource.spec import SecretKeyRef
    from queueworker.web.source import ApiFailure

REQUEST_SECONDS = 5.0
# When hundreds of objects start at once, all of them write status. More concurrent writes slow the API server down so
# much that they time out, and with them the renewal of the Lease.
MAX_STATUS_WRITES = 8
PAGE_OBJECTS = 100
"""Objects in one answer to a list: a long answer would keep the event loop busy for too long."""
RELOAD_SECONDS = 2.0
"""Shortest time between two readings of the credentials after a 401."""
# The errors of a call while the API server is away: connection refused, broken or too slow.
UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)
FAILED = (ApiException, *UNREACHABLE)
_UNREADABLE = (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError)  # a kubeconfig


class SecretUnavailable(Exception):
    """The Secret gives no value: it or its key does not exist, it cannot be read, or the value is not text. The message
    names both; `reason` is that of the conditions.
    """

    def __init__(self, message: str, reason: Reason = Reason.SECRET_NOT_FOUND) -> None:
        super().__init__(message)
        self.reason = reason


class ObjectGone(Exception):
    """The QueueWorker does not exist any more."""


class StalePatch(Exception):
    """The object has changed since it was read: read it again."""


def reason_of(error: BaseException) -> str:
    """What the API server answered, or why there was no answer, in a few words and without the answer's text."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason or ''}".strip()
    code = getattr(error, "code", None)  # kopf's
    return f"{code} {type(error).__name__}" if code else f"{type(error).__name__}: {error}".removesuffix(": ")


class Cluster:
    """Use with `async with`. `on_answer` is called after every success of a call, because only that shows that the API
    server is there for us: a refusal (401, 403) is as good as no answer. `on_failure` is called after all others.

    `in_pod`: we run in the cluster, so its names of Services can be looked up.
    """

    def __init__(
        self,
        on_answer: Callable[[], None],
        on_failure: Callable[[ApiFailure], None] = lambda _failure: None,
        *,
        in_pod: bool = False,
    ) -> None:
        self.in_pod = in_pod
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._api: client.ApiClient | None = None
        self._status_writes = asyncio.Semaphore(MAX_STATUS_WRITES)
        self._loaded_at = float("-inf")

    async def __aenter__(self) -> Self:
        configuration = client.Configuration()
        configuration.client_session_kwargs = {"trust_env": False}  # no client of ours reads HTTPS_PROXY and the like
        await _load(configuration)
        self._api = client.ApiClient(configuration)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]

    async def connection(self) -> kopf.ConnectionInfo:
        """Address and credentials, for kopf: the same as ours, so that both are refused or neither is."""
        assert self._api is not None
        used = self._api.configuration
        scheme, _, token = (await used.get_api_key_with_prefix("BearerToken") or "").partition(" ")
        return kopf.ConnectionInfo(
            server=used.host,
            ca_path=used.ssl_ca_cert,
            ca_data=used.ca_cert_data,
            insecure=not used.verify_ssl,
            username=used.username,
            password=used.password,
            scheme=scheme or None,
            token=token.strip() or None,
            certificate_path=used.cert_file,
            private_key_path=used.key_file,
            proxy_url=used.proxy,
        )

    # --- objects

    async def secret(self, namespace: str, ref: SecretKeyRef) -> str:
        """Returns the value of the key. Raises `SecretUnavailable` or one of `UNREACHABLE`."""
        where = f"Secret {namespace}/{ref.name}"
        try:
            secret = await self._call(self._ask, "GET", SECRETS.path(namespace, ref.name))
        except ApiException as error:
            if error.status == 404:
                raise SecretUnavailable(f"{where} does not exist: create it with the key {ref.key}") from error
            advice = ": allow the operator to get it (rbac.secrets of the chart)" if error.status == 403 else ""
            text = f"{where} cannot be read: {reason_of(error)}{advice}"
            raise SecretUnavailable(text, Reason.SECRET_READ_FAILED) from error
        value = (secret.get("data") or {}).get(ref.key)
        if value is None:
            raise SecretUnavailable(f"{where} has no key {ref.key}: add the key, or change the reference")
        try:
            return base64.b64decode(value).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            text = f"{where}: the value of {ref.key} cannot be used: it is not UTF-8 text"
            raise SecretUnavailable(text, Reason.INVALID_SECRET) from error

    async def patch_status(self, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Apply a merge patch to the status; waits for a free place. Raises `ObjectGone` or one of `FAILED`."""
        async with self._status_writes:
            try:
                await self._patch(f"{QUEUE_WORKERS.path(namespace, name)}/status", {"status": status})
            except ApiException as error:
                # A CRD without the status subresource is answered in the same words.
                if _is_gone(error, name) and await self.read_object(namespace, name) is None:
                    raise ObjectGone(name) from error
                raise

    async def patch_object(
        self, namespace: str, name: str, patch: Sequence[dict[str, Any]] | dict[str, Any]
    ) -> dict[str, Any]:
        """Apply a JSON patch (a list) or a merge patch, and return the object.

        Raises `ObjectGone`, `StalePatch` if one of the patch's tests failed, or one of `FAILED`.
        """
        try:
            return await self._patch(QUEUE_WORKERS.path(namespace, name), patch)
        except ApiException as error:
            raise _explained(error, name) from error

    async def create_object(self, namespace: str, body: dict[str, Any]) -> None:
        """Create a QueueWorker. Raises one of `FAILED`."""
        await self._call(self._ask, "POST", QUEUE_WORKERS.path(namespace), body=body)

    async def delete_object(self, namespace: str, name: str) -> None:
        """Delete a QueueWorker; it goes when its finalizer does. Raises `ObjectGone` or one of `FAILED`."""
        try:
            await self._call(self._ask, "DELETE", QUEUE_WORKERS.path(namespace, name))
        except ApiException as error:
            raise _explained(error, name) from error

    async def read_object(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Returns the QueueWorker, or None if there is none. Raises one of `FAILED`. Lists, for want of a right."""
        found = await self._page(QUEUE_WORKERS, namespace, limit=1, fieldSelector=f"metadata.name={name}")
        items: list[dict[str, Any]] = found["items"]
        return items[0] if items else None

    async def list_all(self, kind: Kind, namespace: str) -> list[dict[str, Any]]:
        """Returns all objects of the kind; with an empty namespace, of all namespaces. Raises one of `FAILED`."""
        found: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = await self._page(kind, namespace, limit=PAGE_OBJECTS, **more)
            found += map(kind.trim, page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return found
            more = {"continue": token}

    async def probe(self, kind: Kind, namespace: str) -> None:
        """Ask for one object. Raises one of `FAILED` if the kind, the right or the API server is missing."""
        await self._page(kind, namespace, limit=1)

    async def is_served(self, kind: Kind) -> bool:
        """Whether the API server's discovery names the kind: kopf looks there, and only once. Raises `FAILED`."""
        found = await self._call(self._ask, "GET", kind.api)
        return any(resource["name"] == kind.plural for resource in found["resources"])

    async def request(
        self,
        method: str,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        body: Any,
        content_type: str,
        query: Mapping[str, str],
    ) -> dict[str, Any]:
        """Make a call about one object, and return the answer. Raises one of `FAILED`."""
        found: dict[str, Any] = await self._call(
            self._ask, method, kind.path(namespace, name), query=query, body=body, content_type=content_type
        )
        return found

    async def crd_uid(self) -> str:
        """Returns the uid of the CRD. Raises one of `FAILED`."""
        found = await self._call(self._ask, "GET", CRDS.path("", f"{names.PLURAL}.{names.GROUP}"))
        return str(found["metadata"]["uid"])

    async def write_event(self, namespace: str, event: dict[str, Any], *, create: bool) -> None:
        """Create a Kubernetes Event, or apply a merge patch to the one of the same name. Raises one of `FAILED`."""
        if create:
            await self._call(self._ask, "POST", EVENTS.path(namespace), body=event)
        else:
            changed = {key: event[key] for key in ("count", "lastTimestamp", "message")}
            await self._patch(EVENTS.path(namespace, event["metadata"]["name"]), changed)

    # --- the Lease

    async def read_lease(self, namespace: str, name: str) -> Any:
        """Returns the V1Lease, or None if it does not exist yet. Raises one of `FAILED`."""
        try:
            lease = await self._call(client.CoordinationV1Api(self._api).read_namespaced_lease, name, namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        lease.spec = lease.spec or client.V1LeaseSpec()
        return lease

    async def write_lease(self, namespace: str, lease: Any, *, create: bool) -> Any:
        """Create or replace the Lease. Raises one of `FAILED`; if another replica wrote it first, ApiException 409."""
        api = client.CoordinationV1Api(self._api)
        if create:
            return await self._call(api.create_namespaced_lease, namespace, lease)
        return await self._call(api.replace_namespaced_lease, lease.metadata.name, namespace, lease)

    # --- calling

    async def _patch(self, path: str, patch: Sequence[dict[str, Any]] | dict[str, Any]) -> dict[str, Any]:
        """A JSON patch (a list) or a merge patch. Returns the object."""
        content = "merge-patch" if isinstance(patch, dict) else "json-patch"
        found: dict[str, Any] = await self._call(
            self._ask, "PATCH", path, body=patch, content_type=f"application/{content}+json"
        )
        return found

    async def _page(self, kind: Kind, namespace: str, **options: Any) -> dict[str, Any]:
        if kind.label:
            options["labelSelector"] = kind.label
        found: dict[str, Any] = await self._call(self._ask, "GET", kind.path(namespace), query=options)
        return found

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        _request_timeout: float,
    ) -> Any:
        """A call in JSON, both ways. The client's own methods make models of what they get, which takes longer; and to
        import those of CoreV1Api would keep the event loop busy for a second of CPU time.
        """
        assert self._api is not None
        headers = {"Accept": "application/json", "Content-Type": content_type}
        call = await self._api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = await self._api.call_api(*call, _request_timeout=_request_timeout)
        await answer.read()  # type: ignore[no-untyped-call]
        return self._api.response_deserialize(answer, {"2XX": "object"}).data

    async def _call(self, verb: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            answer = await answer_of(verb(*args, _request_timeout=REQUEST_SECONDS, **options))
        except FAILED as error:
            self._on_failure(failure_of(error))
            if isinstance(error, ApiException) and error.status == 401:
                await self._reload()
            raise
        self._on_answer()
        return answer

    async def _reload(self) -> None:
        """Read the credentials again: they were refused, and the next call may find others."""
        now = time.monotonic()
        if self._api is None or now - self._loaded_at < RELOAD_SECONDS:
            return
        self._loaded_at = now
        try:
            await config.load_config(client_configuration=self._api.configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, *_UNREADABLE):
            return  # the file is being written: the next 401 reads it again


async def _load(configuration: client.Configuration) -> None:
    """Raises ConfigException with a message for people."""
    path = os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a pod has no kubeconfig
            await config.load_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise config.ConfigException(_unusable(path)) from error
    except _UNREADABLE as error:
        raise config.ConfigException(f"the kubeconfig {path} cannot be read: it must be YAML of kind Config") from error


def _unusable(path: str) -> str:
    if any(Path(os.path.expanduser(name)).exists() for name in path.split(os.pathsep)):  # noqa: PTH111 -- never raises
        return f"the kubeconfig {path} has no context that can be used"
    return f"there is no kubeconfig at {path}"


def _explained(error: ApiException, name: str) -> Exception:
    """A 404 that is about the object itself, not about its kind: that one may be missing for a moment. A patch whose
    tests fail is answered with 422.
    """
    if _is_gone(error, name):
        return ObjectGone(name)
    return StalePatch(name) if error.status in {409, 422} else error


def _is_gone(error: ApiException, name: str) -> bool:
    try:
        return error.status == 404 and bool(json.loads(error.body or "")["details"]["name"] == name)
    except (ValueError, TypeError, KeyError):
        return False
