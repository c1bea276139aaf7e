"""Turns an object into what its router needs: a configuration with the Secrets' values, and executor endpoints."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from queueworker.controller import discovery
from queueworker.controller.conditions import Problems
from queueworker.controller.secrets import Secrets
from queueworker.resource.executors_spec import ServiceRef
from queueworker.resource.names import pool_name
from queueworker.resource.reasons import ConditionType, Reason
from queueworker.resource.redis_url import redis_target
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.resource.urls import in_namespace
from queueworker.resource.warnings import warnings
from queueworker.routing.aio import happens
from queueworker.routing.config import Endpoint, RouterConfig, static_endpoints, without_drained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.discovery import Slices
    from queueworker.controller.secrets import SecretValue
    from queueworker.resource.spec import SecretKeyRef
    from queueworker.routing.snapshot import Snapshot

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0
"""An object that is deleted waits so long for an answer of the API server without which nothing can be reported."""
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RouterInputs:
    """`spec` is the object's, or the last valid one; `config` is None if there is nothing that a router could run."""

    problems: Problems
    spec: QueueWorkerSpec | None = None
    config: RouterConfig | None = None
    endpoints: Sequence[Endpoint] = ()
    whole: bool = False
    """Whether the configuration is all of the object's spec, and not partly an earlier one."""

    @property
    def is_awaited(self) -> bool:
        """There is no configuration yet, because the API server has not answered with a Secret, or with the first list
        of slices.
        """
        secret = self.problems.secret
        unread = secret is None or secret.reason is Reason.SECRET_READ_FAILED
        return self.config is None and not self.problems.spec and unread


