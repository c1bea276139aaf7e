"""What to do about a pool next: a pure function of what is wanted, what is there, and which tasks are in flight.

It is called again and again, and keeps nothing but `left`: since when each pod gets no new task. A leader that takes
over starts with an empty `left`, so a pod may wait a second time, but no task is cut short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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
    delete: Deletion | None = None
    """A pod that makes room for one of the new template."""
    remove: bool = False
    """Delete the StatefulSet and all that belongs to it."""


def plan(
    wanted: WantedPool,
    stateful_set: PoolStatefulSet | None,
    pods: Sequence[PoolPod],
    in_flight: Mapping[str, int] | None,
    left: Mapping[str, float],
    now: float,
) -> Plan:
    """What to do next.

    `in_flight`: tasks by the name of their pod; None if nobody knows, because there is no router, or more than one.
    `left`: when each pod was first planned to leave, by its name, on the clock of `now` in seconds.
    """
    terminating = frozenset(pod.name for pod in pods if pod.terminating)
    if stateful_set is None:
        return Plan(terminating, wanted.count, remove=not wanted.template_hash)
    going = _Going(wanted.drain_seconds, in_flight, left, now)
    count = wanted.count if wanted.template_hash else 0
    surplus = {stateful_set.pod(ordinal) for ordinal in range(count + 1, stateful_set.replicas + 1)}
    surplus |= {pod.name for pod in pods if pod.ordinal > count}
    if not wanted.template_hash:
        return Plan(terminating | surplus, stateful_set.replicas, remove=all(map(going.may_go, surplus)))
    replicas = _replicas(count, stateful_set, terminating, going)
    updated = _to_update(wanted, stateful_set, pods, going)
    if updated is None:
        return Plan(terminating | surplus, replicas)
    gone = Deletion(updated, going.is_idle(updated.name)) if going.may_go(updated.name) else None
    return Plan(terminating | surplus | {updated.name}, replicas, gone)


def next_left(plan: Plan, left: Mapping[str, float], now: float) -> dict[str, float]:
    """`left` for the next plan, once the router knows of this one."""
    return {name: left.get(name, now) for name in plan.leaving}


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


def _replicas(count: int, stateful_set: PoolStatefulSet, terminating: Iterable[str], going: _Going) -> int:
    """A StatefulSet deletes its highest pods first: it shrinks past those that may go, and are going already."""
    replicas = stateful_set.replicas
    while replicas > count and (stateful_set.pod(replicas) in terminating or going.may_go(stateful_set.pod(replicas))):
        replicas -= 1
    return max(replicas, count)


def _to_update(
    wanted: WantedPool, stateful_set: PoolStatefulSet, pods: Sequence[PoolPod], going: _Going
) -> PoolPod | None:
    """The pod that has to make room for one of the new template; at most one at a time is away.

    One that is not ready anyway goes first: it takes nothing away, and a corrected template has to reach it.
    """
    if stateful_set.template_hash != wanted.template_hash:
        return None
    kept = {pod.ordinal: pod for pod in pods if pod.ordinal <= wanted.count}
    stale = [pod for pod in kept.values() if pod.template_hash != wanted.template_hash and not pod.terminating]
    away = [pod for pod in stale if not pod.ready]
    others_ready = all(pod.ready and not pod.terminating for pod in kept.values() if pod not in stale)
    if not stale or len(kept) < wanted.count or not others_ready:
        return None
    if away:
        return min(away, key=lambda pod: (pod.name not in going.left, pod.ordinal))
    return min(stale, key=lambda pod: (pod.name not in going.left, going.tasks(pod.name), pod.ordinal))
