"""`check`: reads what the findings are made of. What may not be read is a finding too, never the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from queueworker import __version__
from queueworker.cli.plugin import findings, objects
from queueworker.cli.plugin.api import Api, Refused
from queueworker.cli.plugin.findings import Finding, Right
from queueworker.cli.plugin.live import DEFAULT_OPERATOR, Operator
from queueworker.cli.plugin.values import Level
from queueworker.cli.plugin.view import view
from queueworker.resource import names
from queueworker.resource.crd import crd as our_crd
from queueworker.resource.redis_url import DEFAULT_REDIS_URL
from queueworker.resource.urls import in_namespace, numbered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queueworker.cli.plugin.access import Access
    from queueworker.cli.plugin.live import Live

_CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.PLURAL}.{names.GROUP}"
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RENEWAL_SECONDS = 4.0
"""Within this time a leader has renewed its Lease."""
MAX_OBJECTS = 100
"""Objects that are checked; their names are enough to check the others."""


async def check(access: Access, name: str | None) -> list[Finding]:
    """Check the operator, and the object of that name, or all objects of the namespace. Raises Problem."""
    async with Api(access) as api:
        operator = Operator(api, access.operator)
        live, schema, lead = await asyncio.gather(look(api, operator), _crd(api), leader(api, operator))
        found = [schema, lead]
        if schema.level is Level.ERROR:
            return found
        found.append(findings.operator(live, __version__))
        bodies = [await objects.one(api, name)] if name else await objects.some(api, everywhere=access.all_namespaces)
        if not bodies:
            where = "the cluster" if access.all_namespaces else f"the namespace {api.namespace}"
            advice = "`kubectl apply -f manifests/samples/minimal.yaml`, or see `kubectl get qw -A`"
            found.append(Finding(Level.WARNING, "objects", f"there is no QueueWorker in {where}", advice))
        account = await _account(api, operator)
        spaces = sorted({body["metadata"]["namespace"] for body in bodies})[:MAX_OBJECTS]
        for space in spaces:
            wanted = (*findings.RIGHTS, *_secret_rights(bodies, space))
            found.append(findings.rights(await _refused(api, account, space, wanted), account, space))
        for body in bodies[:MAX_OBJECTS]:
            found += await _object(api, body, live)
        return found


# --- the operator


async def _crd(api: Api) -> Finding:
    served = await api.find(f"/apis/{names.GROUP}/{names.VERSION}")
    found = await _allowed(api, _CRD)
    schema = None if not found else _schema(found)
    ours = our_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return findings.crd(served is not None, schema, ours)


def _schema(crd: dict[str, Any]) -> dict[str, Any] | None:
    for version in crd["spec"]["versions"]:
        if version["name"] == names.VERSION:
            schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
            return schema
    return None


async def leader(api: Api, operator: Operator) -> Finding:
    """What the operator's Lease says. It has the name of the Service."""
    where = operator.where if operator.namespace else DEFAULT_OPERATOR
    namespace, _, name = where.partition("/")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    try:
        lease = await api.find(path)
        found = findings.leader(lease, where, datetime.now(UTC))
        if lease is None or found.level is Level.OK:
            return found
        # The time in it is by the holder's clock, which may be hours off ours.
        await asyncio.sleep(RENEWAL_SECONDS)
        later = await api.find(path)
    except Refused as error:
        return Finding(Level.OFF, "leader", f"not checked: the Lease {where}: {error}", "allow `get leases`")
    renews = later is not None and later["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]
    return findings.leader(later, where, datetime.now(UTC), renews=renews)


async def look(api: Api, operator: Operator) -> Live:
    """What the operator says now; if it does not answer, whether anybody leads."""
    live = await operator.live()
    if not live.problem:
        return live
    found = await leader(api, operator)
    return replace(live, leaderless=f"{found.message}; {found.advice}") if found.level is Level.ERROR else live


async def _account(api: Api, operator: Operator) -> str:
    """The operator's service account, of its Deployment; the usual name if that may not be read."""
    where = operator.where if operator.namespace else DEFAULT_OPERATOR
    namespace, _, name = where.partition("/")
    deployment = await _allowed(api, f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}") or {}
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    return f"{namespace}/{pod.get('serviceAccountName') or name}"


def _secret_rights(bodies: Iterable[dict[str, Any]], namespace: str) -> list[Right]:
    """To read the Secrets that the objects of the namespace name; the operator may be allowed these and no others."""
    refs = [_secret_refs(body).values() for body in bodies if body["metadata"]["namespace"] == namespace]
    named = {ref["name"] for of_object in refs for ref in of_object if ref}
    return [Right("get", "", "secrets", name=name) for name in sorted(named)]


async def _refused(api: Api, account: str, namespace: str, wanted: Sequence[Right]) -> list[Right] | None:
    """Those of the rights that the account lacks; None if that may not be asked."""
    user = f"system:serviceaccount:{account.replace('/', ':')}"
    try:
        answers = await asyncio.gather(*(api.post(_REVIEWS, _review(user, namespace, r)) for r in wanted))
    except Refused:
        return None
    pairs = zip(wanted, answers, strict=True)
    return [right for right, answer in pairs if not (answer.get("status") or {}).get("allowed")]


def _review(user: str, namespace: str, right: Right) -> dict[str, Any]:
    attributes = {"verb": right.verb, "group": right.group, "resource": right.resource, "namespace": namespace}
    attributes |= {"subresource": right.subresource, "name": right.name}
    spec = {"user": user, "resourceAttributes": attributes}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


async def _allowed(api: Api, path: str) -> Any:
    """The object; None if there is none, or it may not be read."""
    try:
        return await api.find(path)
    except Refused:
        return None


# --- one object


async def _object(api: Api, body: dict[str, Any], live: Live) -> list[Finding]:
    seen = view(body, live, datetime.now(UTC))
    first, *others = findings.of_object(seen)
    return [first, *await _secrets(api, body, seen.key), *await _services(api, body, seen.key), *others]


def _secret_refs(body: dict[str, Any]) -> dict[str, Any]:
    """What each field of the spec that names a Secret says."""
    spec = body.get("spec") or {}
    return {
        "queue.apiKeySecretRef": (spec.get("queue") or {}).get("apiKeySecretRef"),
        "events.redisURLSecretRef": (spec.get("events") or {}).get("redisURLSecretRef"),
    }


async def _secrets(api: Api, body: dict[str, Any], key: str) -> list[Finding]:
    namespace = body["metadata"]["namespace"]
    found = []
    for field, ref in _secret_refs(body).items():
        if not ref:
            continue
        try:
            secret = await api.find(f"/api/v1/namespaces/{namespace}/secrets/{ref['name']}")
        except Refused:
            message = f"not checked: the Secret {ref['name']} of {field}"
            found.append(Finding(Level.OFF, "secret", message, "allow `get secrets`", key))
        else:
            found.append(findings.secret(key, field, ref["name"], ref["key"], secret))
    return found


async def _services(api: Api, body: dict[str, Any], key: str) -> list[Finding]:
    """Host names without a dot are Services of the object's namespace."""
    namespace = body["metadata"]["namespace"]
    wanted = short_hosts(body.get("spec") or {}, namespace)
    if not wanted:
        return []
    try:
        listed = await api.list(f"/api/v1/namespaces/{namespace}/services")
    except Refused:
        message = f"not checked: whether {len(wanted)} host names are Services of {namespace}"
        return [Finding(Level.OFF, "dns", message, "allow `list services`", key)]
    known = {service["metadata"]["name"] for service in listed}
    missing = {host: field for host, field in wanted.items() if host not in known}
    if missing:
        return list(findings.services(key, missing))
    return [Finding(Level.OK, "dns", f"{len(wanted)} host names are Services of {namespace}", "", key)]


def short_hosts(spec: dict[str, Any], namespace: str) -> dict[str, str]:
    """The hosts that the operator looks up as Services of the namespace, with the field that names each."""
    executors, events = spec.get("executors") or {}, spec.get("events") or {}
    urls = {"queue.url": [(spec.get("queue") or {}).get("url") or "http://queue:8081"]}
    if not events.get("redisURLSecretRef"):
        urls["events.redisURL"] = [events.get("redisURL") or DEFAULT_REDIS_URL]
    if executors.get("endpoints"):
        urls["executors.endpoints"] = executors["endpoints"]
    elif service := executors.get("service"):
        urls["executors.service"] = [f"http://{service['name']}"]
    elif not executors.get("template"):  # the pods of a template are called by their addresses
        base, port = executors.get("baseURL") or "http://executor", executors.get("port") or 8083
        urls["executors.count"] = [numbered(base, n, port) for n in range(1, int(executors.get("count", 1)) + 1)]
    found: dict[str, str] = {}
    for field, given in urls.items():
        for url in given:
            if host := _short_host(url, namespace):
                found.setdefault(host, f"spec.{field}")
    return found


def _short_host(url: str, namespace: str) -> str:
    """Empty if the host is no Service, or the URL cannot be read: then the operator says so in Ready."""
    try:
        return (urlsplit(url).hostname or "") if in_namespace(url, namespace) != url else ""
    except ValueError:
        return ""
