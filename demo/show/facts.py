"""The state of everything at one moment: plain values, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

FEW_EVENTS = 20
"""As many events may wait for Redis when all is well: they are published in batches."""


@dataclass(frozen=True, slots=True)
class Executor:
    """One executor, as the router's `/status` has it."""

    name: str
    healthy: bool
    in_flight: int
    capacity: int
    leaving: bool = False

    @property
    def number(self) -> int:
        return int(self.name.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Router:
    """The router that leads, by its `/status`. `queue` and `redis` are None before its first exchange with them."""

    url: str
    executors: tuple[Executor, ...]
    queue: bool | None
    redis: bool | None
    buffered: int
    in_flight: int
    recovered: int

    @property
    def pool(self) -> tuple[Executor, ...]:
        return tuple(e for e in self.executors if not e.leaving)


@dataclass(frozen=True, slots=True)
class Pod:
    """`status` is what `kubectl get pods` says, `age` is in seconds."""

    name: str
    status: str
    ready: bool
    age: float
    leads: bool = False

    @property
    def leaving(self) -> bool:
        return self.status == "Terminating"


@dataclass(frozen=True, slots=True)
class Stored:
    """Outcomes in the storage worker's database."""

    completed: int = 0
    failed: int = 0
    on_purpose: int = 0
    """Failures of tasks that the load made to fail."""

    @property
    def total(self) -> int:
        return self.completed + self.failed


@dataclass(frozen=True, slots=True)
class Facts:
    """`at` is in seconds on the monotonic clock. `router` is None while none leads or answers.

    The counts are the queue's; while it does not answer, they are the last ones.
    """

    at: float
    router: Router | None
    queue_answers: bool
    submitted: int
    handed_out: int
    reported: int
    stored: Stored
    legacy: Legacy | None = None
    pods: tuple[Pod, ...] = ()
    """On a cluster: the operator's and the platform's."""

    @property
    def under_way(self) -> int:
        return max(0, self.submitted - self.stored.total)

    @property
    def executing(self) -> int:
        """Tasks that executors are running."""
        return 0 if self.router is None else sum(e.in_flight for e in self.router.executors)

    @property
    def calm(self) -> bool:
        """Everything is up: nothing is broken, and nothing waits for something that was."""
        router = self.router
        if router is None or not self.queue_answers:
            return False
        healthy = all(e.healthy and not e.leaving for e in router.executors)
        linked = bool(router.queue and router.redis)
        return healthy and bool(router.executors) and linked and router.buffered < FEW_EVENTS

    @property
    def idle(self) -> bool:
        """Everything is up, and there is no task that anybody could still work on."""
        return (
            self.calm and self.router is not None and self.router.in_flight == 0 and self.submitted == self.handed_out
        )


@dataclass(frozen=True, slots=True)
class Legacy:
    """The loop of the legacy worker beside it, with a queue of its own."""

    submitted: int
    handed_out: int
    reported: int
    stored: int

    @property
    def lost(self) -> int:
        """Tasks that were handed out and have no outcome, except the one that the loop works on."""
        return max(0, self.handed_out - self.stored - 1)


def router_from(url: str, status: dict[str, Any]) -> Router:
    """The router in the answer of `/status/{namespace}/{name}`."""
    fields = ("name", "healthy", "in_flight", "capacity", "leaving")
    return Router(
        url=url,
        executors=tuple(Executor(*(e[field] for field in fields)) for e in status["executors"]),
        queue=_connected(status["queue"]),
        redis=_connected(status["events"], status["journal"]),
        buffered=status["events"]["buffered"],
        in_flight=status["tasks"]["in_flight"],
        recovered=status["tasks"]["recovered"],
    )


def pod_from(pod: dict[str, Any], leader: str, now: float) -> Pod:
    """The pod in an answer of the API server. `leader` is the name of the one that leads, `now` Unix time."""
    metadata, status = pod["metadata"], pod.get("status", {})
    conditions = {found["type"]: found["status"] for found in status.get("conditions", [])}
    return Pod(
        name=metadata["name"],
        status=_pod_status(metadata, status),
        ready=conditions.get("Ready") == "True",
        age=max(0.0, now - datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()),
        leads=metadata["name"] == leader,
    )


def _pod_status(metadata: dict[str, Any], status: dict[str, Any]) -> str:
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    states = [container.get("state", {}) for container in status.get("containerStatuses", [])]
    found = (state.get("waiting") or state.get("terminated") or {} for state in states)
    reasons = [reason for details in found if (reason := details.get("reason"))]
    return str(reasons[0] if reasons else status.get("phase", "Unknown"))


def _connected(*links: dict[str, Any]) -> bool | None:
    """False if one of them is down, None if one is not known yet."""
    if all(link["connected"] for link in links):
        return True
    return None if all(link["connected"] or link["reason"] == "Unknown" for link in links) else False
