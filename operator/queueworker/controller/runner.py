"""One QueueWorker object: its router follows its spec, and its status follows its router."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller import finalizer, handover
from queueworker.controller import status as statuses
from queueworker.controller.cluster import FAILED, ObjectGone, StalePatch, reason_of
from queueworker.controller.conditions import Problems
from queueworker.controller.events import ObjectEvent
from queueworker.controller.handover import RivalAlarm
from queueworker.controller.inputs import InputReader
from queueworker.controller.managed_pool.objects import Owner
from queueworker.controller.managed_pool.pool import ManagedPool, tasks_given_up
from queueworker.controller.status_writer import HEARTBEAT_SECONDS, StatusWriter
from queueworker.controller.supervisor import RouterSupervisor
from queueworker.controller.view import EventLog, object_view
from queueworker.routing.aio import happens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from queueworker.controller.cluster import Cluster
    from queueworker.controller.discovery import Slices
    from queueworker.controller.managed_pool.observed import PoolObjects
    from queueworker.controller.supervisor import RouterFactory
    from queueworker.resource.spec import QueueWorkerSpec
    from queueworker.routing.config import RouterConfig
    from queueworker.routing.snapshot import Snapshot
    from queueworker.web.source import ObjectView

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Interval of a reconciliation while there is no router, while a Secret is missing, or while a peer is away."""
QUIET_SECONDS = 0.5
"""Shortest time between two reconciliations of an object whose router runs."""
RELEASE_SECONDS = 2.0
"""Interval of the tries to remove the finalizer."""


