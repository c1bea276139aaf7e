"""The ready endpoints of a Service, from its EndpointSlices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueworker.controller.watches import key_of
from queueworker.resource.names import SERVICE_NAME_LABEL
from queueworker.routing.config import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from queueworker.controller.watches import Body, Key
    from queueworker.resource.executors import ServiceRef


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
    """The EndpointSlices of all watched Services. `on_change` is called with the namespace in which some changed."""

    def __init__(self, on_change: Callable[[str], None] = lambda _: None) -> None:
        self._on_change = on_change
        self._known: dict[Key, Body] = {}
        self._by_service: dict[tuple[str, str], dict[str, Body]] = {}
        """The slices of a Service by their names; the key is the namespace and the name of the Service."""
        self._listed: set[str] = set()
        """The namespaces of which there was a complete list; an empty name stands for all."""
        self._problems: dict[str, str] = {}
        """Why the watch of a namespace does not work; an empty name stands for all."""

    # --- what the watch tells

    def changed(self, event: str | None, body: Body) -> None:
        self._apply(key_of(body), None if event == "DELETED" else body)
        self._on_change(key_of(body)[0])

    def listed(self, namespace: str, bodies: Sequence[Body], newer: Collection[Key]) -> None:
        """What is not in the list any more is gone, also if the watch did not say so."""
        found = {key_of(body): body for body in bodies}
        missing = [key for key in self._known if namespace in {"", key[0]} and key not in found]
        for key in {*missing, *found} - set(newer):
            self._apply(key, found.get(key))
        self._listed.add(namespace)
        self._on_change(namespace)

    def watch_changed(self, namespace: str, problem: str) -> None:
        self._problems[namespace] = problem
        self._on_change(namespace)

    # --- what the objects ask

    def of(self, namespace: str, service: str) -> list[Body]:
        return list(self._by_service.get((namespace, service), {}).values())

    def is_listed(self, namespace: str) -> bool:
        """Whether there was a complete list; before that, a Service without slices says nothing."""
        return namespace in self._listed or "" in self._listed

    def problem(self, namespace: str) -> str:
        """Why the slices cannot be watched, in a few words; empty if they can."""
        return self._problems.get(namespace) or self._problems.get("") or ""

    def _apply(self, key: Key, body: Body | None) -> None:
        """Keep the slice as it is now; None: it is gone."""
        old = self._known.pop(key, None)
        if old is not None:
            self._by_service[key[0], _service_of(old)].pop(key[1], None)
        if body is not None:
            self._known[key] = body
            self._by_service.setdefault((key[0], _service_of(body)), {})[key[1]] = body


def _service_of(body: Body) -> str:
    return str((body["metadata"].get("labels") or {}).get(SERVICE_NAME_LABEL, ""))
