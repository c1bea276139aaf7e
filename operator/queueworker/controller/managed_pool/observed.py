"""The StatefulSets and pods with our label, reduced to what a plan needs, as their watches tell of them.

Others may have written any of their values. What makes no sense is left out: an error would end the list of all.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from queueworker.controller.managed_pool.objects import generation_of, meddlers, owner_of
from queueworker.controller.managed_pool.plan import PoolPod, PoolStatefulSet
from queueworker.controller.watches import key_of
from queueworker.resource.executors_spec import MAX_COUNT
from queueworker.resource.names import (
    ANNOTATION_TEMPLATE_HASH,
    ANNOTATION_UPDATE_AWAITS,
    LABEL_QUEUEWORKER,
    pool_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from queueworker.controller.watches import Body, Key

MAX_PROBLEM = 300
"""Characters of what a pod says about itself in a condition."""
MAX_DIGITS = 10
"""Of a number of pods, or of a pod: those of an int32."""

_T = TypeVar("_T")


class Observed(Generic[_T]):
    """Follows a watch, and keeps `keep(body)` of each object, by namespace and value of our label.

    `on_change` is called with the QueueWorker's namespace and name; the name is empty for all of a namespace.
    """

    def __init__(self, keep: Callable[[Body], _T], on_change: Callable[[Key], None]) -> None:
        self._keep = keep
        self._on_change = on_change
        self._owners: dict[Key, Key] = {}
        self._kept: dict[Key, dict[Key, _T]] = {}
        """By the key of the QueueWorker, then by that of the object."""
        self._listed: set[str] = set()
        self._problems: dict[str, str] = {}

    # --- what the watch tells

    def changed(self, event: str | None, body: Body) -> None:
        self._apply(key_of(body), None if event == "DELETED" else body)
        self._on_change(_labelled(body))

    def listed(self, namespace: str, bodies: Sequence[Body], newer: Collection[Key]) -> None:
        """What is not in the list any more is gone, also if the watch did not say so."""
        found = {key_of(body): body for body in bodies}
        missing = [key for key in self._owners if namespace in {"", key[0]} and key not in found]
        for key in {*missing, *found} - set(newer):
            self._apply(key, found.get(key))
        self._listed.add(namespace)
        self._on_change((namespace, ""))

    def watch_changed(self, namespace: str, problem: str) -> None:
        self._problems[namespace] = problem
        self._on_change((namespace, ""))

    # --- what a pool asks

    def of(self, namespace: str, name: str) -> Iterable[_T]:
        return self._kept.get((namespace, name), {}).values()

    def is_listed(self, namespace: str) -> bool:
        return namespace in self._listed or "" in self._listed

    def problem(self, namespace: str) -> str:
        """Why they cannot be watched, in a few words; empty if they can."""
        return self._problems.get(namespace) or self._problems.get("") or ""

    def _apply(self, key: Key, body: Body | None) -> None:
        owner = self._owners.pop(key, None)
        if owner is not None:
            del self._kept[owner][key]
            if not self._kept[owner]:
                del self._kept[owner]
        if body is not None:
            self._owners[key] = _labelled(body)
            self._kept.setdefault(self._owners[key], {})[key] = self._keep(body)


class PoolObjects:
    """What the watches of one term have told."""

    def __init__(self, on_change: Callable[[Key], None] = lambda _: None) -> None:
        self.stateful_sets = Observed(stateful_set_of, on_change)
        self.pods = Observed(pod_of, on_change)

    def is_listed(self, namespace: str) -> bool:
        return self.stateful_sets.is_listed(namespace) and self.pods.is_listed(namespace)

    def problem(self, namespace: str) -> str:
        """Which of the two cannot be watched, and why; empty if both can."""
        kinds = {"statefulsets": self.stateful_sets.problem(namespace), "pods": self.pods.problem(namespace)}
        refused = [f"{kind} cannot be watched: {why}; allow list and watch" for kind, why in kinds.items() if why]
        return "; ".join(refused)

    def stateful_set(self, namespace: str, name: str, uid: str) -> PoolStatefulSet | None:
        """The one of the QueueWorker of that uid."""
        found = self.stateful_sets.of(namespace, name)
        return next((seen for seen in found if (seen.name, seen.owner) == (pool_name(name), uid)), None)

    def pods_of(self, namespace: str, name: str) -> list[PoolPod]:
        """Its pods, in the order of their ordinals."""
        found = [pod for pod in self.pods.of(namespace, name) if pod.name == f"{pool_name(name)}-{pod.ordinal}"]
        return sorted(found, key=lambda pod: pod.ordinal)


def stateful_set_of(body: Mapping[str, Any]) -> PoolStatefulSet:
    spec, metadata = body["spec"], body["metadata"]
    replicas = spec.get("replicas")  # of two billion, a plan would name every pod
    return PoolStatefulSet(
        name=metadata["name"],
        owner=owner_of(body),
        replicas=1 if replicas is None else min(replicas, MAX_COUNT),
        template_hash=_hash_of(spec["template"]),
        meddlers=tuple(meddlers(body)),
        awaited=_number(_annotation(body, ANNOTATION_UPDATE_AWAITS)),
        generation=generation_of(body),
    )


def pod_of(body: Mapping[str, Any]) -> PoolPod:
    metadata, status = body["metadata"], body.get("status") or {}
    ready = _condition(status, "Ready")
    # That of its deletion is when its grace ends.
    times = (metadata.get("creationTimestamp"), ready.get("lastTransitionTime"), metadata.get("deletionTimestamp"))
    return PoolPod(
        name=metadata["name"],
        ordinal=ordinal_of(metadata["name"]),
        uid=metadata.get("uid") or "",
        template_hash=_hash_of(body),
        ready=ready.get("status") == "True",
        terminating=bool(metadata.get("deletionTimestamp")),
        problem=_problem(status)[:MAX_PROBLEM],
        changed_at=max(map(_unix_time, times)),
    )


def ordinal_of(name: str) -> int:
    """The ordinal of a pod of a StatefulSet; 0 for another name."""
    return _number(name.rpartition("-")[2])


def _number(text: str) -> int:
    """0 if it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else 0


def _unix_time(text: str | None) -> float:
    """In seconds; 0 if there is none. The API server takes and gives years that `datetime` does not have."""
    try:
        return max(0.0, datetime.fromisoformat(text or "").timestamp())
    except (ValueError, OverflowError):
        return 0.0


def _problem(status: Mapping[str, Any]) -> str:
    """Why the pod is not ready, by the most telling part of its status."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return _joined(waiting["reason"], waiting.get("message"))
    if status.get("reason"):  # of the whole pod, such as Evicted
        return _joined(status["reason"], status.get("message"))
    scheduled, ready = _condition(status, "PodScheduled"), _condition(status, "Ready")
    for condition in (scheduled, ready):
        if condition.get("status") == "False":
            return _joined(condition.get("reason"), condition.get("message"))
    return ""


def _joined(*parts: str | None) -> str:
    return ": ".join(part for part in parts if part)


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _hash_of(body: Mapping[str, Any]) -> str:
    return _annotation(body, ANNOTATION_TEMPLATE_HASH)


def _annotation(body: Mapping[str, Any], name: str) -> str:
    return str(((body.get("metadata") or {}).get("annotations") or {}).get(name, ""))


def _labelled(body: Body) -> Key:
    """The namespace and name of the QueueWorker that the object is labelled with."""
    return key_of(body)[0], str((body["metadata"].get("labels") or {}).get(LABEL_QUEUEWORKER, ""))
