"""What a valid spec says that does something other than one may expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.resource.executors_spec import ExecutorsSpec
from queueworker.resource.spec import Recovery

if TYPE_CHECKING:
    from queueworker.resource.spec import QueueWorkerSpec, RoutingSpec


def warnings(spec: QueueWorkerSpec) -> tuple[str, ...]:
    """In sentences that say what to do."""
    return tuple(filter(None, (_drain_warning(spec.routing), _count_warning(spec.executors))))


def _drain_warning(routing: RoutingSpec) -> str:
    drain, task = routing.drain_seconds, routing.task_timeout_seconds
    if drain >= task:
        return ""
    then = "run again" if routing.recovery is Recovery.RETRY else "are reported as failed"
    return (
        f"routing.drainSeconds ({drain}) is less than routing.taskTimeoutSeconds ({task}): tasks that do not end "
        f"within {drain} s when the router stops {then}; raise drainSeconds to at least {task}"
    )


def _count_warning(executors: ExecutorsSpec) -> str:
    """`kubectl scale` sets the count, and cannot say that it has no effect."""
    way = "endpoints" if executors.endpoints else "service" if executors.service is not None else ""
    if not way or executors.count == ExecutorsSpec.model_fields["count"].default:
        return ""
    return (
        f"executors.count ({executors.count}, which `kubectl scale` sets) has no effect with executors.{way}: "
        f"{'change the list' if way == 'endpoints' else 'scale what is behind the Service'} instead"
    )
