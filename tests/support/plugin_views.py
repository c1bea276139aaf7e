"""Objects and answers of the operator, made by hand, for the screens of `kubectl queueworker`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from queueworker.cli.plugin.live import Live
from queueworker.cli.plugin.values import View
from queueworker.cli.plugin.view import view

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
KEY = "default/legacy"
LATENCIES = {
    "failed_per_minute": 4,
    "p50_seconds": 0.9,
    "p95_seconds": 3.2,
    "pipeline": {"pulled": 0, "executing": 3, "to_report": 0, "to_publish": 37},
}


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-01T11:00:00Z",
    }


def body(*conditions: dict[str, Any], spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """An object that routes, as the API server has it. `conditions` replace those of the same type."""
    known = {
        "Ready": condition("Ready", "True", "Routing", "routing to 2 of 2 executors"),
        **{kind: condition(kind, "True", "Connected") for kind in ("QueueReachable", "EventsPublished")},
        "JournalWritable": condition("JournalWritable", "True", "Connected"),
    } | {c["type"]: c for c in conditions}
    endpoints = [
        {"name": f"executor-{n}", "url": f"http://executor-{n}:8083", "healthy": True, "inFlight": 1, "capacity": 2}
        | {"lastCheckTime": "2026-11-01T11:59:50Z", "reason": ""}
        for n in (1, 2)
    ]
    return {
        "metadata": {
            "namespace": "default",
            "name": "legacy",
            "generation": 1,
            "resourceVersion": "7",
            "managedFields": [{"manager": "operator", "subresource": "status", "time": "2026-11-01T11:59:46Z"}],
        },
        "spec": spec or {},
        "status": {
            "observedGeneration": 1,
            "conditions": list(known.values()),
            "executors": {"desired": 2, "healthy": 2, "endpoints": endpoints},
            "tasks": {"completed": 190, "failed": 10, "inFlight": 2, "perMinute": 30},
            "queue": {"url": "http://queue:8081", "depth": 4},
        }
        | status,
    }


def executor(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "name": f"executor-{number}",
        "url": f"http://executor-{number}:8083",
        "healthy": True,
        "in_flight": 0,
        "capacity": 2,
        "last_check_time": NOW.timestamp() - 0.3,
        "reason": "",
        "leaving": False,
    } | fields


def worker(*executors: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The operator's answer for one object."""
    link = {"connected": True, "reason": "Connected", "message": ""}
    return {
        "name": KEY,
        "queue": link | {"url": "http://queue:8081", "depth": 118},
        "executors": list(executors or (executor(1), executor(2))),
        "tasks": {"completed": 200, "failed": 12, "in_flight": 3, "per_minute": 412} | LATENCIES,
        "events": link | {"buffered": 37, "dropped": 0},
        "journal": link,
    } | fields


def live(*executors: dict[str, Any], version: str = "", **fields: Any) -> Live:
    return Live({KEY: worker(*executors, **fields)}, {KEY: [0, 50, None, 100]}, "pod-a", version)


AWAY = Live(problem="no replica of the operator is ready")


def seen(answer: Live = AWAY, *conditions: dict[str, Any], **fields: Any) -> View:
    """The view of the object with that answer of the operator."""
    return view(body(*conditions, **fields), answer, NOW, version="1.0.0")
