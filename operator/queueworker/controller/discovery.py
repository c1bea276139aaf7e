"""The ready endpoints of a Service, from its EndpointSlices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueworker.resource.names import SERVICE_NAME_LABEL
from queueworker.routing.config import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from queueworker.resource.spec import ServiceRef


def endpoints(ref: ServiceRef, slices: Iterable[Mapping[str, Any]]) -> list[Endpoint]:
    """The endpoints that are ready and not terminating, without duplicates, sorted by name.

    `ref.port` is the name of a port in the slices, or a port number, which need not appear in them.
    """
    found: dict[str, Endpoint] = {}
    for item in slices:
        port = _port(ref.port, item.get("ports") or ())
        if port is None:
            continue
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            # "unset is to be taken as ready" (discovery.k8s.io/v1, EndpointConditions)
            if conditions.get("ready") is False or conditions.get("terminating"):
                continue
            for address in endpoint.get("addresses") or ():
                host = f"[{address}]" if ":" in address else address
                name = (endpoint.get("targetRef") or {}).get("name") or address
                url = f"http://{host}:{port}"
                found.setdefault(url, Endpoint(name, url))
    return sorted(found.values(), key=lambda e: (e.name, e.url))


def _port(wanted: str, ports: Iterable[Mapping[str, Any]]) -> int | None:
    if wanted.isdigit():
        return int(wanted)
    for port in ports:
        if port.get("name") == wanted:
            number = port.get("port")
            return int(number) if number is not None else None
    return None


class Slices:
    """The EndpointSlices of all watched Services, kept up to date by the watch's events."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}

    def update(self, event: str | None, body: Mapping[str, Any]) -> str:
        """Apply a watch event. Returns the namespace of the slice."""
        meta = body["metadata"]
        key: tuple[str, str] = (meta["namespace"], (meta.get("labels") or {}).get(SERVICE_NAME_LABEL, ""))
        if event == "DELETED":
            self._known.get(key, {}).pop(meta["name"], None)
        else:
            self._known.setdefault(key, {})[meta["name"]] = body
        return key[0]

    def of(self, namespace: str, service: str) -> list[Mapping[str, Any]]:
        return list(self._known.get((namespace, service), {}).values())
