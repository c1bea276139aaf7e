"""One QueueWorker as a person looks at it: a pure function of the object and of what the operator says now.

An operator of another version may lack a number; it is None then, and not shown.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from queueworker.cli.plugin.executors import executors_of
from queueworker.cli.plugin.times import time_of
from queueworker.cli.plugin.values import Body, ExecutorView, Level, LinkView, Source, State, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from queueworker.cli.plugin.live import Live


def view(body: Body, live: Live, now: datetime, *, version: str = "") -> View:
    """`body` is the object as the API server has it, `live` the operator's answer, `version` ours."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    key = f"{metadata['namespace']}/{metadata['name']}"
    worker = live.workers.get(key)
    wanted = spec.get("executors") or {}
    drained = tuple(wanted.get("drained") or ())
    executors = executors_of(worker, status, drained, now)
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    pool = [e for e in executors if e.state not in {"leaving", "drained"}]
    stored = status.get("executors") or {}
    links = _links(worker, conditions)
    queue, events, journal = links.values()
    state = _state(metadata, conditions, pool, links)
    if live.leaderless and state.word != "Deleting":
        state = State(Level.ERROR, "NoLeader", live.leaderless)  # what the status says may be long over
    known = worker is not None
    healthy = sum(e.level in {Level.OK, Level.WARNING} and e.state in {"healthy", "warming", "silent"} for e in pool)
    return View(
        namespace=metadata["namespace"],
        name=metadata["name"],
        state=state,
        source=_source(body, live, worker, now),
        queue=queue,
        events=events,
        journal=journal,
        pool=_link(conditions["PoolReady"]) if "PoolReady" in conditions else None,
        executors=executors,
        executors_hidden=0 if known else max(0, int(stored.get("desired") or 0) - len(stored.get("endpoints") or ())),
        executors_healthy=healthy if known else int(stored.get("healthy") or 0),
        executors_desired=len(pool) if known else int(stored.get("desired") or 0),
        health_path=str((wanted.get("healthCheck") or {}).get("path") or "/health"),
        drained=drained,
        migration=str((status.get("migration") or {}).get("phase") or ""),
        celery_percent=int((spec.get("migration") or {}).get("celeryPercent", 50)),
        notes=_notes(live.version, version, metadata, status),
        next=_next(metadata, state, executors, drained, worker, status),
        history=tuple(live.history.get(key, ())),
        **_numbers(worker, status),
    )


def _numbers(worker: Body | None, status: Body) -> dict[str, Any]:
    if worker is None:
        tasks = status.get("tasks") or {}
        queue = status.get("queue") or {}
        return {
            "queue_url": str(queue.get("url") or ""),
            "queue_depth": queue.get("depth"),
            "in_flight": tasks.get("inFlight"),
            "per_minute": tasks.get("perMinute"),
            "completed": tasks.get("completed"),
            "failed": tasks.get("failed"),
        }
    tasks, queue, events = worker.get("tasks") or {}, worker.get("queue") or {}, worker.get("events") or {}
    stored = status.get("tasks") or {}
    return {
        "queue_url": str(queue.get("url") or ""),
        "queue_depth": queue.get("depth"),
        "events_buffered": events.get("buffered"),
        "events_dropped": events.get("dropped"),
        "in_flight": tasks.get("in_flight"),
        "per_minute": tasks.get("per_minute"),
        "failed_per_minute": tasks.get("failed_per_minute"),
        "p50_seconds": tasks.get("p50_seconds"),
        "p95_seconds": tasks.get("p95_seconds"),
        "pipeline": tasks.get("pipeline"),
        **{name: _in_all(tasks.get(name), stored.get(name)) for name in ("completed", "failed")},
    }


def _in_all(live: int | None, stored: int | None) -> int | None:
    """A router counts from its own start, the object's status goes on but is up to 15 s old."""
    return max((count for count in (live, stored) if count is not None), default=None)


# --- state


def _state(
    metadata: Body, conditions: Mapping[str, Body], pool: Iterable[ExecutorView], links: Mapping[str, LinkView]
) -> State:
    ready = conditions.get("Ready")
    if metadata.get("deletionTimestamp"):
        return State(Level.OFF, "Deleting", str((ready or {}).get("message") or "the operator drains its router"))
    if ready is None:
        return State(Level.WARNING, "Unknown", "no operator has written a status yet")
    reason, message = str(ready.get("reason") or "Unknown"), str(ready.get("message") or "")
    if ready.get("status") != "True":
        level = Level.WARNING if reason in {"Starting", "Draining"} else Level.ERROR
        return State(level, reason, message)
    if reason != "Routing":
        return State(Level.OFF, reason, message)
    if problem := _degraded(list(pool), links, conditions):
        return State(Level.WARNING, "Degraded", problem)
    return State(Level.OK, reason, message)


