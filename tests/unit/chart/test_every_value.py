"""No value of the chart is without effect: whichever is changed, other objects are rendered.

Helm renders them all at once: each is a dependency of one parent chart, under an alias of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from queueworker import __version__
from tests.support.charts import CHART, NAME, helm
from tools.audit import value_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Keys = tuple[str, ...]
Values = dict[str, Any]
DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
# What is changed to what. Truth values, numbers, and maps of labels and annotations need no line here.
CHANGES: dict[str, Any] = {
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "dashboard.labels.grafana_dashboard": "yes",
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "dnsPolicy": "Default",
    "extraArgs": ["--managed-pools"],
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraEnvFrom": [{"secretRef": {"name": "a"}}],
    "extraObjects": [{"kind": "ConfigMap"}],
    "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}],
    "extraVolumes": [{"name": "a", "emptyDir": {}}],
    "fullnameOverride": "mine",
    "hostAliases": [{"ip": "10.0.0.7", "hostnames": ["queue"]}],
    "image.digest": "sha256:" + "0" * 64,
    "image.pullPolicy": "Always",
    "image.repository": "registry.example/mine",
    "image.tag": "mine",
    "imagePullSecrets": [{"name": "registry"}],
    "logFormat": "text",
    "logLevel": "debug",
    "nameOverride": "mine",
    "networkPolicy.egress": [{"ports": [{"port": 443}]}],
    "networkPolicy.ingressFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "nodeSelector.kubernetes.io/os": "windows",
    "podMonitor.interval": "15s",
    "podMonitor.metricRelabelings": [{"action": "drop"}],
    "podMonitor.relabelings": [{"action": "drop"}],
    "podMonitor.scrapeTimeout": "5s",
    "podSecurityContext.seccompProfile.type": "Unconfined",
    "priorityClassName": "high",
    "prometheusRule.runbookURL": "https://wiki.example",
    "rbac.secrets.names": ["b"],
    "rbac.secrets.read": "None",
    "resources.limits.memory": "2Gi",
    "resources.requests.cpu": "1",
    "resources.requests.memory": "1Gi",
    "securityContext.capabilities.drop": ["NET_RAW"],
    "selfTest.redisURL": "redis://redis",
    "selfTest.serviceAccountName": "mine",
    "service.ipFamilies": ["IPv6"],
    "service.ipFamilyPolicy": "PreferDualStack",
    "serviceAccount.name": "mine",
    "serviceMonitor.interval": "15s",
    "serviceMonitor.metricRelabelings": [{"action": "drop"}],
    "serviceMonitor.relabelings": [{"action": "drop"}],
    "serviceMonitor.scrapeTimeout": "5s",
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"topologyKey": "zone"}],
    "tracing.endpoint": "http://mine",
    "tracing.headersSecretName": "mine",
    "tracing.ratio": 0.5,
    "tracing.sampler": "always_on",
    "updateStrategy.type": "Recreate",
    "watchNamespaces": ["team-a"],
    "web.failures": "Off",
    "web.tokenSecretName": "mine",
}
# What must be there for a value, or for those below it, to have an effect.
WITH: dict[str, Values] = {
    "crds": {"crds": {"install": True}},
    "dashboard": {"dashboard": {"enabled": True}},
    "networkPolicy": {"networkPolicy": {"enabled": True}},
    "podMonitor": {"podMonitor": {"enabled": True}},
    "prometheusRule": {"prometheusRule": {"enabled": True}},
    "rbac.secrets.names": {"rbac": {"secrets": {"read": "Named", "names": ["a"]}}},
    "serviceAccount.create": {"serviceAccount": {"name": "given"}},
    "serviceMonitor": {"serviceMonitor": {"enabled": True}},
    "tracing": {"tracing": {"endpoint": "http://collector"}},
    "web": {"web": {"allowActions": True, "tokenSecretName": "token"}},
}
# Without the CRD, rendering takes half the time.
ALWAYS: Values = {"image": {"repository": NAME}, "crds": {"install": False}}


def leaves(values: Values, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value that is no map with values of its own."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def prerequisites(path: Keys) -> Values:
    name = ".".join(path)
    found = [values for prefix, values in WITH.items() if f"{name}.".startswith(f"{prefix}.")]
    return merged(ALWAYS, *found)


def merged(*parts: Values) -> Values:
    result: Values = {}
    for part in parts:
        for key, value in part.items():
            result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def at(values: Values, path: Keys, default: Any) -> Any:
    for key in path[:-1]:
        values = values.get(key, {})
    return values.get(path[-1], default)


def another(path: Keys, value: Any) -> Any:
    """Instead of a value; None if nobody has said what."""
    name = ".".join(path)
    if name in CHANGES:
        return CHANGES[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return {"changed": "yes"} if re.search("labels$|annotations$", name, re.IGNORECASE) else None


def rendered_together(charts: dict[str, Values], folder: Path) -> dict[str, str]:
    """What the chart makes of each of the values, by their names."""
    (folder / "charts").mkdir()
    (folder / "charts" / NAME).symlink_to(CHART)
    aliases = [{"name": NAME, "version": __version__, "alias": alias} for alias in charts]
    about = {"apiVersion": "v2", "name": "all", "version": "1.0.0", "dependencies": aliases}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
    (folder / "values.yaml").write_text(yaml.safe_dump(charts))
    made: defaultdict[str, str] = defaultdict(str)
    for item in helm("template", "release", str(folder)).stdout.split("\n---\n"):
        if source := re.search(r"^# Source: all/charts/([^/]+)/", item, re.MULTILINE):
            made[source[1]] += item.replace(source[1], NAME)  # the alias is the chart's name in it
    return made


def test_whichever_value_is_changed_other_objects_are_made(tmp_path: Path) -> None:
    cases = {f"x{number:03}": path for number, (path, _) in enumerate(leaves(DEFAULTS))}
    charts: dict[str, Values] = {}
    for alias, path in cases.items():
        before = prerequisites(path)
        change = another(path, at(before, path, dict(leaves(DEFAULTS))[path]))
        if change is None:
            pytest.fail(f"{'.'.join(path)}: say in CHANGES what it is changed to")
        for key in reversed(path):
            change = {key: change}
        charts |= {f"{alias}-before": before, f"{alias}-after": merged(before, change)}
    made = rendered_together(charts, tmp_path)
    assert len(made) == len(charts), "each is found in what Helm has rendered"
    without_effect = [
        ".".join(path) for alias, path in cases.items() if made[f"{alias}-before"] == made[f"{alias}-after"]
    ]
    assert without_effect == []


def test_no_line_of_the_tables_is_about_a_value_that_is_gone() -> None:
    names = {".".join(path) for path, _ in leaves(DEFAULTS)}
    assert CHANGES.keys() - names == set()
    assert [prefix for prefix in WITH if not any(f"{name}.".startswith(f"{prefix}.") for name in names)] == []


def test_every_switch_is_turned_in_a_set_of_values_that_the_audit_renders() -> None:
    """`make audit` compares what is rendered with the schemas of Kubernetes."""
    sets = [yaml.safe_load(file.read_text()) for file in value_files()]
    hardening = {"podSecurityContext", "securityContext"}  # stays as it is
    switches = [
        (path, value) for path, value in leaves(DEFAULTS) if isinstance(value, bool) and path[0] not in hardening
    ]
    never = [".".join(path) for path, value in switches if all(at(found, path, value) == value for found in sets)]
    assert never == []
