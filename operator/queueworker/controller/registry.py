"""The state of the operator: its runners, and what its HTTP API shows. Here `/readyz` is decided."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queueworker.controller.kinds import QUEUE_WORKERS
from queueworker.web.source import ApiFailure, LeaseChange, OperatorCounters, OperatorView, WatchView
from queueworker.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queueworker.controller.runner import ObjectRunner
    from queueworker.controller.watches import Key, Watch
    from queueworker.routing.config import RouterConfig
    from queueworker.routing.snapshot import Snapshot
    from queueworker.web.source import ObjectView

# A replica without a success of the API server for this long is not ready. Its routers continue.
SILENCE_SECONDS = 30.0
MAX_NAMED = 5
"""A reason names at most so many watches or objects."""


class Registry:
    """The runners of this operator and its state; the source of its HTTP API."""

    def __init__(self, identity: str = "") -> None:
        self.identity = identity
        """Our name in the Lease."""
        self.runners: dict[Key, ObjectRunner] = {}
        self.present: set[Key] = set()
        """The objects that exist and that this operator should route for, by namespace and name."""
        self.watches: Sequence[Watch] = ()
        """Those of this term; none on a standby."""
        self.leading = False
        self.leader = ""
        """The holder of the Lease, as it was seen last."""
        self.counters = OperatorCounters()
        self._leader_address = ""
        self._lease_refusal = ""
        self.stopping = False
        self._alive_at = float("-inf")
        """Monotonic time in seconds of the last success of a call to the API server."""

    def mark_alive(self) -> None:
        """A call to the API server has succeeded."""
        self._alive_at = time.monotonic()

    def count_lease_change(self, change: LeaseChange) -> None:
        self.counters.lease_changes[change] += 1

    def count_api_error(self, failure: ApiFailure) -> None:
        self.counters.api_errors[failure] += 1

    def see_leader(self, holder: str, address: str = "") -> None:
        """The holder of the Lease and the URL of its HTTP API were seen; empty if there is none."""
        self.leader, self._leader_address = holder, address

    def see_lease_refusal(self, refusal: str) -> None:
        """Why the API server refuses the Lease to us; empty if it does not."""
        self._lease_refusal = refusal

    def snapshots(self) -> Iterable[Snapshot]:
        return [snapshot for runner in self.runners.values() if (snapshot := runner.snapshot()) is not None]

    def objects(self) -> Iterable[ObjectView]:
        return (runner.view() for runner in list(self.runners.values()))

    def object(self, group: str) -> ObjectView | None:
        runner = self._runner(group)
        return runner.view() if runner is not None else None

    def config(self, group: str) -> RouterConfig | None:
        runner = self._runner(group)
        return runner.config if runner is not None else None

    def _runner(self, group: str) -> ObjectRunner | None:
        namespace, _, name = group.partition("/")
        return self.runners.get((namespace, name))

    def has_rivals(self) -> bool:
        """True if another operator routes for one of our objects, according to Redis."""
        return any(snapshot.rivals for snapshot in self.snapshots())

    @property
    def watching(self) -> bool:
        """Whether a watch of QueueWorkers works."""
        return any(watch.up for watch in self.watches if watch.kind is QUEUE_WORKERS)

    def operator(self) -> OperatorView:
        watches = [WatchView(w.kind.name, w.namespace, w.up) for w in self.watches]
        ready, reason = self.ready()
        return OperatorView(
            self.leading,
            self.leader,
            watches,
            self.identity,
            self._leader_address,
            unready="" if ready else reason,
            counters=self.counters,
        )

    def live(self) -> tuple[bool, str]:
        """Always alive when it can answer: a restart helps only if the event loop hangs."""
        return True, "stopping" if self.stopping else "running"

    def ready(self) -> tuple[bool, str]:
        """Ready are a leader that watches its objects and runs them all, and a standby that may have the Lease."""
        if self.stopping:
            return False, "stopping: draining the routers"
        silence = time.monotonic() - self._alive_at
        if silence > SILENCE_SECONDS:
            since = "since the start" if silence == float("inf") else f"for {silence:.0f} s"
            meanwhile = "routing continues with the last known objects" if self.leading else "no standby can take over"
            return False, f"the API server has not answered {since}; {meanwhile}"
        if not self.leading and self.runners:
            last = counted(len(self.runners), "router")
            return False, f"{self.leader or 'nobody'} leads; draining {last} of the last term"
        if not self.leading and self._lease_refusal:
            return False, f"this replica cannot lead: {self._lease_refusal}"
        if not self.leading:
            return True, f"standing by; {self.leader or 'nobody'} leads"
        if not self.watching:
            return False, f"leading, but no watch of QueueWorkers works yet{self._problems()}"
        without = [f"{namespace}/{name}" for namespace, name in sorted(self.present - self.runners.keys())]
        if without:
            return False, f"leading, but nothing runs for {_some(without)}"
        return True, f"leading, with {counted(len(self.runners), 'QueueWorker')}{self._problems()}"

    def _problems(self) -> str:
        refused = [f"{watch} ({watch.problem})" for watch in self.watches if watch.problem]
        return f"; cannot be watched: {_some(refused)}" if refused else ""


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
