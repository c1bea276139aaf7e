"""What to do about a pool next: a pure function of what is wanted, what is there, and which tasks are in flight.

It is called again and again, and keeps nothing but `left` and `missing`: since when each pod gets no new task, or is
not there. A leader that takes over starts with both empty, so a pod may wait a second time, but no task is cut short.
How many ready pods an update waits for is kept in an annotation of the StatefulSet.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MISSING_SECONDS = 30.0
"""A pod that is not there for so long counts as one that cannot be created: the update goes on without it."""
_NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WantedPool:
    """`template_hash` is empty for a pool whose template was removed.

    `drain_seconds`: a pod that has had no new task for so long may go, also with a task in flight.
    """

    count: int
    template_hash: str
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class PoolStatefulSet:
    """The StatefulSet as it is."""

    name: str
    owner: str
    """The uid of its controller."""
    replicas: int
    template_hash: str
    meddlers: tuple[str, ...] = ()
    """Who else has written fields of its spec."""
    awaited: int = 0
    """`Plan.awaited`, as it was carried out last."""
    generation: int = 0
    """It grows with each change of the spec."""

    def pod(self, ordinal: int) -> str:
        return f"{self.name}-{ordinal}"


@dataclass(frozen=True, slots=True)
class PoolPod:
    """A pod as it is. `ordinal` counts from 1."""

    name: str
    ordinal: int
    uid: str
    template_hash: str
    ready: bool
    terminating: bool = False
    problem: str = ""
    """Why it is not ready, as far as the pod says."""
    changed_at: float = 0.0
    """Unix time in seconds of its creation, of the last change of its readiness, or of the end of its grace."""


class Deletion(NamedTuple):
    """`now`: with the shortest grace, because the pod has nothing to finish. Otherwise with the pod's own."""

    pod: PoolPod
    now: bool


@dataclass(frozen=True, slots=True)
class Plan:
    leaving: frozenset[str] = frozenset()
    """Pods that get no new task."""
    replicas: int = 0
    """Replicas of the StatefulSet from now on."""
    idle: tuple[PoolPod, ...] = ()
    """Pods without a task that go with the replicas, or with the StatefulSet. They are deleted just before, with the
    shortest grace; the StatefulSet would give each the time of a task."""
    delete: Deletion | None = None
    """A pod that makes room for one of the new template, once the StatefulSet is as planned."""
    awaited: int = 0
    """So many pods have to be ready before the update takes another ready one away; 0 if they are."""
    remove: bool = False
    """Delete the StatefulSet and all that belongs to it."""
    missing: frozenset[str] = frozenset()
    """Pods that should be there and are not."""


def plan(
    wanted: WantedPool,
    stateful_set: PoolStatefulSet | None,
    pods: Sequence[PoolPod],
    in_flight: Mapping[str, int] | None,
    left: Mapping[str, float],
    now: float,
    missing: Mapping[str, float] = _NONE,
) -> Plan:
    """What to do next.

    `in_flight`: tasks by the name of their pod; None if nobody knows, because there is no router, or more than one.
    `left`: when each pod was first planned to leave, by its name, on the clock of `now` in seconds.
    `missing`: likewise, when each pod was first seen to be missing.
    """
    terminating = frozenset(pod.name for pod in pods if pod.terminating)
    if stateful_set is None:
        return Plan(terminating, wanted.count, remove=not wanted.template_hash)
    going = _Going(wanted.drain_seconds, in_flight, left, now)
    count = wanted.count if wanted.template_hash else 0
    surplus = {stateful_set.pod(ordinal) for ordinal in range(count + 1, stateful_set.replicas + 1)}
    surplus |= {pod.name for pod in pods if pod.ordinal > count}
    leaving = terminating | surplus
    if not wanted.template_hash:
        remove = all(map(going.may_go, surplus))
        return Plan(leaving, stateful_set.replicas, going.idle(pods) if remove else (), remove=remove)
    if stateful_set.template_hash != wanted.template_hash:  # the API server may refuse the template, and all with it
        return Plan(leaving, max(count, stateful_set.replicas), awaited=stateful_set.awaited)
    replicas = _replicas(count, stateful_set, terminating, going)
    idle = going.idle(pod for pod in pods if replicas < pod.ordinal <= stateful_set.replicas)
    kept = [pod for pod in pods if pod.ordinal <= count]
    absent = frozenset(map(stateful_set.pod, range(1, count + 1))) - {pod.name for pod in kept}
    comes = any(now - missing.get(name, now) < MISSING_SECONDS for name in absent)
    update = _update(wanted, stateful_set.awaited, kept, going, comes=comes)
    return Plan(leaving | update.leaving, replicas, idle, update.delete, update.awaited, missing=absent)


