"""Calls to the API server with the rights of the person at the terminal, as JSON in and JSON out."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import aiohttp

from queueworker.cli.plugin import kubeconfig
from queueworker.cli.plugin.problems import Problem

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

    from queueworker.cli.plugin.access import Access

REQUEST_SECONDS = 5.0
MAX_BODY_BYTES = 64 * 1024 * 1024
"""More than 500 objects with 1,000 executors each."""
PAGE_OBJECTS = 500
MANAGER = "kubectl-queueworker"
"""Field manager of what we change, in the object's managedFields."""


class Refused(Problem):
    """The API server answered with an error. The message is the server's own."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{message} (status {status})" if message else f"the API server answered {status}")


class Api:
    """Use with `async with`, which raises Problem if there is no usable kubeconfig.

    `namespace` is that of the option, else of the kubeconfig's context, else `default`.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self.namespace = access.namespace or "default"
        self.server = ""
        self._client: ApiClient | None = None

    async def __aenter__(self) -> Self:
        from kubernetes.aio.client import ApiClient, Configuration  # noqa: PLC0415 -- takes half a second

        configuration = Configuration()
        try:
            self.namespace = await kubeconfig.load(configuration, self._access)
            self._client = ApiClient(configuration)
        except ssl.SSLError as error:
            raise Problem("the kubeconfig's certificates cannot be used: check the files that it names") from error
        self.server = str(configuration.host)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, path: str, **query: str | int) -> Any:
        """Raises Refused, or Problem if the API server cannot be reached."""
        status, body = await self.call("GET", f"{path}?{urlencode(query)}" if query else path)
        return _answer(status, body)

    async def find(self, path: str) -> Any:
        """As `get`; None if there is no such object."""
        try:
            return await self.get(path)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def list(self, path: str) -> list[dict[str, Any]]:
        """All items of a list, read in pages."""
        found: list[dict[str, Any]] = []
        query: dict[str, str | int] = {"limit": PAGE_OBJECTS}
        while True:
            page = await self.get(path, **query)
            found += page.get("items") or []
            if not (token := (page.get("metadata") or {}).get("continue")):
                return found
            query["continue"] = token

    async def patch(self, path: str, change: dict[str, Any]) -> Any:
        """A merge patch; returns the changed object. Refused if the CRD lacks a field of it, which would be dropped."""
        body = await self.call(
            "PATCH",
            f"{path}?fieldManager={MANAGER}&fieldValidation=Strict",
            change,
            content_type="application/merge-patch+json",
        )
        return _answer(*body)

    async def post(self, path: str, document: dict[str, Any]) -> Any:
        return _answer(*await self.call("POST", path, document))

    async def call(
        self, method: str, path: str, document: Any = None, *, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises Problem if there is none."""
        assert self._client is not None
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            _, url, headers, body, _ = await self._client.param_serialize(
                method, path, header_params=headers, body=document, auth_settings=["BearerToken"]
            )
            answer = await self._client.call_api(method, url, headers, body, _request_timeout=REQUEST_SECONDS)
            return int(answer.status), await read(answer.response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Problem(f"the API server {self.server} {why(error)}; check --context and --kubeconfig") from error


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises Problem above MAX_BODY_BYTES."""
    found = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        found += chunk
        if len(found) > MAX_BODY_BYTES:
            raise Problem(f"the answer is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB: name one object")
    return bytes(found)


def why(error: BaseException) -> str:
    """Why there was no answer, as the end of a sentence about the peer."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return f"did not answer within {REQUEST_SECONDS:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "has a certificate that is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "has a name that cannot be looked up"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot be reached: {(os.strerror(error.errno) if error.errno else 'no connection').lower()}"
    return "closed the connection"


def _answer(status: int, body: bytes) -> Any:
    try:
        found = json.loads(body) if body else {}
    except ValueError:
        found = None
    if 200 <= status < 300 and found is not None:
        return found
    message = found.get("message") if isinstance(found, dict) else ""
    raise Refused(status, str(message or ""))
