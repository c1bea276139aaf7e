"""The QueueWorker objects, read and changed by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from queueworker.cli.plugin.api import Refused
from queueworker.cli.plugin.problems import Problem
from queueworker.resource import names

if TYPE_CHECKING:
    from queueworker.cli.plugin.api import Api

_ROOT = f"/apis/{names.GROUP}/{names.VERSION}"
UNKNOWN_FIELD = 'strict decoding error: unknown field "'
NO_CRD = (
    "the cluster has no QueueWorkers (the CRD is missing): `queueworker crd | kubectl apply --server-side -f -`, or "
    "install the operator"
)


def path_of(namespace: str, name: str = "") -> str:
    """The path of an object, or of the objects of a namespace; of all objects if that is empty."""
    where = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{_ROOT}{where}/{names.PLURAL}" + (f"/{quote(name, safe='')}" if name else "")


async def one(api: Api, name: str) -> dict[str, Any]:
    """The object of that name in the namespace. Raises Problem."""
    namespace, name = split(api, name)
    try:
        found: dict[str, Any] = await api.get(path_of(namespace, name))
    except Refused as error:
        listed = await _listed(api, namespace, name) if error.status == 403 else None
        if listed is None:
            raise await _explained(api, namespace, name, error) from error
        return listed
    return found


async def _listed(api: Api, namespace: str, name: str) -> dict[str, Any] | None:
    """The object by a list: the operator's service account may list and not get. None if it may not list either."""
    try:
        page = await api.get(path_of(namespace), fieldSelector=f"metadata.name={name}", limit=1)
    except Refused:
        return None
    items: list[dict[str, Any]] = page.get("items") or []
    return items[0] if items else None


async def some(api: Api, *, everywhere: bool) -> list[dict[str, Any]]:
    """The objects of the namespace, or of all namespaces, sorted by name. Raises Problem."""
    try:
        found = await api.list(path_of("" if everywhere else api.namespace))
    except Refused as error:
        if error.status == 404:
            raise Problem(NO_CRD) from error
        raise
    return sorted(found, key=lambda body: (body["metadata"]["namespace"], body["metadata"]["name"]))


async def the_only_one(api: Api, name: str | None) -> dict[str, Any]:
    """The object of that name; without a name the only one of the namespace. Raises Problem."""
    if name:
        return await one(api, name)
    found = await some(api, everywhere=False)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Problem(f"there is no QueueWorker in the namespace {api.namespace}: see `kubectl get qw -A`, and set -n")
    listed = ", ".join(body["metadata"]["name"] for body in found)
    raise Problem(f"the namespace {api.namespace} has {len(found)} QueueWorkers: name one of {listed}")


async def change(api: Api, body: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Merge it into the object's spec, if nobody has changed the object meanwhile. Raises Problem."""
    metadata = body["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": spec}
    try:
        found: dict[str, Any] = await api.patch(path_of(metadata["namespace"], metadata["name"]), patch)
    except Refused as error:
        if error.status == 409:
            raise Problem(f"{metadata['name']} was changed at the same time: try again") from error
        _, unknown, field = str(error).rpartition(UNKNOWN_FIELD)  # the whole object stands before it
        if unknown:
            name = field.partition('"')[0]
            raise Problem(f"the cluster's CRD has no {name}: apply the CRD of the operator's version") from error
        raise
    return found


def split(api: Api, name: str) -> tuple[str, str]:
    """Namespace and name of `name`, which may be namespace/name as the operator writes it."""
    name = name.removeprefix("qw/").removeprefix("queueworker/").removeprefix("queueworkers/")
    namespace, slash, rest = name.partition("/")
    return (namespace, rest) if slash else (api.namespace, name)


async def _explained(api: Api, namespace: str, name: str, error: Refused) -> Problem:
    if error.status != 404:
        return error
    try:
        known = [body["metadata"]["name"] for body in await api.list(path_of(namespace))]
    except Refused as listing:
        return Problem(NO_CRD) if listing.status == 404 else error
    listed = f"it has: {', '.join(known)}" if known else "it has none; see `kubectl get qw -A`"
    return Problem(f"there is no QueueWorker {name} in the namespace {namespace}: {listed}")
