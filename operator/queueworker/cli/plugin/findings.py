"""What `check` decides: pure functions from what was read to findings, each with what to do."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from queueworker.cli.plugin.times import seconds, time_of
from queueworker.cli.plugin.values import Level
from queueworker.resource.names import LABEL_QUEUEWORKER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from queueworker.cli.plugin.live import Live
    from queueworker.cli.plugin.values import LinkView, View

INSTALL = "install the operator: `kubectl apply --server-side -k manifests/default`, or its Helm chart"
MAX_LISTED = 5
CLOCK_SECONDS = 2
"""How far the clocks of two machines may be apart without a word."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is one word for scripts; `subject` is namespace/name, or empty for the operator itself."""

    level: Level
    check: str
    message: str
    advice: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Right:
    """A right that the operator needs, as `kubectl auth can-i` writes it. Without a name it is about all objects."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}{f'/{self.subresource or self.name}' if self.subresource or self.name else ''}"


RIGHTS = (
    *(Right(verb, "crucible.dev", "queueworkers") for verb in ("list", "watch", "patch")),
    Right("patch", "crucible.dev", "queueworkers", "status"),
    *(Right(verb, "", "events") for verb in ("create", "patch")),
    *(Right(verb, "discovery.k8s.io", "endpointslices") for verb in ("list", "watch")),
)
"""In the objects' namespaces, as in manifests/rbac/role.yaml, less Secrets: of those, it needs what objects name."""


# --- the operator


