"""`kubectl apply -k manifests/default` on a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from tests.controlplane.operating import ROOT, eventually

if TYPE_CHECKING:
    from tests.controlplane.conftest import Kubectl

DEFAULT = str(ROOT / "manifests" / "default")


def test_one_command_makes_everything_and_a_second_changes_nothing(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "--validate=strict", "--force-conflicts", "-k", DEFAULT)
    for name in (
        "deployment/queueworker-operator",
        "service/queueworker-operator",
        "serviceaccount/queueworker-operator",
        "role/queueworker-operator",
    ):
        kubectl("get", name, "-n", "queueworker-system")
    eventually(lambda: kubectl("get", "qw", "-A", check=False).returncode == 0)
    assert kubectl("diff", "--server-side", "--force-conflicts", "-k", DEFAULT).stdout == ""


def test_the_operators_pod_is_admitted_under_the_restricted_standard(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    rendered = list(yaml.safe_load_all(kubectl("kustomize", DEFAULT).stdout))
    template = next(item for item in rendered if item["kind"] == "Deployment")["spec"]["template"]

    def admit() -> str:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
        return kubectl(
            "apply", "-n", namespace, "--dry-run=server", "-f", "-", input=json.dumps(pod), check=False
        ).stderr

    assert admit() == ""
    del template["spec"]["containers"][0]["securityContext"]
    assert "violates PodSecurity" in admit(), "the namespace does not enforce anything: the test would prove nothing"
