"""A value that is misspelt or has the wrong type is refused, with its name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio import client

from tests.support.charts import CHART, IMAGE, helm

if TYPE_CHECKING:
    from collections.abc import Iterator

Schema = dict[str, Any]
SCHEMA: Schema = json.loads((CHART / "values.schema.json").read_text())
DEFINITIONS: Schema = SCHEMA["definitions"]
SCALARS = {"str": "string", "int": "integer", "bool": "boolean"}
OF_KUBERNETES = {
    "affinity": "V1Affinity",
    "dnsConfig": "V1PodDNSConfig",
    "extraEnv": "List[V1EnvVar]",
    "extraEnvFrom": "List[V1EnvFromSource]",
    "extraVolumeMounts": "List[V1VolumeMount]",
    "extraVolumes": "List[V1Volume]",
    "hostAliases": "List[V1HostAlias]",
    "imagePullSecrets": "List[V1LocalObjectReference]",
    "networkPolicy.egress": "List[V1NetworkPolicyEgressRule]",
    "networkPolicy.ingressFrom": "List[V1NetworkPolicyPeer]",
    "podSecurityContext": "V1PodSecurityContext",
    "resources": "V1ResourceRequirements",
    "securityContext": "V1SecurityContext",
    "tolerations": "List[V1Toleration]",
    "topologySpreadConstraints": "List[V1TopologySpreadConstraint]",
    "updateStrategy.rollingUpdate": "V1RollingUpdateDeployment",
}

# Helm 3 before 3.18 and later Helms say it in words of their own; each names the value and what it may be.
BAD_VALUES = [
    ("replicas=3", "replicas", "not allowed"),
    ("image.name=op", "image.*name", "not allowed"),
    ("replicaCount=two", "replicaCount", "integer"),
    ("replicaCount=-1", "replicaCount", "0"),
    ("replicaCount=null", "replicaCount", "missing|required"),
    ("image.tag=null", "image.*tag", "missing|required"),
    ("logLevel=loud", "logLevel", "'debug'|\"debug\""),
    ("logFormat=xml", "logFormat", "'json'|\"json\""),
    ("image.pullPolicy=Sometimes", "image.pullPolicy", "'IfNotPresent'|\"IfNotPresent\""),
    ("image.digest=latest", "image.digest", "match pattern"),
    ("watchNamespaces=team-a", "watchNamespaces", "array"),
    ("watchNamespaces={Team}", "watchNamespaces", "match pattern"),
    ("imagePullSecrets={registry}", "imagePullSecrets", "object"),
    ("extraEnvFrom[0].secretRef.key=a", "secretRef.*name", "missing|required"),
    ("service.port=0", "service.port", "1"),
    ("terminationGracePeriodSeconds=60s", "terminationGracePeriodSeconds", "integer"),
    ("resources.limit.memory=1Gi", "resources.*limit", "not allowed"),
    ("resources.limits.memory=1 GB", "resources.limits.memory", "match pattern"),
    ("resources.limits.memroy=1Gi", "resources.limits.*memroy", "not allowed"),
    ("podSecurityContext.runAsUsr=1", "podSecurityContext.*runAsUsr", "not allowed"),
    ("podSecurityContext.capabilities.add={ALL}", "podSecurityContext.*capabilities", "not allowed"),
    ("securityContext.readOnlyRootFileSystem=true", "securityContext.*readOnlyRootFileSystem", "not allowed"),
    ("securityContext.capabilities.dorp={ALL}", "securityContext.capabilities.*dorp", "not allowed"),
    ("securityContext.privileged=no", "securityContext.privileged", "boolean"),
    ("securityContext.runAsUser=root", "securityContext.runAsUser", "integer"),
    ("securityContext.seccompProfile.type=Runtime", "seccompProfile.type", "'RuntimeDefault'|\"RuntimeDefault\""),
    ("extraEnvFrom[1].prefix=a", "extraEnvFrom.*1", "oneOf|one schema"),
    ("extraVolumes[0].configmap.name=a", "extraVolumes.*configmap", "not allowed"),
    ("extraVolumeMounts[0].readonly=true", "extraVolumeMounts.*readonly", "not allowed"),
    ("dnsConfig.nameserver={10.0.0.10}", "dnsConfig.*nameserver", "not allowed"),
    ("updateStrategy.rollingUpdate.maxunavailable=1", "updateStrategy.*maxunavailable", "not allowed"),
    ("networkPolicy.ingressFrom[0].podselector.a=b", "networkPolicy.*podselector", "not allowed"),
    ("affinity.nodeAffinity.required=b", "affinity.nodeAffinity.*required", "not allowed"),
    ("affinity.podAntiAfinity.a=b", "affinity.*podAntiAfinity", "not allowed"),
    ("tolerations[0].effects=NoSchedule", "tolerations.*effects", "not allowed"),
    ("topologySpreadConstraints[0].topology=zone", "topologySpreadConstraints.*topology", "not allowed"),
    ("commonLabels.a/b/c=d", "commonLabels.*a/b/c", "not allowed"),
    ("commonAnnotations.a b=c", "commonAnnotations.*a b", "not allowed"),
    ("podLabels.a.b=c", "podLabels.a", "string"),
    ("podLabels.a=b c", "podLabels.a", "match pattern"),
    ("podAnnotations.a=1", "podAnnotations.a", "string"),
    ("nodeSelector.gpu=true", "nodeSelector.gpu", "string"),
    ("rbac.secrets.read=Some", "rbac.secrets.read", "'Named'|\"Named\""),
    ("service.ipFamilyPolicy=Dual", "service.ipFamilyPolicy", "'SingleStack'|\"SingleStack\""),
    ("podMonitor.interval=30", "podMonitor.interval", "string"),
    ("selfTest.redisURL=http://redis", "selfTest.redisURL", "match pattern"),
    ("tracing.endpoint=collector:4317", "tracing.endpoint", "match pattern"),
    ("tracing.sampler=some", "tracing.sampler", "'always_on'|\"always_on\""),
    ("tracing.ratio=2", "tracing.ratio", "1"),
]


def mirrored(node: Schema, kind: str, path: str) -> Iterator[str]:
    """Where a closed object of the schema has other fields than Kubernetes, or takes another type."""
    node = DEFINITIONS[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if kind.startswith("List["):
        yield from [] if node.get("type") == "array" else [f"{path} is no array"]
        yield from mirrored(node["items"], kind[5:-1], f"{path}[]")
    elif kind in SCALARS:
        yield from [] if "enum" in node or node.get("type") == SCALARS[kind] else [f"{path} is no {SCALARS[kind]}"]
    elif node.get("additionalProperties") is False and "properties" in node:
        model = getattr(client, kind)
        kinds = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
        yield from (f"{path}.{name}" for name in kinds.keys() ^ node["properties"].keys())
        for name, child in node["properties"].items():
            yield from mirrored(child, kinds.get(name, "object"), f"{path}.{name}")


@pytest.mark.parametrize(("value", "kind"), OF_KUBERNETES.items())
def test_the_schema_has_the_fields_that_kubernetes_has_with_their_types(value: str, kind: str) -> None:
    node: Schema = {"properties": SCHEMA["properties"]}
    for key in value.split("."):
        node = node["properties"][key]
    assert list(mirrored(node, kind, value)) == []


def in_turns(values: list[str]) -> list[list[str]]:
    """The values in groups, in which no two are for the same key."""
    groups: list[dict[str, str]] = []
    for value in values:
        key = value.partition("=")[0].removesuffix(".b")  # podLabels.a.b replaces podLabels.a
        group = next((group for group in groups if key not in group), None)
        if group is None:
            groups.append(group := {})
        group[key] = value
    return [list(group.values()) for group in groups]


def test_each_bad_value_is_refused_with_its_name_and_what_it_may_be() -> None:
    """Helm names all that the schema refuses: one rendering for each turn."""
    refusals: dict[str, list[str]] = {}
    for group in in_turns([value for value, _, _ in BAD_VALUES]):
        sets = [part for value in (IMAGE, *group) for part in ("--set", value)]
        done = helm("template", "x", str(CHART), *sets, check=False)
        assert done.returncode != 0
        refusals |= dict.fromkeys(group, done.stderr.splitlines())
    badly = [
        (value, named, may_be)
        for value, named, may_be in BAD_VALUES
        if not any(re.search(named, line) and re.search(may_be, line) for line in refusals[value])
    ]
    assert badly == [], refusals