class ObjectRunner:
    """Runs from the object's first appearance until the object is gone or `stop` is called, whatever the watch does.

    More than 15 attributes: the object as it is known, its router, its status, and how far its end has come.
    """

    def __init__(
        self,
        body: Mapping[str, Any],
        cluster: Cluster,
        slices: Slices,
        identity: str,
        announce: Callable[[ObjectEvent], None],
        *,
        factory: RouterFactory,
        pool_objects: PoolObjects | None = None,
    ) -> None:
        meta = body["metadata"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.uid: str | None = meta.get("uid")
        self._group = f"{self.namespace}/{self.name}"
        self.body: Mapping[str, Any] = body
        """The object as the API server had it last."""
        self._cluster = cluster
        self._wake = asyncio.Event()
        self._spec: QueueWorkerSpec | None = None
        """The last valid spec."""
        self._problems = Problems()
        written = statuses.read(body.get("status") or {})
        self._inputs = InputReader(self.namespace, self.name, cluster, slices)
        self._pool = ManagedPool(Owner(self.namespace, self.name, self.uid or ""), cluster, pool_objects, announce)
        self._supervisor = RouterSupervisor(
            identity, self._wake.set, statuses.Totals.of(written.tasks), factory=factory
        )
        self._applied = written.observed_generation
        """Generation of the spec that the router runs."""
        self._hold = finalizer.Hold(cluster, self.namespace, self.name, self.uid)
        self._identity = identity
        self._announce = EventLog(announce)
        self._alarm = RivalAlarm()
        self._writer = StatusWriter(self.namespace, self.name, written, cluster, self._announce)
        self._gone = False
        """The object does not exist any more."""
        self._ending = asyncio.Event()
        self._end: asyncio.Task[None] | None = None
        """Not None once `_ending` is set: the end, which goes on even if nobody waits for it."""
        self._term_ends = asyncio.Event()
        self._left_behind = False
        """The next leader has to report what is in the journal of the deleted object: the term has ended before."""
        self._warn = _WarnOnce(self._group)

    # --- what it is told

    def observe(self, body: Mapping[str, Any]) -> None:
        """Take the object as the API server has it now."""
        self.body = body
        self._wake.set()
        if finalizer.is_deleted(body):
            self._begin_end(final=True)

    def gone(self) -> None:
        """The object does not exist any more: nothing is left for a later router."""
        self._gone = True
        self._begin_end(final=True)

    def surroundings_changed(self) -> None:
        """EndpointSlices, or what belongs to the pool that the operator runs."""
        self._wake.set()

    def snapshot(self) -> Snapshot | None:
        return self._supervisor.snapshot()

    @property
    def config(self) -> RouterConfig | None:
        return self._supervisor.config

    def view(self) -> ObjectView:
        about = (self._group, self._spec, self.snapshot(), self._problems)
        events, now, pool = self._announce.newest, datetime.now(UTC), self._pool.view().condition
        return object_view(*about, status=self._writer.written, events=events, now=now, pool=pool)

    async def stop(self) -> None:
        """The term ends: drain the router, and leave what is not done by then in its journal for the next leader."""
        self._term_ends.set()
        await asyncio.wait([self._begin_end(final=False)])

    # --- life

    async def run(self) -> None:
        """Return once the object is gone, or `stop` has ended. A failure is logged and tried again; meanwhile the
        router goes on.
        """
        if finalizer.is_deleted(self.body):
            self._begin_end(final=True)
        while self._end is None:
            self._wake.clear()
            await self._reconcile_and_publish()
            await happens(self._ending, QUIET_SECONDS if self.snapshot() is not None else 0)
            await happens(self._wake, self._interval())
        await self._end

    async def _reconcile_and_publish(self) -> None:
        try:
            unheld = await self._set_finalizer()
            await self._take_counts()
            await self._reconcile()
            await self._publish()
            self._warn(unheld or self._problems.given)
        except ObjectGone:
            self.gone()
        except FAILED as error:
            self._warn(_sentence(error))
        except Exception as error:
            text = f"reconciling failed ({type(error).__name__}); it is tried again; the operator's log has more"
            self._warn(text, defect=error)
            self._problems = replace(self._problems, failure=text)
            await self._publish_if_possible()

    async def _set_finalizer(self) -> str:
        """So that the object stays until its tasks are reported. Routing does not wait for it. Returns why it cannot be
        set; empty if it is.
        """
        known = self.body
        try:
            self._take(known, await self._hold.set(known))
        except FAILED as error:
            return f"the finalizer cannot be set: {_answer(error)}"
        return ""

    def _take(self, known: Mapping[str, Any], answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the answer to a patch, unless an event has come meanwhile, which may be newer. Returns what is known."""
        if self.body is known:
            self.body = answer
        return self.body

    async def _take_counts(self) -> None:
        """Add what an earlier leader counted while it drained. Routing does not wait for it."""
        first = known = self.body
        for name, counts in handover.handed_over(first).items():
            with contextlib.suppress(StalePatch, *FAILED):  # it is taken, and the body is an old one; or tried again
                patch = handover.taking(first, name)
                known = self._take(known, await self._cluster.patch_object(self.namespace, self.name, patch))
                self._supervisor.totals = self._supervisor.totals.plus(counts)

    async def _reconcile(self) -> None:
        """Read the object, and make its router follow it."""
        body = self.body
        inputs = await self._inputs.read(body, self.snapshot())
        self._problems = inputs.problems
        self._spec = inputs.spec
        generation = body["metadata"].get("generation") or 0
        if inputs.spec is not None:
            self._pool.decide(inputs.spec, self._applied if inputs.problems.spec else generation, self.snapshot())
        if inputs.config is not None and self._end is None:
            self._supervisor.drive(inputs.config, self._pool.staying(inputs.endpoints))
        handover.tell_of_rivals(self._alarm, self._group, self._spec, self.snapshot(), self._announce)
        if inputs.whole and self._supervisor.is_current:
            self._applied = generation
        if self._end is None:
            await self._pool.act()

    async def _publish(self, *, last: bool = False) -> None:
        status = statuses.build(
            self._spec,
            self.snapshot(),
            self._problems,
            previous=self._writer.written,
            totals=self._supervisor.totals,
            generation=self.body["metadata"].get("generation") or 0,
            applied=self._applied,
            name=self.name,
            now=datetime.now(UTC),
            pool=self._pool.view(),
        )
        await self._writer.write(status, last=last)

    # --- the end

    def _begin_end(self, *, final: bool) -> asyncio.Task[None]:
        """The first call decides how the router ends."""
        if self._end is None:
            self._ending.set()
            self._wake.set()
            self._end = asyncio.create_task(self._finish(final=final), name=f"end of {self._group}")
        return self._end

    async def _finish(self, *, final: bool) -> None:
        """`final`: the object is deleted, so nothing is left for a later router."""
        snapshot, keeps_pool = self.snapshot(), finalizer.orphans(self.body)
        if final and (snapshot is None or snapshot.rivals):
            await _whatever_happens(self._group, self._recover())
        seconds = self.config.spec.routing.drain_seconds if self.config is not None else 0
        draining = asyncio.create_task(self._supervisor.stop(final=final))
        looking = asyncio.create_task(tasks_given_up(draining, seconds, self.snapshot))
        await asyncio.sleep(0)  # the drain has begun, and shows
        await self._publish_if_possible(last=True)
        await _whatever_happens(self._group, draining)
        tasks, snapshot = await looking, self.snapshot()
        if final:
            if not keeps_pool:
                await _whatever_happens(self._group, self._pool.end(tasks))
            await self._release()
        elif snapshot is not None and snapshot.rivals:
            counts = self._supervisor.final_totals().minus(statuses.Totals.of(self._writer.written.tasks))
            await handover.leave(self._cluster, self.namespace, self.name, self._identity, counts)
        else:
            await self._publish_if_possible(last=True)

    async def _recover(self) -> None:
        """Report what is in the journals of others: of an earlier leader whose object we never routed for, or of one
        that still drains.
        """
        inputs = await self._inputs.read_patiently(self.body, self._term_ends)
        self._left_behind = inputs.is_awaited and self._term_ends.is_set()
        if inputs.config is None:
            self._warn("deleted without a valid spec or without its Secrets: what is in its journal cannot be reported")
            return
        await self._supervisor.recover(inputs.config, inputs.endpoints)

    async def _release(self) -> None:
        """Remove our finalizer, so that the object can go; try until it is gone, or the term ends."""
        while not (self._gone or self._left_behind) and finalizer.is_held(self.body):
            try:
                self.body = await self._hold.remove(self.body)
            except ObjectGone:
                return
            except FAILED as error:
                self._warn(f"the finalizer cannot be removed yet: {_answer(error)}")
            if finalizer.is_held(self.body) and await happens(self._term_ends, RELEASE_SECONDS):
                return

    async def _publish_if_possible(self, *, last: bool = False) -> None:
        """For the end, which does not wait for an API server that is away."""
        if self._gone:
            return  # another object may have its name by now
        try:
            await self._publish(last=last)
        except ObjectGone:
            self._gone = True
        except Exception as error:
            log.warning("%s: the status could not be written: %s", self._group, reason_of(error))

    def _interval(self) -> float:
        """Seconds until the next reconciliation if nothing wakes the runner earlier."""
        snapshot, problems = self.snapshot(), self._problems
        troubled = problems.secret or problems.failure
        waiting = snapshot is None or troubled or snapshot.queue.is_down or snapshot.journal.is_down
        return self._pool.interval or (RETRY_SECONDS if waiting else HEARTBEAT_SECONDS)


class _WarnOnce:
    """Logs a problem of an object when it begins, and not again until there was another one, or none."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._last = ""

    def __call__(self, problem: str, defect: Exception | None = None) -> None:
        """Empty if there is none. With a traceback if it is a defect of ours."""
        if problem and problem != self._last:
            log.log(logging.ERROR if defect else logging.WARNING, "%s: %s", self._group, problem, exc_info=defect)
        self._last = problem


def _sentence(error: BaseException) -> str:
    """What came of a call that failed, in a sentence: an answer, or none."""
    if not isinstance(error, ApiException):
        return f"the API server cannot be reached: {reason_of(error)}"
    advice = "; is its CRD of another version than this operator?" if error.status in {404, 422} else ""
    return f"the API server answered {_answer(error)}{advice}"


def _answer(error: BaseException) -> str:
    """What came of a call that changes the object or its status."""
    refused = isinstance(error, ApiException) and error.status == 403
    return f"{reason_of(error)}{': allow patch on queueworkers and queueworkers/status' if refused else ''}"


async def _whatever_happens(group: str, step: Awaitable[None]) -> None:
    """A defect of ours in one step of the end must not keep the object from going."""
    try:
        await step
    except Exception:
        log.exception("%s: a step of the end failed; what is left is in its journal", group)
