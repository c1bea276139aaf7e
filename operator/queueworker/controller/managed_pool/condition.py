"""The condition PoolReady: a pure function of what is wanted and what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queueworker.resource.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.controller.managed_pool.plan import Plan, PoolPod, PoolStatefulSet, WantedPool
    from queueworker.resource.status import ConditionStatus

READY_SECONDS = 120
"""A pod that is not ready for so long, or should have ended so long ago, stops an update; the condition says why."""
NAMED_PODS = 3
"""A message names at most so many pods."""


class PoolState(NamedTuple):
    """Status, reason and message of the condition."""

    status: ConditionStatus
    reason: Reason
    message: str


def pool_state(
    wanted: WantedPool, stateful_set: PoolStatefulSet | None, pods: Sequence[PoolPod], plan: Plan, now: float
) -> PoolState:
    """`now` is Unix time in seconds. The pool is ready if it has as many pods as are wanted, of the wanted template."""
    if not wanted.template_hash:
        return PoolState("False", Reason.REMOVING, f"the template was removed: {len(pods)} pods finish their tasks")
    kept = [pod for pod in pods if pod.ordinal <= wanted.count]
    current = [pod for pod in kept if pod.template_hash == wanted.template_hash]
    ready = sum(pod.ready and not pod.terminating for pod in current)
    surplus = [pod for pod in pods if pod.ordinal > wanted.count and not pod.terminating]
    if stateful_set is not None and ready == wanted.count == stateful_set.replicas and not surplus:
        return PoolState("True", Reason.ALL_READY, f"{ready} of {wanted.count} pods are ready")
    stuck = [pod for pod in kept if _is_stuck(pod, now)]
    count = f"{ready} of {wanted.count} pods are ready with this template"
    if stuck:
        why = _some([_stuck(pod) for pod in stuck])
        return PoolState("False", Reason.POD_NOT_READY, f"{why}; {count}; no other pod is updated meanwhile")
    return PoolState("False", Reason.PROGRESSING, "; ".join([count, *_progress(wanted, stateful_set, kept, plan)]))


def _is_stuck(pod: PoolPod, now: float) -> bool:
    return (pod.terminating or not pod.ready) and now - pod.changed_at >= READY_SECONDS


def _stuck(pod: PoolPod) -> str:
    if pod.terminating:
        advice = "if its node is gone, delete the Node, or the pod with --force"
        return f"{pod.name} should have ended more than {READY_SECONDS} s ago: {advice}"
    return f"{pod.name} is not ready for more than {READY_SECONDS} s{_because(pod)}"


def _progress(
    wanted: WantedPool, stateful_set: PoolStatefulSet | None, kept: Sequence[PoolPod], plan: Plan
) -> list[str]:
    """What is waited for, one sentence each."""
    if stateful_set is None:
        return ["the StatefulSet is being created"]
    missing = [stateful_set.pod(n) for n in range(1, wanted.count + 1) if all(pod.ordinal != n for pod in kept)]
    starting = [f"{pod.name} is starting{_because(pod)}" for pod in kept if not pod.ready and not pod.terminating]
    leaving = sorted(plan.leaving)
    told = []
    if missing:
        told.append(f"not there yet: {_some(missing)} (the Events of StatefulSet {stateful_set.name} say more)")
        if plan.awaited:
            advice = "if that cannot be, lower executors.count"
            awaited = min(plan.awaited, wanted.count)
            told.append(f"the next pod is updated when {awaited} are ready: {advice}")
    if starting:
        told.append(_some(starting))
    if leaving:
        told.append(f"leaving when their tasks have ended: {_some(leaving)}")
    return told


def _because(pod: PoolPod) -> str:
    return f" ({pod.problem})" if pod.problem else ""


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED_PODS
    return ", ".join(texts[:NAMED_PODS]) + (f" and {more} more" if more > 0 else "")
