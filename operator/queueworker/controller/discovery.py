"""The ready endpoints of a Service, from its EndpointSlices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from queueworker.controller.watches import key_of
from queueworker.resource.names import SERVICE_NAME_LABEL
from queueworker.resource.urls import host_in_url
from queueworker.routing.config import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from queueworker.controller.watches import Body, Key
    from queueworker.resource.executors_spec import ServiceRef


class Slice(NamedTuple):
    """What is kept of an EndpointSlice. A cluster has thousands, and the most of each is of no use here."""

    service: str
    ports: tuple[tuple[str, int | None], ...]
    ready: tuple[tuple[str, str], ...]
    """Name (the pod's, else the address) and address of each endpoint that is ready and not terminating."""
    unready: tuple[tuple[str, str], ...]
    """The same of the others."""


def read_slice(body: Mapping[str, Any]) -> Slice:
    ports = tuple((port.get("name") or "", port.get("port")) for port in body.get("ports") or ())
    labels = (body.get("metadata") or {}).get("labels") or {}
    found = body.get("endpoints") or ()
    ready = tuple(_addresses(endpoint for endpoint in found if _is_ready(endpoint)))
    unready = tuple(_addresses(endpoint for endpoint in found if not _is_ready(endpoint)))
    return Slice(str(labels.get(SERVICE_NAME_LABEL, "")), ports, ready, unready)


def _is_ready(endpoint: Mapping[str, Any]) -> bool:
    """Whether it may get tasks: "unset is to be taken as ready" (discovery.k8s.io/v1, EndpointConditions)."""
    conditions = endpoint.get("conditions") or {}
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _addresses(found: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for endpoint in found:
        name = (endpoint.get("targetRef") or {}).get("name")
        for address in endpoint.get("addresses") or ():
            yield name or address, address


def _port(ref: ServiceRef, item: Slice) -> int | None:
    return int(ref.port) if ref.port.isdigit() else dict(item.ports).get(ref.port)


def endpoints(ref: ServiceRef, slices: Iterable[Slice]) -> list[Endpoint]:
    """The endpoints that may get tasks, without duplicates, sorted by name.

    `ref.port` is the name of a port in the slices, or a port number, which need not appear in them. A dual-stack
    Service has slices of both families with the same pods: each pod counts once, by its IPv4 address.
    """
    served = [(item, port) for item in slices if (port := _port(ref, item)) is not None]
    by_ipv4 = {name for item, _ in served for name, address in item.ready + item.unready if ":" not in address}
    found: dict[str, Endpoint] = {}
    for item, port in served:
        for name, address in item.ready:
            if ":" in address and name in by_ipv4:  # also while only the IPv4 slice says yet that the pod is not ready
                continue
            url = f"http://{host_in_url(address)}:{port}"
            found.setdefault(url, Endpoint(name, url))
    return sorted(found.values(), key=lambda e: (e.name, e.url))


class Slices:
    """The EndpointSlices of all watched Services. `on_change` is called with the namespace in which some changed."""

    def __init__(self, on_change: Callable[[str], None] = lambda _: None) -> None:
        self._on_change = on_change
        self._known: dict[Key, Slice] = {}
        self._by_service: dict[tuple[str, str], dict[str, Slice]] = {}
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

    def of(self, namespace: str, service: str) -> list[Slice]:
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
            service = key[0], old.service
            del self._by_service[service][key[1]]
            if not self._by_service[service]:
                del self._by_service[service]
        if body is not None:
            kept = self._known[key] = read_slice(body)
            self._by_service.setdefault((key[0], kept.service), {})[key[1]] = kept
