"""What `kubectl queueworker check` decides, and how it says it."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.cli.plugin import findings
from queueworker.cli.plugin.check_screen import check_lines
from queueworker.cli.plugin.checks import short_hosts
from queueworker.cli.plugin.findings import Finding, Right
from queueworker.cli.plugin.live import Live
from queueworker.cli.plugin.screen import ASCII, UNICODE, Size, plain
from queueworker.cli.plugin.values import Level
from tests.support.plugin_views import AWAY, NOW, condition, executor, live, seen

WHERE = "queueworker-system/queueworker-operator"


def lease(holder: str = "pod-a", renewed: str = "2026-11-01T11:59:59Z") -> dict[str, Any]:
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 8}}


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (lease(), Level.OK, "leader pod-a renewed its Lease 1.0 s ago"),
        (
            lease(renewed="2026-11-01T11:48:00Z"),
            Level.ERROR,
            f"nobody leads; pod-a renewed the Lease {WHERE} 12 min ago",
        ),
        (lease(holder=""), Level.ERROR, "nobody leads; the Lease"),
        (
            lease(renewed="2036-01-01T00:00:00Z"),
            Level.ERROR,
            f"nobody leads; pod-a renewed the Lease {WHERE} in the future",
        ),
        (None, Level.ERROR, f"there is no Lease {WHERE}: no operator has ever led"),
    ],
)
def test_a_lease_tells_who_leads(found: dict[str, Any] | None, level: Level, words: str) -> None:
    finding = findings.leader(found, WHERE, NOW)
    assert finding.level is level
    assert finding.message.startswith(words)
    assert (level is Level.OK) is not bool(finding.advice), "an error says what to do"


@pytest.mark.parametrize("renewed", ["2026-11-01T10:00:00Z", "2026-11-01T14:00:00Z"])
def test_a_lease_that_is_renewed_by_a_clock_hours_off_tells_who_leads_and_that_the_clocks_differ(renewed: str) -> None:
    finding = findings.leader(lease(renewed=renewed), WHERE, NOW)
    assert (finding.level, finding.message.partition(";")[0]) == (Level.ERROR, "nobody leads")
    finding = findings.leader(lease(renewed=renewed), WHERE, NOW, renews=True)
    message = "leader pod-a renews its Lease; its clock and the one here are 2 h apart"
    assert (finding.level, finding.message) == (Level.WARNING, message)


def test_a_missing_crd_is_an_error_with_the_command_that_installs_it() -> None:
    finding = findings.crd(False, None, {})
    assert (finding.level, "kubectl apply" in finding.advice) == (Level.ERROR, True)


def test_an_older_crd_is_named_with_the_fields_that_it_lacks() -> None:
    ours: dict[str, Any] = {"properties": {"spec": {"properties": {"suspend": {}, "drained": {}}}}}
    theirs: dict[str, Any] = {"properties": {"spec": {"properties": {"suspend": {}}}}}
    assert findings.crd(True, theirs, ours).message == "the CRD is older than this command: it has no spec.drained"
    assert findings.crd(True, ours, theirs).level is Level.OK
    assert findings.crd(True, None, ours).level is Level.OK, "it may not be read"


@pytest.mark.parametrize(
    ("answer", "level", "check"),
    [
        (Live(version="1.0.0"), Level.OK, "operator"),
        (Live(version="0.9.0"), Level.WARNING, "version"),
        (Live(), Level.WARNING, "version"),
        (AWAY, Level.WARNING, "operator"),
    ],
)
def test_the_operators_version_is_compared(answer: Live, level: Level, check: str) -> None:
    finding = findings.operator(answer, "1.0.0")
    assert (finding.level, finding.check) == (level, check)


def test_rights_that_the_operator_lacks_are_named_as_kubectl_writes_them() -> None:
    refused = [Right("get", "", "secrets"), Right("patch", "crucible.dev", "queueworkers", "status")]
    finding = findings.rights(refused, WHERE, "team")
    assert (
        finding.message == f"the operator ({WHERE}) may not get secrets, patch queueworkers.crucible.dev/status in team"
    )
    assert findings.rights([], WHERE, "team").level is Level.OK
    assert findings.rights(None, WHERE, "team").level is Level.OFF
    assert str(Right("get", "", "secrets", name="redis")) == "get secrets/redis"


def levels(view: Any) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings.of_object(view)}


def test_an_object_that_is_well_has_no_error() -> None:
    assert set(levels(seen(live())).values()) == {Level.OK}


def test_a_redis_that_may_evict_the_journal_is_a_warning_with_what_to_set() -> None:
    message = (
        "Redis redis://redis:6379 may evict the journal (maxmemory-policy allkeys-lru): set maxmemory-policy noeviction"
    )
    link = {"connected": True, "reason": "Connected", "message": message}
    (finding,) = [f for f in findings.of_object(seen(live(journal=link))) if f.check == "journal"]
    assert (finding.level, finding.message) == (Level.WARNING, f"journal: {message}")


def test_an_unreachable_queue_is_an_error() -> None:
    down = condition("QueueReachable", "False", "ConnectionFailed", "queue http://queue:8081: connection refused")
    assert levels(seen(AWAY, down))["queue"] is Level.ERROR


def test_a_sick_executor_is_to_be_asked_for_what_the_operator_asks() -> None:
    sick, spec = executor(1, healthy=False, reason="timeout"), {"executors": {"healthCheck": {"path": "/up"}}}
    advised = [
        [f.advice for f in findings.of_object(view) if f.check == "executor"]
        for view in (
            seen(live(sick)),
            seen(live(sick), spec=spec),
        )
    ]
    assert advised == [["ask http://executor-1:8083/health"], ["ask http://executor-1:8083/up"]]


def test_many_sick_executors_are_counted() -> None:
    sick = [executor(n, healthy=False, reason="timeout") for n in range(1, 10)]
    messages = [f.message for f in findings.of_object(seen(live(*sick))) if f.check == "executor"]
    assert messages[0] == "executor-1 is unhealthy: timeout"
    assert messages[-1] == "4 more executors are unhealthy"


def test_hosts_without_a_dot_are_services_of_the_namespace() -> None:
    spec = {
        "queue": {"url": "http://queue:8081"},
        "executors": {"count": 2},
        "events": {"redisURL": "redis://10.0.0.7"},
    }
    assert short_hosts(spec, "team") == {
        "queue": "spec.queue.url",
        "executor-1": "spec.executors.count",
        "executor-2": "spec.executors.count",
    }
    assert "redis" in short_hosts({}, "team"), "the default counts"
    assert short_hosts(
        {"queue": {"url": "http://q.example.com"}, "executors": {"service": {"name": "pool"}}}, "team"
    ) == {
        "redis": "spec.events.redisURL",
        "pool": "spec.executors.service",
    }


def test_the_pods_of_a_template_are_no_services_that_somebody_has_to_make() -> None:
    template = {"spec": {"containers": [{"name": "executor", "image": "executor:1"}]}}
    managed = {"executors": {"count": 2, "template": template}, "events": {"redisURL": "redis://10.0.0.7"}}
    assert short_hosts(managed, "team") == {"queue": "spec.queue.url"}


@pytest.mark.parametrize(
    ("status", "reason", "level"),
    [("True", "AllReady", Level.OK), ("False", "Progressing", Level.WARNING), ("False", "NameTaken", Level.ERROR)],
)
def test_what_keeps_the_pool_from_being_ready_is_said(status: str, reason: str, level: Level) -> None:
    view = seen(AWAY, condition("PoolReady", status, reason, "what the operator says"))
    (finding,) = [f for f in findings.of_object(view) if f.check == "pool"]
    assert (finding.level, "what the operator says" in finding.message) == (level, True)
    assert (level is Level.OK) is not ("-l crucible.dev/queueworker=legacy" in finding.advice)
    assert "pool" not in levels(seen(AWAY)), "an object without a template has none"


FOUND = [
    Finding(Level.OK, "crd", "the CRD is installed"),
    Finding(Level.WARNING, "journal", "Redis may evict keys", "set maxmemory-policy noeviction", "default/legacy"),
    Finding(Level.ERROR, "dns", "queue is no Service", "create it", "default/legacy"),
]


def shown(*, short: bool = False, glyphs: Any = UNICODE, width: int = 80) -> list[str]:
    return plain(check_lines(FOUND, Size(width, 24), glyphs, short=short)).splitlines()


def test_each_finding_is_a_line_with_what_to_do() -> None:
    assert shown() == [
        "✔ the CRD is installed",
        "default/legacy",
        "▲ Redis may evict keys → set maxmemory-policy noeviction",
        "✕ queue is no Service → create it",
        "1 error, 1 warning in 3 checks; exit status 1",
    ]


def test_short_leaves_out_what_is_well() -> None:
    assert shown(short=True) == shown()[1:]


def test_what_to_do_has_a_line_of_its_own_where_it_does_not_fit() -> None:
    assert shown(width=50)[2:5] == [
        "▲ Redis may evict keys",
        "  → set maxmemory-policy noeviction",
        "✕ queue is no Service → create it",
    ]


@pytest.mark.parametrize("width", [80, 30])
def test_what_to_do_is_not_coloured(width: int) -> None:
    lines = check_lines(FOUND, Size(width, 24), UNICODE, short=True)
    styles = {style for line in lines for text, style in line if "create" in text}
    assert styles == {""}


def test_a_long_finding_is_wrapped_and_not_cut() -> None:
    lines = shown(width=30)
    assert all(len(line) <= 30 for line in lines[:-1])
    assert "set maxmemory-policy noeviction" in " ".join(" ".join(lines).split())


def test_findings_in_ascii_have_no_other_signs() -> None:
    assert all(line.isascii() for line in shown(glyphs=ASCII))


@pytest.mark.parametrize("field", ["queue.url", "events.redisURL", "executors.baseURL", "executors.endpoints"])
def test_a_url_that_cannot_be_read_is_no_service_and_does_not_end_the_check(field: str) -> None:
    part, _, name = field.partition(".")
    url = "http://[::1"
    hosts = short_hosts({part: {name: [url] if name == "endpoints" else url}}, "team")
    assert "" not in hosts
    assert field == "queue.url" or "queue" in hosts
