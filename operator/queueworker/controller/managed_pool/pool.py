"""The pool of one QueueWorker: looks at what is there, plans, has the plan carried out, and says how far it is.

It is driven by the object's runner: `decide`, then the router is told of the endpoints that stay, then `act`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import FAILED, UNREACHABLE, reason_of
from queueworker.controller.conditions import ConditionState
from queueworker.controller.events import ObjectEvent
from queueworker.controller.managed_pool.apply import BUDGET, SERVICE, STATEFUL_SET, PoolApi, PoolProblem
from queueworker.controller.managed_pool.condition import PoolState, pool_state
from queueworker.controller.managed_pool.objects import MAX_NAME, PoolBodies, generation_of, pool_bodies
from queueworker.controller.managed_pool.observed import ordinal_of
from queueworker.controller.managed_pool.plan import Plan, WantedPool, next_since, plan
from queueworker.controller.status import PoolView
from queueworker.resource.names import pool_name
from queueworker.resource.reasons import ConditionType, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.kinds import Kind
    from queueworker.controller.managed_pool.apply import Applied, Body
    from queueworker.controller.managed_pool.objects import Owner
    from queueworker.controller.managed_pool.observed import PoolObjects
    from queueworker.controller.managed_pool.plan import PoolPod, PoolStatefulSet
    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.config import Endpoint
    from queueworker.routing.snapshot import Snapshot

log = logging.getLogger(__name__)

DRAIN_MARGIN_SECONDS = 10
"""A pod that gets no new task may go after the timeout of a task and so many seconds."""
LEAVING_SECONDS = 1.0
"""Interval of the looks at the tasks of pods that leave."""
CHECK_SECONDS = 60.0
"""Interval of the looks at Service and PodDisruptionBudget, which are not watched."""
RETRY_SECONDS = 10.0
"""What the API server refused is tried again after so long, or at once when the spec changes."""
MAX_ENDS = 3
"""Deletions of an idle pod that is refused, or that comes back because the StatefulSet cannot be changed."""
END_SECONDS = 10.0
"""Longest time for deleting the pool of an object that goes."""
LAST_LOOK_SECONDS = 0.5
"""A router that drains is asked for its tasks so long before it gives them up."""
OFF = (
    "this operator may not run pods: set managedPools.enabled in its chart (or MANAGED_POOLS=true, with the rights "
    "that docs/managed-pool.md lists), or name the executors by endpoints or service"
)
NOT_LISTED = "waiting for the first list of StatefulSets and pods"


class ManagedPool:
    """`objects` is None if the operator runs no pools.

    More than 15 attributes: what is wanted, what was planned, and what was done about it.
    """

    def __init__(
        self,
        owner: Owner,
        cluster: Cluster,
        objects: PoolObjects | None,
        announce: Callable[[ObjectEvent], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.count: int | None = None
        """The pods that are wanted; None without a template."""
        self._owner = owner
        self._state: PoolState | None = None
        """None for an object without a template and without pods."""
        self._generation = 0
        self._objects = objects
        self._announce = announce
        self._clock = clock
        self._wall_clock = wall_clock
        self._api = PoolApi(cluster, owner)
        self._spec: QueueWorkerSpec | None = None
        self._bodies: PoolBodies | None = None
        """None without a template."""
        self._plan = Plan()
        self._left: dict[str, float] = {}
        self._missing: dict[str, float] = {}
        self._ends: Counter[str] = Counter()
        """How often each idle pod was deleted since the StatefulSet was changed or deleted last."""
        self._applied: dict[Kind, int] = {}
        """The generations of the objects as this leader left them: another one is somebody else's change."""
        self._checked_at = self._refused_at = float("-inf")

    @property
    def interval(self) -> float | None:
        """Seconds until the next look at the tasks in flight; None if no pod leaves."""
        return LEAVING_SECONDS if self._plan.leaving else None

    def view(self) -> PoolView:
        """For the object's status."""
        if self._state is None:
            return PoolView(self.count)
        return PoolView(self.count, ConditionState(ConditionType.POOL_READY, *self._state), self._generation)

    # --- before the router is told

    def decide(self, spec: QueueWorkerSpec, generation: int, snapshot: Snapshot | None) -> None:
        """Plan by what is there now, and by the tasks in flight. The generation is that of the spec."""
        self._take(spec)
        self._generation = generation
        now = self._clock()
        self._plan = plan(self._wanted(spec), *self._seen(), tasks_by_pod(snapshot), self._left, now, self._missing)
        if not knows_rivals(snapshot):
            slow = self._plan.delete and self._plan.delete._replace(now=False)
            self._plan = replace(self._plan, idle=(), delete=slow)
        self._left = next_since(self._plan.leaving, self._left, now)
        self._missing = next_since(self._plan.missing, self._missing, now)

    def staying(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """The endpoints without those of pods that leave. Without a template they are all of them."""
        count = self.count
        if count is None:
            return endpoints
        return [e for e in endpoints if e.name not in self._plan.leaving and ordinal_of(e.name) <= count]

    # --- afterwards

    async def act(self) -> None:
        """Carry the plan out, and see how far it is. Raises nothing that the API server could cause."""
        spec = self._spec
        if spec is None or (self.count is None and self._seen()[0] is None and not self._applied):
            self._state = None
        elif (obstacle := self._obstacle()) is not None:
            self._state = obstacle
        elif self._clock() - self._refused_at >= RETRY_SECONDS:
            self._state = await self._try(spec)

    def _obstacle(self) -> PoolState | None:
        """Why nothing can be done now."""
        if self._objects is None:
            return PoolState("False", Reason.NOT_PERMITTED, OFF)
        problem = self._objects.problem(self._owner.namespace)
        if problem:
            reason = Reason.NOT_PERMITTED if ": 403" in problem else Reason.PROGRESSING
            return PoolState("False", reason, problem)
        if not self._objects.is_listed(self._owner.namespace):
            return PoolState("False", Reason.PROGRESSING, NOT_LISTED)
        return None

    async def _try(self, spec: QueueWorkerSpec) -> PoolState:
        try:
            await self._carry_out()
        except PoolProblem as error:
            self._refused_at = self._clock()
            return PoolState("False", error.reason, str(error))
        except ApiException as error:
            text = f"the API server answered {reason_of(error)} to a change of the pool: it is tried again"
            return PoolState("False", Reason.PROGRESSING, text)
        except UNREACHABLE as error:  # it may be a webhook that hangs: then the status can be written all the same
            text = f"the API server does not answer a change of the pool ({reason_of(error)}): it is tried again"
            return PoolState("False", Reason.PROGRESSING, text)
        self._refused_at = float("-inf")
        return pool_state(self._wanted(spec), *self._seen(), self._plan, self._wall_clock())

    async def _carry_out(self) -> None:
        bodies = self._bodies
        if bodies is None:
            if self._plan.remove:
                await self._remove()
            return
        if len(self._owner.name) > MAX_NAME:
            text = f"the name {self._owner.name} is too long for the labels of its pods: at most {MAX_NAME} characters"
            raise PoolProblem(Reason.INVALID_TEMPLATE, text)
        if self._clock() - self._checked_at >= CHECK_SECONDS:
            await self._apply(SERVICE, bodies.service)
            await self._apply(BUDGET, bodies.budget)
            self._checked_at = self._clock()
        await self._end_idle()
        if self._differs(bodies):
            body = bodies.with_replicas(self._plan.replicas, self._plan.awaited)
            applied = await self._apply(STATEFUL_SET, body)
            self._ends.clear()
            assert self._objects is not None
            self._objects.stateful_sets.changed(None, applied)
        if self._plan.delete is not None:
            await self._api.delete_pod(self._plan.delete)

    def _differs(self, bodies: PoolBodies) -> bool:
        """Whether the StatefulSet is not as it should be. A new leader applies it once, whatever it looks like."""
        seen, _ = self._seen()
        last = self._applied.get(STATEFUL_SET)
        if seen is None or last is None or seen.meddlers or seen.generation != last:
            return True
        wanted = (bodies.template_hash, self._plan.replicas, self._plan.awaited)
        return (seen.template_hash, seen.replicas, seen.awaited) != wanted

    async def _apply(self, kind: Kind, body: Body) -> Body:
        try:
            applied = await self._api.apply(kind, body)
        except UNREACHABLE:
            self._applied.pop(kind, None)  # the answer may be what is lost
            raise
        done = _done_by_others(applied, self._applied.get(kind))
        if done:
            self._announce(ObjectEvent("Warning", "PoolRestored", f"{kind.name} {body['metadata']['name']} {done}"))
        self._applied[kind] = generation_of(applied.body)
        return applied.body

    async def _end_idle(self) -> None:
        """Delete the pods that go with the next change of the StatefulSet. If that change fails, they are made again.

        A pod that cannot be deleted holds the change up for a few tries only: then the StatefulSet deletes it.
        """
        pods = [pod for pod in self._plan.idle if self._ends[pod.name] < MAX_ENDS]
        await self._api.end_pods(pods, self._ends)

    async def _remove(self) -> None:
        """The StatefulSet last: as long as it is there, a leader knows that there is something to remove."""
        for kind in (SERVICE, BUDGET):
            await self._api.delete(kind, pool_name(self._owner.name))
        await self._end_idle()
        await self._api.delete(STATEFUL_SET, pool_name(self._owner.name))
        self._ends.clear()
        self._applied.clear()

    # --- when the object goes

    async def end(self, tasks: Mapping[str, int] | None) -> None:
        """Delete the pods without a task, which garbage collection would give the time of one, and the StatefulSet.

        `tasks` are those by pod that may still run; None if nobody knows. Raises nothing that the API server could
        cause: garbage collection deletes what is left.
        """
        stateful_set, pods = self._seen()
        if stateful_set is None or tasks is None:
            return
        idle = [pod for pod in pods if not pod.terminating and not tasks.get(pod.name)]
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._api.end_pods(idle, self._ends)
                await self._api.delete(STATEFUL_SET, stateful_set.name)
        except (PoolProblem, *FAILED) as error:
            why = str(error) if isinstance(error, PoolProblem) else reason_of(error)
            text = "%s/%s: garbage collection deletes the pool, and idle pods wait for their preStop hook: %s"
            log.warning(text, self._owner.namespace, self._owner.name, why)

    # --- what is wanted, and what is there

    def _take(self, spec: QueueWorkerSpec) -> None:
        if spec == self._spec:
            return
        self._spec = spec
        self._checked_at = self._refused_at = float("-inf")
        managed = spec.executors.template is not None
        self.count = spec.executors.count if managed else None
        self._bodies = pool_bodies(self._owner, spec) if managed else None

    def _wanted(self, spec: QueueWorkerSpec) -> WantedPool:
        drain = float(spec.routing.task_timeout_seconds + DRAIN_MARGIN_SECONDS)
        if self._bodies is None:
            return WantedPool(0, "", drain)
        return WantedPool(spec.executors.count, self._bodies.template_hash, drain)

    def _seen(self) -> tuple[PoolStatefulSet | None, list[PoolPod]]:
        if self._objects is None:
            return None, []
        namespace, name, uid = self._owner
        return self._objects.stateful_set(namespace, name, uid), self._objects.pods_of(namespace, name)


def _done_by_others(applied: Applied, last: int | None) -> str:
    """What somebody else did since this leader left the object in that generation, and what was done about it."""
    if applied.found is None:
        return "was deleted: it was created again" if last is not None else ""
    if applied.meddlers:
        return f"was changed by {', '.join(applied.meddlers)}: its spec was put back"
    if last is not None and generation_of(applied.found) != last:
        return "was changed: its spec was put back"
    return ""


def knows_rivals(snapshot: Snapshot | None) -> bool:
    """Whether a pod that seems idle is: while Redis is away, nobody knows of another leader's router that drains."""
    return snapshot is not None and snapshot.journal.ok


def tasks_by_pod(snapshot: Snapshot | None) -> dict[str, int] | None:
    """Tasks in flight by the name of their executor. None if nobody knows: there is no router, or another leader's
    router still drains.
    """
    if snapshot is None or snapshot.rivals:
        return None
    tasks: dict[str, int] = {}
    for executor in snapshot.executors:
        tasks[executor.name] = tasks.get(executor.name, 0) + executor.in_flight
    for name, number in snapshot.awaited.items():
        tasks[name] = max(number, tasks.get(name, 0))
    return tasks


async def tasks_given_up(
    draining: asyncio.Task[None], drain_seconds: float, snapshot: Callable[[], Snapshot | None]
) -> dict[str, int] | None:
    """Wait for the end of a router's drain. Returns the tasks by pod that the router gave up, and that may still run.

    None if nobody knows.
    """
    await asyncio.wait([draining], timeout=max(0.0, drain_seconds - LAST_LOOK_SECONDS))
    seen = snapshot()
    tasks = tasks_by_pod(seen) if knows_rivals(seen) else None
    await asyncio.wait([draining])
    return tasks
