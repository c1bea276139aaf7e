"""What a router is told: the object's spec with its secrets resolved, and where its executors are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from queueworker.redaction import without_credentials
from queueworker.resource.redis_url import same_server
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.resource.urls import normal, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence


class Intent(StrEnum):
    """What the object asks of its router. Everything but ROUTE drains, then pulls nothing and stays warm."""

    ROUTE = "Routing"
    STANDBY = "Standby"
    SUSPEND = "Suspended"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One executor: its name in status and metrics, and the URL in front of `/execute` and `/health`."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """All that a running router may be told anew with `Router.apply`.

    `group` names the journals that belong together: the routers of one group recover each other's
    tasks, so it is the same before and after a restart (`namespace/name` of the object).
    """

    group: str
    spec: QueueWorkerSpec
    redis_url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)

    def has_queue_of(self, other: RouterConfig) -> bool:
        """Whether the queue is the same. Its key may differ."""
        return self.spec.queue.url == other.spec.queue.url

    def has_redis_of(self, other: RouterConfig) -> bool:
        """Whether Redis is the same. Its user and password may differ."""
        return same_server(self.redis_url, other.redis_url)

    def has_peers_of(self, other: RouterConfig) -> bool:
        return self.has_queue_of(other) and self.has_redis_of(other)

    def at(self, other: RouterConfig) -> RouterConfig:
        """For the router of another configuration: it keeps its queue, and its Redis, where these are not the same."""
        found = self
        if not self.has_queue_of(other):
            spec = found.spec.model_copy(update={"queue": other.spec.queue})
            found = replace(found, spec=spec, api_key=other.api_key)
        if not self.has_redis_of(other):
            spec = found.spec.model_copy(update={"events": other.spec.events})
            found = replace(found, spec=spec, redis_url=other.redis_url)
        return found

    @property
    def intent(self) -> Intent:
        return intent(self.spec)


def intent(spec: QueueWorkerSpec) -> Intent:
    """Suspension is stronger than the migration flags; `forceLegacyQueue` is stronger than the percentage."""
    if spec.suspend:
        return Intent.SUSPEND
    if spec.migration.celery_percent >= 100 and not spec.migration.force_legacy_queue:
        return Intent.STANDBY
    return Intent.ROUTE


def static_endpoints(spec: QueueWorkerSpec) -> Sequence[Endpoint] | None:
    """The executors that the spec itself names, or None when a Service's endpoints have to be watched."""
    executors = spec.executors
    if executors.service is not None or executors.template is not None:
        return None
    if executors.endpoints:
        spellings: dict[str, str] = {}
        for url in executors.endpoints:
            spellings.setdefault(normal(url), url)
        return [Endpoint(_name(spelling), url) for url, spelling in spellings.items()]
    numbers = range(1, executors.count + 1)
    return [Endpoint(f"executor-{n}", numbered(executors.base_url, n, executors.port)) for n in numbers]


def without_drained(endpoints: Sequence[Endpoint], spec: QueueWorkerSpec) -> Sequence[Endpoint]:
    """The executors that get tasks. The router treats the others as it does all that leave the pool."""
    drained = set(spec.executors.drained)
    return [endpoint for endpoint in endpoints if endpoint.name not in drained]


def _name(url: str) -> str:
    """As it is written, so that metrics keep their labels."""
    return without_credentials(url).split("://", 1)[1].rstrip("/")
