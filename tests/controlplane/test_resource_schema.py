"""The resource on a real API server: what it takes, what it refuses and in which words, and what it teaches."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from queueworker.resource.generate import crd_yaml
from tests.support.bad_urls import GOOD, refused
from tests.support.operating import eventually, install_crd

if TYPE_CHECKING:
    from tests.controlplane.conftest import Kubectl

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))


def worker(name: str, spec: Any) -> str:
    meta = {"name": name}
    return json.dumps({"apiVersion": "crucible.dev/v1alpha1", "kind": "QueueWorker", "metadata": meta, "spec": spec})


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"executors": {"count": -1}}, "spec.executors.count"),
    ({"executors": {"count": 1001}}, "less than or equal to 1000"),
    ({"executors": {"count": 1.5}}, "must be of type integer"),
    ({"executors": {"count": "3"}}, "must be of type integer"),
    ({"executors": {"port": 0}}, "greater than or equal to 1"),
    ({"executors": {"port": 70000}}, "less than or equal to 65535"),
    ({"executors": {"concurrency": 0}}, "spec.executors.concurrency"),
    ({"executors": {"baseURL": "executor"}}, "must be an http:// or https:// URL"),
    ({"executors": {"endpoints": ["10.0.0.7:8083"]}}, "must be an http:// or https:// URL"),
    ({"executors": {"endpoints": ["ftp://10.0.0.7"]}}, "for example http://queue:8081"),
    ({"executors": {"endpoints": [f"http://e-{i}:1" for i in range(201)]}}, "must have at most 200 items"),
    (
        {"executors": {"endpoints": ["http://e:1"], "service": {"name": "executor"}}},
        "name the executors in one way only",
    ),
    ({"executors": {"service": {}}}, "spec.executors.service.name: Required value"),
    ({"executors": {"service": {"name": "Executor!"}}}, "should match"),
    ({"executors": {"whenUnavailable": "Wait"}}, 'supported values: "Fail", "Hold"'),
    ({"executors": {"unavailableGraceSeconds": -1}}, "greater than or equal to 0"),
    ({"executors": {"healthCheck": {"path": "health"}}}, "spec.executors.healthCheck.path"),
    ({"executors": {"healthCheck": {"timeoutSeconds": 0}}}, "spec.executors.healthCheck.timeoutSeconds"),
    ({"queue": {"url": "queue:8081"}}, "must be an http:// or https:// URL with a host"),
    ({"queue": {"url": "redis://queue:8081"}}, "must be an http:// or https:// URL with a host"),
    ({"queue": {"url": ""}}, "must be an http:// or https:// URL with a host"),
    ({"queue": {"apiKeySecretRef": {"name": "key"}}}, "spec.queue.apiKeySecretRef.key: Required value"),
    ({"queue": {"apiKeySecretRef": {"name": "key", "key": ""}}}, "spec.queue.apiKeySecretRef.key"),
    ({"queue": {"pollIntervalSeconds": 0}}, "spec.queue.pollIntervalSeconds"),
    ({"queue": {"pollInterval": "1s"}}, 'unknown field "spec.queue.pollInterval"'),
    ({"routing": {"strategy": "random"}}, '"Random", "RoundRobin", "LeastLoaded", "Weighted", "Sticky"'),
    ({"routing": {"stickyKey": "Priority"}}, '"EvalID", "Code", "Language", "Engine"'),
    ({"routing": {"retry": {"attempts": 0}}}, "spec.routing.retry.attempts"),
    ({"routing": {"recovery": "Ignore"}}, 'supported values: "Retry", "Fail"'),
    ({"routing": {"journal": "Off"}}, 'supported values: "Preferred", "Required"'),
    ({"events": {"redisURL": "http://redis:6379"}}, "must be a redis:// or rediss:// URL with a host"),
    (
        {"events": {"redisURL": "redis://r:1", "redisURLSecretRef": {"name": "r", "key": "url"}}},
        "give redisURL or redisURLSecretRef, not both",
    ),
    ({"migration": {"celeryPercent": 101}}, "less than or equal to 100"),
    ({"migration": {"celeryPercent": 0.5}}, "must be of type integer"),
    ({"migration": {"decommissionAfterDays": 30}}, 'unknown field "spec.migration.decommissionAfterDays"'),
    ({"suspend": "yes"}, "must be of type boolean"),
    ({"replicas": 3}, 'unknown field "spec.replicas"'),
    ({"executors": {"endpoints": ["http://e:1", "http://e:1"]}}, 'Duplicate value: "http://e:1"'),
    ({"executors": {"service": {"name": "a.b"}}}, "should match"),
    ({"executors": {"service": {"name": "a", "port": 0}}}, "greater than or equal to 1"),
    ({"executors": {"service": {"name": "a", "port": 70000}}}, "less than or equal to 65535"),
    ({"executors": {"service": {"name": "a", "port": "HTTP"}}}, "should match"),
    ({"routing": {"retry": {"backoffSeconds": 31}}}, "backoffSeconds must not be greater than maxBackoffSeconds"),
    ({"events": {"redisURL": "unix:///run/redis.sock"}}, "must be a redis:// or rediss:// URL"),
]


@pytest.fixture(scope="module", autouse=True)
def crd(kubectl: Kubectl) -> None:
    install_crd(kubectl)


@pytest.mark.parametrize(("spec", "words"), INVALID, ids=[json.dumps(spec)[:60] for spec, _ in INVALID])
def test_an_invalid_object_is_refused_with_words_that_help(
    kubectl: Kubectl, namespace: str, spec: dict[str, Any], words: str
) -> None:
    done = kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", input=worker("bad", spec), check=False)
    assert done.returncode != 0
    assert words in done.stderr
    assert kubectl("get", "qw", "-n", namespace, "-o", "name").stdout == ""


def test_the_api_server_refuses_urls_in_the_operators_words(kubectl: Kubectl, namespace: str) -> None:
    """All in one go: a call to kubectl takes a while."""
    cases = refused(new=False) + refused(new=True)
    objects = "\n---\n".join(worker(f"bad-{number}", spec) for number, (spec, _) in enumerate(cases))
    done = kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", input=objects, check=False)
    told = dict(re.findall(r'"(bad-\d+)" is invalid: (.+(?:\n\*.+)*)', done.stderr))
    silent = [spec for number, (spec, words) in enumerate(cases) if words not in told.get(f"bad-{number}", "")]
    assert silent == []
    assert kubectl("get", "qw", "-n", namespace, "-o", "name").stdout == ""


def test_urls_that_can_work_are_taken(kubectl: Kubectl, namespace: str) -> None:
    objects = "\n---\n".join(worker(f"good-{number}", spec) for number, spec in enumerate(GOOD))
    kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", input=objects)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_taken(kubectl: Kubectl, namespace: str, sample: Path) -> None:
    assert next(yaml.safe_load_all(sample.read_text()))["kind"] == "QueueWorker"
    kubectl("apply", "-n", namespace, "--validate=strict", "-f", str(sample))


@pytest.mark.parametrize("spec", [{}, {"queue": {}}, {"executors": {"healthCheck": {}}}])
def test_defaults_are_filled_in_on_every_level(kubectl: Kubectl, namespace: str, spec: dict[str, Any]) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", spec))
    got = json.loads(kubectl("get", "qw", "legacy", "-n", namespace, "-o", "json").stdout)["spec"]
    assert got["queue"] == {"url": "http://queue:8081", "pollIntervalSeconds": 1}
    assert got["executors"]["healthCheck"]["maxAgeSeconds"] == 1
    assert got["executors"]["count"] == 1
    assert got["routing"]["retry"] == {"attempts": 1, "backoffSeconds": 1, "maxBackoffSeconds": 30}
    assert got["migration"] == {"celeryPercent": 50, "forceLegacyQueue": False}


def test_an_object_without_a_spec_has_all_defaults(kubectl: Kubectl, namespace: str) -> None:
    text = '{"apiVersion": "crucible.dev/v1alpha1", "kind": "QueueWorker", "metadata": {"name": "bare"}}'
    kubectl("apply", "-n", namespace, "-f", "-", input=text)
    got = json.loads(kubectl("get", "qw", "bare", "-n", namespace, "-o", "json").stdout)
    assert got["spec"]["routing"]["strategy"] == "Random"


def test_explain_has_words_for_every_field(kubectl: Kubectl) -> None:
    def walk(node: dict[str, Any], path: str) -> list[str]:
        found = [path] if path else []
        inner = node.get("items", node)
        for name, child in inner.get("properties", {}).items():
            found += walk(child, f"{path}.{name}")
        return found

    schema = yaml.safe_load(crd_yaml())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    paths = walk(schema["spec"], ".spec") + walk(schema["status"], ".status")
    assert len(paths) > 60
    explained = kubectl("explain", "queueworker", "--recursive").stdout
    for path in paths:
        assert path.rsplit(".", 1)[1] in explained
    silent = [path for path in paths if not _described(schema, path)]
    assert silent == []
    executors = kubectl("explain", "queueworker.spec.executors").stdout
    assert "Default: what the executor advertises (max_concurrent), else 1." in " ".join(executors.split())


def _described(schema: dict[str, Any], path: str) -> bool:
    node: dict[str, Any] = {"properties": schema}
    for name in path.strip(".").split("."):
        node = node.get("items", node)["properties"][name]
    return bool(node.get("description"))


def test_status_is_written_apart_and_read_in_columns(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", {}))
    status = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Routing",
                "message": "all well",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "executors": {"desired": 3, "healthy": 2, "summary": "2/3"},
        "tasks": {"routed": 12, "failed": 1, "perMinute": 7, "inFlight": 2},
        "queue": {"depth": 5},
        "migration": {"phase": "Split"},
    }
    patch = json.dumps({"status": status})
    kubectl("patch", "qw", "legacy", "-n", namespace, "--type=merge", "-p", patch)
    assert "status" not in json.loads(kubectl("get", "qw", "legacy", "-n", namespace, "-o", "json").stdout)
    kubectl("patch", "qw", "legacy", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    head, line = kubectl("get", "qw", "-n", namespace).stdout.splitlines()
    assert head.split() == [
        "NAME",
        "READY",
        "STATUS",
        "EXECUTORS",
        "ROUTED",
        "FAILED",
        "WAITING",
        "PER-MINUTE",
        "MIGRATION",
        "AGE",
    ]
    assert line.split()[:9] == ["legacy", "True", "Routing", "2/3", "12", "1", "5", "7", "Split"]
    wide = kubectl("get", "qw", "-n", namespace, "-o", "wide").stdout.splitlines()[0].split()
    assert wide[10:] == ["STRATEGY", "QUEUE", "IN-FLIGHT", "MESSAGE"]


def test_a_status_of_a_newer_operator_is_taken(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", {}))
    condition = {"type": "PoolReady", "status": "False", "reason": "NoSuchReasonYet", "message": "m"}
    newer = {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}], "migration": {"phase": "Done"}}
    patch = json.dumps({"status": newer})
    kubectl("patch", "qw", "legacy", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.parametrize("port", [8083, "8083", "http"])
def test_the_port_of_a_service_may_be_a_number(kubectl: Kubectl, namespace: str, port: object) -> None:
    spec = {"executors": {"service": {"name": "executor", "port": port}}}
    kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", input=worker("legacy", spec))
    shown = kubectl("get", "qw/legacy", "-n", namespace, "-o", "jsonpath={.spec.executors.service.port}").stdout
    assert shown == str(port)


@pytest.mark.parametrize("retry", [{"maxBackoffSeconds": 0}, {"backoffSeconds": 30}, {"backoffSeconds": 0}])
def test_backoffs_that_make_sense_are_taken(kubectl: Kubectl, namespace: str, retry: dict[str, int]) -> None:
    spec = {"routing": {"retry": retry}}
    kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", input=worker("legacy", spec))


def test_a_name_above_63_characters_is_refused(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("a" * 63, {}))
    done = kubectl("apply", "-n", namespace, "-f", "-", input=worker("a" * 64, {}), check=False)
    assert done.returncode != 0
    assert "metadata.name must have at most 63 characters" in done.stderr


def test_objects_that_an_earlier_crd_took_go_on_to_work(kubectl: Kubectl, namespace: str) -> None:
    """A long name, and a backoff above its maximum: status and spec can be written after the upgrade."""
    new = yaml.safe_load(crd_yaml())
    old = yaml.safe_load(crd_yaml())
    root = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del root["x-kubernetes-validations"]
    del root["properties"]["spec"]["properties"]["routing"]["properties"]["retry"]["x-kubernetes-validations"]
    name = "a" * 253
    try:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(old))
        spec = {"routing": {"retry": {"backoffSeconds": 60}}}
        eventually(
            lambda: kubectl("apply", "-n", namespace, "-f", "-", input=worker(name, spec), check=False).returncode == 0
        )
        status = json.dumps({"status": {"observedGeneration": 1}})
        kubectl("patch", "qw", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", status)
    finally:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(new))
    eventually(
        lambda: kubectl("apply", "-n", namespace, "-f", "-", input=worker("b" * 64, {}), check=False).returncode != 0
    )
    status = json.dumps({"status": {"observedGeneration": 2}})
    kubectl("patch", "qw", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", status)
    kubectl("patch", "qw", name, "-n", namespace, "--type=merge", "-p", '{"spec": {"suspend": true}}')


def test_scale_sets_the_number_of_executors(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", input=worker("legacy", {}))
    kubectl("scale", "qw/legacy", "-n", namespace, "--replicas=3")
    assert kubectl("get", "qw/legacy", "-n", namespace, "-o", "jsonpath={.spec.executors.count}").stdout == "3"
