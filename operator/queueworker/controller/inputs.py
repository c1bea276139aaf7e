"""Turns an object into what its router needs: a configuration with the Secrets' values, and executor endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from queueworker.controller import discovery
from queueworker.controller.cluster import SecretNotFound
from queueworker.controller.conditions import Problems
from queueworker.resource.redis_url import redis_target
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import RouterConfig, static_endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.discovery import Slices
    from queueworker.resource.spec import SecretKeyRef
    from queueworker.routing.config import Endpoint


@dataclass(frozen=True, slots=True)
class RouterInputs:
    """`spec` is None if the object's spec is invalid, `config` is None if a problem rules out a router."""

    problems: Problems
    spec: QueueWorkerSpec | None = None
    config: RouterConfig | None = None
    endpoints: Sequence[Endpoint] = ()


class InputReader:
    """Reads the inputs of one object's router. A Secret is read once, and again on request."""

    def __init__(self, namespace: str, name: str, cluster: Cluster, slices: Slices) -> None:
        self._namespace = namespace
        self._name = name
        self._cluster = cluster
        self._slices = slices
        self._secrets: dict[SecretKeyRef, str] = {}

    async def read(self, body: Mapping[str, Any], *, reread_secrets: bool) -> RouterInputs:
        """Never fails because of the object; each problem is in the result. Raises one of `cluster.UNREACHABLE`."""
        try:
            spec = QueueWorkerSpec.model_validate(body.get("spec") or {})
        except ValidationError as error:
            text = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            return RouterInputs(Problems(spec=text))
        key, key_problem = await self._secret(spec.queue.api_key_secret_ref, _check_key, reread_secrets)
        redis_url, redis_problem = await self._secret(spec.events.redis_url_secret_ref, redis_target, reread_secrets)
        endpoints, discovery_problem = self._endpoints(spec)
        if endpoints is None:
            return RouterInputs(Problems(), spec)
        problems = Problems(queue_secret=key_problem, redis_secret=redis_problem, discovery=discovery_problem)
        if key_problem or redis_problem:
            return RouterInputs(problems, spec)
        group = f"{self._namespace}/{self._name}"
        config = RouterConfig(group, spec, redis_url or spec.events.effective_redis_url, key)
        return RouterInputs(problems, spec, config, endpoints)

    async def _secret(
        self, ref: SecretKeyRef | None, check: Callable[[str], object], reread: bool
    ) -> tuple[str | None, str]:
        """The value and an empty text, or None and the problem. A value that was read once outlives its Secret.

        `check` raises ValueError for a value that cannot be used; its message shows nothing of the value.
        """
        if ref is None:
            return None, ""
        if ref not in self._secrets or reread:
            try:
                self._secrets[ref] = await self._cluster.secret(self._namespace, ref)
            except SecretNotFound as error:
                if ref not in self._secrets:
                    return None, str(error)
        value = self._secrets[ref]
        try:
            check(value)
        except ValueError as error:
            return None, f"Secret {self._namespace}/{ref.name}: the value of {ref.key} cannot be used: {error}"
        return value, ""

    def _endpoints(self, spec: QueueWorkerSpec) -> tuple[Sequence[Endpoint] | None, str]:
        """The endpoints, and the problem if a Service has none; None before the first list of EndpointSlices."""
        static = static_endpoints(spec)
        if static is not None:
            return static, ""
        service = spec.executors.service
        assert service is not None
        slices = self._slices.of(self._namespace, service.name)
        found = discovery.endpoints(service, slices)
        where = f"Service {self._namespace}/{service.name}"
        refused = self._slices.problem(self._namespace)
        if refused:
            advice = "allow list and watch on endpointslices, or name the executors by endpoints"
            return found, f"the EndpointSlices of {where} cannot be watched: {refused}; {advice}"
        if not self._slices.is_listed(self._namespace):
            return None, ""
        if found:
            return found, ""
        if not slices:
            return [], f"{where} has no EndpointSlices: check that it exists and that its selector matches pods"
        return [], f"{where} has no ready endpoint with a port {service.port!r}"


def _check_key(key: str) -> None:
    if not (key.isascii() and key.isprintable()):
        raise ValueError("an HTTP header cannot carry it: give the API key in one line of ASCII characters")