def next_since(names: Iterable[str], since: Mapping[str, float], now: float) -> dict[str, float]:
    """`left` or `missing` for the next plan, with the names in this one; of `left`, once the router knows of it."""
    return {name: since.get(name, now) for name in names}


@dataclass(frozen=True, slots=True)
class _Going:
    """Which pods may be deleted."""

    drain_seconds: float
    in_flight: Mapping[str, int] | None
    left: Mapping[str, float]
    now: float

    def tasks(self, name: str) -> int:
        """In flight, or 1 if nobody knows."""
        return 1 if self.in_flight is None else self.in_flight.get(name, 0)

    def is_idle(self, name: str) -> bool:
        return not self.tasks(name)

    def may_go(self, name: str) -> bool:
        """It left the router, which knew so when `in_flight` was counted, and has finished or had its time."""
        since = self.left.get(name)
        return since is not None and (self.is_idle(name) or self.now - since >= self.drain_seconds)

    def idle(self, pods: Iterable[PoolPod]) -> tuple[PoolPod, ...]:
        """Those that have nothing to finish, and are not on their way out yet."""
        return tuple(pod for pod in pods if not pod.terminating and self.is_idle(pod.name))


def _replicas(count: int, stateful_set: PoolStatefulSet, terminating: Iterable[str], going: _Going) -> int:
    """A StatefulSet deletes its highest pods first: it shrinks past those that may go, and are going already."""
    replicas = stateful_set.replicas
    while replicas > count and (stateful_set.pod(replicas) in terminating or going.may_go(stateful_set.pod(replicas))):
        replicas -= 1
    return max(replicas, count)


class _Update(NamedTuple):
    """The update's part of the plan."""

    awaited: int
    leaving: frozenset[str] = frozenset()
    delete: Deletion | None = None


def _update(wanted: WantedPool, awaited: int, kept: Sequence[PoolPod], going: _Going, *, comes: bool) -> _Update:
    """`comes`: a pod that is not there may be created any moment."""
    ready = sum(pod.ready and not pod.terminating for pod in kept)
    awaited = awaited if ready < min(awaited, wanted.count) else 0
    pod = _to_update(wanted.template_hash, kept, going, others=not (awaited or comes))
    if pod is None:
        return _Update(awaited)
    leaving = frozenset({pod.name})
    if not going.may_go(pod.name):
        return _Update(awaited, leaving)
    return _Update(ready if pod.ready else awaited, leaving, Deletion(pod, going.is_idle(pod.name)))


def _to_update(template_hash: str, kept: Sequence[PoolPod], going: _Going, *, others: bool) -> PoolPod | None:
    """The pod that has to make room for one of the template; at most one that is ready is away at a time.

    One that is not ready anyway goes first: it takes nothing away, and a corrected template has to reach it. `others`:
    a ready one may go. Pods that are not there do not count: a full quota may keep them from being created beside those
    of the old template.
    """
    stale = [pod for pod in kept if pod.template_hash != template_hash and not pod.terminating]
    if not all(pod.ready and not pod.terminating for pod in kept if pod not in stale):
        return None
    away = [pod for pod in stale if not pod.ready]
    if away:
        return min(away, key=lambda pod: (pod.name not in going.left, pod.ordinal))
    if not stale or not others:
        return None
    return min(stale, key=lambda pod: (pod.name not in going.left, going.tasks(pod.name), pod.ordinal))