def _degraded(pool: list[ExecutorView], links: Mapping[str, LinkView], conditions: Mapping[str, Body]) -> str:
    """What is wrong with an object that routes; empty if nothing is."""
    found = []
    for word in ("unhealthy", "ejected"):
        count = sum(e.state == word for e in pool)
        found += [f"{count} of {len(pool)} executors {'is' if count == 1 else 'are'} {word}"] if count else []
    names = {"QueueReachable": "the queue is not reachable", "EventsPublished": "events cannot be published"}
    names["JournalWritable"] = "the journal cannot be written"
    found += [names[kind] for kind, link in links.items() if link.level is Level.ERROR]
    pool_ready = conditions.get("PoolReady") or {}
    found += [str(pool_ready.get("message") or "the pool is not ready")] if pool_ready.get("status") == "False" else []
    return "; ".join(found)


_PARTS = {"QueueReachable": "queue", "EventsPublished": "events", "JournalWritable": "journal"}


def _links(worker: Body | None, conditions: Mapping[str, Body]) -> dict[str, LinkView]:
    """The connections by the type of their condition; what the operator says now counts."""
    stored = {kind: _link(conditions.get(kind)) for kind in _PARTS}
    if worker is None:
        return stored
    return {kind: _live_link(worker.get(part), stored[kind]) for kind, part in _PARTS.items()}


def _live_link(link: Body | None, stored: LinkView) -> LinkView:
    if not link or link.get("reason") == "Unknown":
        return stored
    level = Level.OK if link.get("connected") else Level.ERROR
    since = stored.since if level is stored.level else None
    return LinkView(level, str(link.get("reason")), str(link.get("message") or ""), since)


def _link(condition: Body | None) -> LinkView:
    if condition is None:
        return LinkView(Level.OFF, message="not known yet")
    level = {"True": Level.OK, "False": Level.ERROR}.get(str(condition.get("status")), Level.OFF)
    return LinkView(
        level,
        str(condition.get("reason") or "Unknown"),
        str(condition.get("message") or ""),
        condition.get("lastTransitionTime"),
    )


def _source(body: Body, live: Live, worker: Body | None, now: datetime) -> Source:
    if worker is not None:
        return Source(live=True, replica=live.replica, age_seconds=0.0)
    written = _status_time(body["metadata"])
    note = live.problem or "the operator does not route for this object (yet)"
    age = (now - written).total_seconds() if written else None
    return Source(
        live=False, time=written.isoformat().replace("+00:00", "Z") if written else None, age_seconds=age, note=note
    )


def _status_time(metadata: Body) -> datetime | None:
    """When the object's status was written last."""
    times = [time_of(e.get("time")) for e in metadata.get("managedFields") or [] if e.get("subresource") == "status"]
    return max((time for time in times if time is not None), default=None)


# --- advice


def _notes(theirs: str, ours: str, metadata: Body, status: Body) -> tuple[str, ...]:
    found = []
    if theirs and ours and theirs != ours:
        found.append(f"the operator has version {theirs}, this command {ours}: numbers may be missing")
    generation, observed = metadata.get("generation", 0), status.get("observedGeneration", 0)
    if status and observed and generation != observed:
        found.append(f"generation {observed} of the spec runs, the object has {generation}")
    return tuple(found)


def _next(
    metadata: Body,
    state: State,
    executors: Iterable[ExecutorView],
    drained: tuple[str, ...],
    worker: Body | None,
    status: Body,
) -> tuple[str, ...]:
    where = "" if metadata["namespace"] == "default" else f" -n {metadata['namespace']}"
    name = f"{metadata['name']}{where}"
    found = []
    failed = ((worker or {}).get("tasks") or {}).get("failed") or (status.get("tasks") or {}).get("failed") or 0
    if state.level in {Level.ERROR, Level.WARNING}:
        found.append(f"kubectl queueworker check {name}")
    if state.word == "Suspended":
        found.append(f"kubectl queueworker resume {name}")
    if failed:
        found.append(f"kubectl queueworker failed list {name}")
    if drained and all(e.state == "drained" for e in executors):
        found.append(f"kubectl queueworker undrain {shlex.quote(drained[0])} {name}")
    return tuple(found)
