"""The seam to tracing: what the router tells about a task. It knows nothing of OpenTelemetry.

Off, there is no tracer, and the hot path only asks whether there is a span. `processes/spans.py` implements these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from queueworker.routing.wire.task import Task


class TaskSpan(Protocol):
    """The span of a task. One attempt or one report is under way at a time. No method raises or waits."""

    def attempt(self, executor: str, url: str, number: int) -> str:
        """An attempt begins. Returns the lines for the head of its request, each with its end."""
        ...

    def attempt_running(self) -> None:
        """The executor is asynchronous, and has the task."""
        ...

    def attempt_failed(self, failure: str, status: int | None) -> None:
        """The attempt gave no result. `status` is that of the executor's answer, if there was one."""
        ...

    def attempt_ended(self) -> None: ...

    def report(self) -> None:
        """The queue is about to be told the outcome."""
        ...

    def reported(self, *, completed: bool, known: bool) -> None:
        """The queue was told. `known`: it knew the task."""
        ...

    def end(self) -> None:
        """Nothing more is done for the task here. It was left to another router if it was not reported."""
        ...


class Tracer(Protocol):
    counts: SpanCounts

    def task(self, group: str, task: Task, queue_url: str, *, recovered: bool) -> TaskSpan:
        """The span of a task that was pulled now, or `recovered` from the journal of a router that died."""
        ...


@dataclass(slots=True)
class SpanCounts:
    """What became of the spans of this process."""

    exported: int = 0
    """The receiver took them."""
    failed: int = 0
    """They could not be sent, or the receiver refused them."""
    dropped: int = 0
    """Too many others waited."""
