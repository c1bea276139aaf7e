"""The kinds of objects that the controller watches, or calls the API server about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from queueworker.resource import names

if TYPE_CHECKING:
    from collections.abc import Callable


def _whole(body: dict[str, Any]) -> dict[str, Any]:
    return body


def _bare_slice(body: dict[str, Any]) -> dict[str, Any]:
    """What `discovery` reads of an EndpointSlice."""
    metadata = body["metadata"]
    return {
        "metadata": {key: metadata[key] for key in ("namespace", "name", "labels") if key in metadata},
        "ports": body.get("ports"),
        "endpoints": [
            {key: endpoint[key] for key in ("addresses", "conditions", "targetRef") if key in endpoint}
            for endpoint in body.get("endpoints") or ()
        ],
    }


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object. `name` is for people; `label`, if given, must be there with any value.

    `trim` takes away what nobody reads: it is called for each page of a list, so that a long list is never held whole.
    """

    name: str
    group: str
    version: str
    plural: str
    label: str = ""
    trim: Callable[[dict[str, Any]], dict[str, Any]] = _whole

    @property
    def api(self) -> str:
        """The path of its API; the oldest kinds have no group."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str, name: str = "") -> str:
        """Of the objects in a namespace; of all, if it is empty. With a name, of that object."""
        every = f"{self.api}/namespaces/{namespace}/{self.plural}" if namespace else f"{self.api}/{self.plural}"
        return f"{every}/{quote(name, safe='')}" if name else every


QUEUE_WORKERS = Kind("QueueWorkers", names.GROUP, names.VERSION, names.PLURAL)
ENDPOINT_SLICES = Kind(
    "EndpointSlices", "discovery.k8s.io", "v1", "endpointslices", names.SERVICE_NAME_LABEL, trim=_bare_slice
)
STATEFUL_SETS = Kind("StatefulSets", "apps", "v1", "statefulsets", names.LABEL_QUEUEWORKER)
PODS = Kind("Pods", "", "v1", "pods", names.LABEL_QUEUEWORKER)
SECRETS = Kind("Secrets", "", "v1", "secrets")
EVENTS = Kind("Events", "", "v1", "events")
CRDS = Kind("CustomResourceDefinitions", "apiextensions.k8s.io", "v1", "customresourcedefinitions")