def crd(served: bool, schema: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> Finding:
    """`schema` is that of the cluster's CRD; None if it may not be read."""
    if not served:
        advice = "`queueworker crd | kubectl apply --server-side -f -`"
        return Finding(Level.ERROR, "crd", "the CRD of QueueWorkers is not installed", advice)
    missing = [] if schema is None else sorted(_fields(ours) - _fields(schema))
    if missing:
        message = f"the CRD is older than this command: it has no {_some(missing)}"
        return Finding(Level.WARNING, "crd", message, "apply the CRD of the operator's version")
    return Finding(Level.OK, "crd", "the CRD of QueueWorkers is installed")


def _fields(schema: Mapping[str, Any], path: str = "") -> set[str]:
    """The paths of all fields of a schema."""
    found = set()
    for name, field in (schema.get("properties") or {}).items():
        found |= {f"{path}{name}"} | _fields(field, f"{path}{name}.")
    return found


def leader(lease: Mapping[str, Any] | None, where: str, now: datetime, *, renews: bool = False) -> Finding:
    """`lease` is the operator's Lease at `where`; None if there is none. `renews`: its holder was seen to renew it, so
    that it leads, whatever the clocks say.
    """
    namespace = where.partition("/")[0]
    if lease is None:
        return Finding(Level.ERROR, "leader", f"there is no Lease {where}: no operator has ever led", INSTALL)
    spec = lease.get("spec") or {}
    renewed = time_of(spec.get("renewTime"))
    age = (now - renewed).total_seconds() if renewed else float("inf")
    holder = str(spec.get("holderIdentity") or "")
    ago = "never" if renewed is None else f"{seconds(age)} ago" if age > -CLOCK_SECONDS else "in the future"
    look = f"see `kubectl get pods -n {namespace}`, and their logs"
    if not holder:
        return Finding(Level.ERROR, "leader", f"nobody leads; the Lease {where} was released {ago}", look)
    if -CLOCK_SECONDS <= age <= float(spec.get("leaseDurationSeconds") or 0) + CLOCK_SECONDS:
        return Finding(Level.OK, "leader", f"leader {holder} renewed its Lease {ago}")
    if renews:
        message = f"leader {holder} renews its Lease; its clock and the one here are {seconds(abs(age))} apart"
        return Finding(Level.WARNING, "leader", message, "set the clocks, of this machine and of the operator's node")
    return Finding(Level.ERROR, "leader", f"nobody leads; {holder} renewed the Lease {where} {ago}", look)


def operator(live: Live, ours: str) -> Finding:
    """Whether the operator answers, and in which version."""
    if live.problem:
        return Finding(Level.WARNING, "operator", live.problem, "what follows is from the objects' status")
    if live.version and live.version != ours:
        message = f"the operator has version {live.version}, this command {ours}"
        return Finding(Level.WARNING, "version", message, "use the same version of both")
    if not live.version:
        return Finding(Level.WARNING, "version", f"the operator is older than this command ({ours})", "upgrade it")
    return Finding(Level.OK, "operator", f"the operator answers; version {live.version}")


def rights(refused: Iterable[Right] | None, account: str, namespace: str) -> Finding:
    """`refused` are the rights that the service account lacks; None if that may not be asked."""
    if refused is None:
        advice = "allow `create subjectaccessreviews`, or ask somebody who may"
        return Finding(Level.OFF, "rights", f"not checked: the rights of {account}", advice)
    missing = list(refused)
    if missing:
        message = f"the operator ({account}) may not {_some(map(str, missing))} in {namespace}"
        advice = "apply manifests/rbac, or the chart with rbac.create"
        if all(right.name for right in missing):
            advice = "name the Secret in rbac.secrets of the chart, or allow it by a Role of your own"
        return Finding(Level.ERROR, "rights", message, advice)
    return Finding(Level.OK, "rights", f"the operator has its rights in {namespace}")


# --- one object


def of_object(view: View) -> Iterator[Finding]:
    """What the object, its peers and its executors are like."""
    key = view.key
    yield _ready(view)
    for check, name, link in (
        ("queue", "the queue", view.queue),
        ("events", "Redis (events)", view.events),
        ("journal", "Redis (journal)", view.journal),
    ):
        yield _peer(key, check, name, link)
    if view.pool is not None:
        yield _pool(view, view.pool)
    yield from _executors(view)


def _ready(view: View) -> Finding:
    state = view.state
    text = f"{state.word}: {state.message}" if state.message else state.word
    advice = {
        "Suspended": f"`kubectl queueworker resume {view.name} -n {view.namespace}`",
        "Unknown": "see the leader above; does the operator watch this namespace?",
        "Standby": "set migration.celeryPercent below 100, or forceLegacyQueue",
        "NoExecutors": "see the executors below",
        "Degraded": "see the errors below",
        "NoLeader": "see the leader above",
    }.get(state.word, "")
    return Finding(state.level, "ready", text, advice, view.key)


def _peer(key: str, check: str, name: str, link: LinkView) -> Finding:
    """A connected peer with a message is one that is not set up as it should be."""
    if link.level is Level.OK and link.message:
        return Finding(Level.WARNING, check, f"{check}: {link.message}", "", key)
    if link.level is Level.ERROR:
        return Finding(Level.ERROR, check, f"{check}: {link.message or f'{name} is not reachable'}", "", key)
    if link.level is Level.OFF:
        return Finding(Level.OFF, check, f"{name}: {link.message or 'not known yet'}", "", key)
    return Finding(Level.OK, check, f"{name} is connected", "", key)


def _pool(view: View, pool: LinkView) -> Finding:
    """The pods that the operator runs. Some time after a change they are not ready yet."""
    if pool.level is Level.OK:
        return Finding(Level.OK, "pool", f"the pool: {pool.message}", "", view.key)
    level = Level.WARNING if pool.reason in {"Progressing", "Removing"} else Level.ERROR
    advice = f"`kubectl describe statefulset,pods -n {view.namespace} -l {LABEL_QUEUEWORKER}={view.name}`"
    return Finding(level, "pool", f"the pool is not ready ({pool.reason}): {pool.message}", advice, view.key)


def _executors(view: View) -> Iterator[Finding]:
    bad = [e for e in view.executors if e.level is Level.ERROR]
    for e in bad[:MAX_LISTED]:
        why = f": {e.last_failure}" if e.last_failure else ""
        yield Finding(
            Level.ERROR, "executor", f"{e.name} is {e.state}{why}", f"ask {e.url}{view.health_path}", view.key
        )
    if len(bad) > MAX_LISTED:
        more = f"{len(bad) - MAX_LISTED} more executors are unhealthy"
        yield Finding(
            Level.ERROR, "executor", more, f"`kubectl queueworker status {view.name} -n {view.namespace}`", view.key
        )
    if not view.executors_desired:
        pool_is_fault = view.pool is not None and view.pool.level is not Level.OK
        advice = "see the pool above" if pool_is_fault else "see spec.executors: count, endpoints, service, drained"
        yield Finding(Level.ERROR, "executors", "there are no executors that may get tasks", advice, view.key)
    elif not bad:
        text = f"{view.executors_healthy} of {view.executors_desired} executors are healthy"
        level = Level.OK if view.executors_healthy else Level.WARNING
        yield Finding(level, "executors", text, "", view.key)
    if view.drained:
        text = f"drained by spec.executors.drained: {_some(view.drained)}"
        advice = f"`kubectl queueworker undrain {shlex.quote(view.drained[0])} {view.name} -n {view.namespace}`"
        yield Finding(Level.OFF, "drained", text, advice, view.key)


def services(key: str, missing: Mapping[str, str]) -> Iterator[Finding]:
    """`missing` are host names of the spec that no Service has, with the field that names each."""
    for host, field in list(missing.items())[:MAX_LISTED]:
        message = f"DNS: {host} ({field}) is no Service of the namespace {key.partition('/')[0]}"
        yield Finding(Level.ERROR, "dns", message, f"create the Service, or correct {field}", key)
    if len(missing) > MAX_LISTED:
        message = f"DNS: {len(missing) - MAX_LISTED} more hosts are no Services"
        yield Finding(Level.ERROR, "dns", message, "compare spec.executors with `kubectl get services`", key)


def secret(key: str, field: str, name: str, data_key: str, found: Mapping[str, Any] | None) -> Finding:
    """`found` is the Secret that the field names; None if there is none."""
    if found is None:
        message = f"{field}: there is no Secret {name}"
        return Finding(Level.ERROR, "secret", message, f"create it with the key {data_key}", key)
    if data_key not in (found.get("data") or {}):
        return Finding(Level.ERROR, "secret", f"{field}: the Secret {name} has no key {data_key}", "add the key", key)
    return Finding(Level.OK, "secret", f"{field}: the Secret {name} has the key {data_key}", "", key)


def counts(findings: Iterable[Finding]) -> tuple[int, int, int]:
    """Errors, warnings and all."""
    found = list(findings)
    levels = [finding.level for finding in found]
    return levels.count(Level.ERROR), levels.count(Level.WARNING), len(found)


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = len(found) - MAX_LISTED
    return ", ".join(found[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