class InputReader:
    """Reads the inputs of one object's router.

    A part of an edit that cannot be used leaves that part as it was: the whole spec if it is invalid, the queue or
    the Redis if its Secret is missing or unusable. `suspend` is taken from every spec.
    """

    def __init__(
        self,
        namespace: str,
        name: str,
        cluster: Cluster,
        slices: Slices,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._namespace = namespace
        self._name = name
        self._group = f"{namespace}/{name}"
        self._slices = slices
        self._clock = clock
        self._in_pod = cluster.in_pod
        self._secrets = Secrets(namespace, cluster, clock)
        self._spec: QueueWorkerSpec | None = None
        """The last valid one."""
        self._config: RouterConfig | None = None
        """The last one that was made."""
        self._found: Sequence[Endpoint] = ()
        """The last endpoints that were found."""
        self._ignored: frozenset[str] = frozenset()

    async def read(self, body: Mapping[str, Any], snapshot: Snapshot | None) -> RouterInputs:
        """Never fails because of the object or the API server; each problem is in the result."""
        given: Any = body.get("spec") or {}  # an object may be older than its schema
        suspended = isinstance(given, dict) and given.get("suspend") is True
        try:
            self._spec = spec = self._validated(given)
            fault = ""
        except ValidationError as error:
            fault = "; ".join(map(_sentence, error.errors()))
            if self._spec is None:
                return RouterInputs(Problems(spec=fault, suspended=suspended))
            spec = self._spec.model_copy(update={"suspend": self._spec.suspend or suspended})
        key_ref, redis_ref = spec.queue.api_key_secret_ref, spec.events.redis_url_secret_ref
        self._secrets.keep_only([key_ref, redis_ref])
        key = await self._secrets.get(key_ref, _check_key, connected=snapshot is None or not snapshot.queue.is_down)
        redis_url = await self._secrets.get(
            redis_ref, redis_target, connected=snapshot is None or not snapshot.journal.is_down
        )
        endpoints, discovery_fault = self._endpoints(spec)
        problems = Problems(
            spec=fault,
            queue_secret=key.problem,
            redis_secret=redis_url.problem,
            discovery=discovery_fault,
            queue_note=key.note,
            redis_note=redis_url.note,
            warnings=warnings(spec),
            suspended=suspended,
        )
        if endpoints is None and self._config is None:
            return RouterInputs(problems, spec)
        whole = endpoints is not None and not fault and problems.secret is None
        self._found = self._found if endpoints is None else without_drained(endpoints, spec)
        self._config = self._built(spec, key, redis_url)
        return RouterInputs(problems, spec, self._config, self._found, whole)

    async def read_patiently(self, body: Mapping[str, Any], stop: asyncio.Event) -> RouterInputs:
        """As `read`; what the API server does not answer is awaited for a while, or until `stop` is set."""
        self._secrets.keep_only(())  # the next look at one that could not be read may be a minute away
        deadline = self._clock() + ANSWER_SECONDS
        while (inputs := await self.read(body, None)).is_awaited and self._clock() < deadline:
            if await happens(stop, RETRY_SECONDS):
                break
        return inputs

    def _validated(self, given: Mapping[str, Any]) -> QueueWorkerSpec:
        """Fields of a newer CRD are ignored, and named once in the log. Raises ValidationError."""
        try:
            return QueueWorkerSpec.model_validate(given)
        except ValidationError as error:
            unknown = frozenset(_path(e) for e in error.errors() if e["type"] == "extra_forbidden")
            spec = QueueWorkerSpec.model_validate(given, extra="ignore")
        if unknown - self._ignored:
            self._ignored |= unknown
            names = ", ".join(sorted(unknown))
            log.warning("%s: this version does not know %s: ignored; is the CRD newer?", self._group, names)
        return spec

    def _built(self, spec: QueueWorkerSpec, key: SecretValue, redis_url: SecretValue) -> RouterConfig | None:
        """The new configuration, with the queue or Redis of the last one where the Secret cannot be used."""
        last = self._config
        if last is None and (key.problem or redis_url.problem):
            return None
        queue = spec.queue.model_copy(update={"url": self._resolved(spec.queue.url)})
        url = self._resolved(redis_url.value or spec.events.effective_redis_url)
        made = RouterConfig(self._group, spec.model_copy(update={"queue": queue}), url, key.value or None)
        if last is not None and key.problem:
            made = replace(made, spec=made.spec.model_copy(update={"queue": last.spec.queue}), api_key=last.api_key)
        if last is not None and redis_url.problem:
            events = {"events": last.spec.events}
            made = replace(made, spec=made.spec.model_copy(update=events), redis_url=last.redis_url)
        return made

    def _resolved(self, url: str) -> str:
        """Short host names are those of the object's namespace, not of the operator's."""
        return in_namespace(url, self._namespace) if self._in_pod else url

    def _endpoints(self, spec: QueueWorkerSpec) -> tuple[Sequence[Endpoint] | None, str]:
        """The endpoints, and the problem if a Service has none; None before the first list of EndpointSlices."""
        static = static_endpoints(spec)
        if static is not None:
            return [Endpoint(e.name, self._resolved(e.url)) for e in static], ""
        # Not validated: the pool says what is wrong with a name that no Service can have.
        service = spec.executors.service or ServiceRef.model_construct(name=pool_name(self._name))
        slices = self._slices.of(self._namespace, service.name)
        found = discovery.endpoints(service, slices)
        where = f"Service {self._namespace}/{service.name}"
        refused = self._slices.problem(self._namespace)
        if refused:
            advice = "allow list and watch on endpointslices, or name the executors by endpoints"
            return found, f"the EndpointSlices of {where} cannot be watched: {refused}; {advice}"
        if not self._slices.is_listed(self._namespace):
            return None, ""
        managed = spec.executors.template is not None
        if found or (managed and not spec.executors.count):
            return found, ""
        if managed:
            return [], f"no pod of the pool is ready: the condition {ConditionType.POOL_READY} says why"
        if not slices:
            return [], f"{where} has no EndpointSlices: check that it exists and that its selector matches pods"
        return [], f"{where} has no ready endpoint with a port {service.port!r}"


class SecretReader(Protocol):
    """What reads Secrets: the operator's `Cluster`, or a command."""

    in_pod: bool

    async def secret(self, namespace: str, ref: SecretKeyRef) -> str:
        """The value of the key. Raises SecretUnavailable."""
        ...


async def redis_url(cluster: SecretReader, namespace: str, body: Mapping[str, Any]) -> str:
    """The object's Redis.

    Raises ValidationError, SecretUnavailable, InvalidRedisUrl, or one of `cluster.UNREACHABLE`.
    """
    events = QueueWorkerSpec.model_validate(body.get("spec") or {}, extra="ignore").events
    ref = events.redis_url_secret_ref
    url = events.effective_redis_url if ref is None else await cluster.secret(namespace, ref)
    redis_target(url)
    return in_namespace(url, namespace) if cluster.in_pod else url


def _path(error: ErrorDetails) -> str:
    places: Iterable[object] = error["loc"]
    return ".".join(("spec", *map(str, places)))


def _sentence(error: ErrorDetails) -> str:
    return f"{_path(error)}: {error['msg'].removeprefix('Value error, ')}"


def _check_key(key: str) -> None:
    if not (key.isascii() and key.isprintable()):
        raise ValueError("an HTTP header cannot carry it: give the API key in one line of ASCII characters")
