"""`kubectl apply -k manifests/default` on a real API server that nothing was installed on before."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest
import yaml

from devcluster import binaries
from devcluster.server import ControlPlane
from tests.support.operating import ROOT, eventually, operator
from tools.image import default_tag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFAULT = str(ROOT / "manifests" / "default")
NAMESPACE = "queueworker-system"
NAME = "queueworker-operator"


class Run(Protocol):
    def __call__(
        self, *args: str, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="module")
def fresh() -> Iterator[ControlPlane]:
    """A control plane of this file's own: what is proved here, nothing else has prepared."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(fresh: ControlPlane) -> Run:
    def run(*args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [binaries.kubectl(), "--kubeconfig", fresh.admin_kubeconfig, *args]
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(args)}: {done.stderr}{done.stdout}"
        return done

    return run


@pytest.fixture(scope="module")
def applied(admin: Run) -> str:
    """What the one command said on standard error."""
    said = admin("apply", "-k", DEFAULT).stderr
    eventually(lambda: admin("get", "qw", "-A", check=False).returncode == 0)
    return said


@pytest.fixture(scope="module")
def objects(admin: Run) -> dict[str, dict[str, Any]]:
    """The objects that kustomize makes, by kind; of each kind that is used here there is one."""
    return {item["kind"]: item for item in yaml.safe_load_all(admin("kustomize", DEFAULT).stdout)}


def test_one_command_makes_everything_with_no_warning(admin: Run, applied: str) -> None:
    assert applied == "", "the namespace warns of what `restricted` would not admit"
    for name in ("deployment", "service", "serviceaccount", "role", "rolebinding", "clusterrole", "clusterrolebinding"):
        admin("get", f"{name}/{NAME}", "-n", NAMESPACE)
    labels = json.loads(admin("get", "namespace", NAMESPACE, "-o", "json").stdout)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize("how", [(), ("--server-side", "--force-conflicts")], ids=["client-side", "server-side"])
def test_applied_again_nothing_differs_and_no_pod_is_replaced(admin: Run, how: tuple[str, ...]) -> None:
    shown = ("get", "deployment", NAME, "-n", NAMESPACE, "-o", "jsonpath={.spec}")
    before = json.loads(admin(*shown).stdout)
    admin("apply", *how, "--validate=strict", "-k", DEFAULT)
    assert json.loads(admin(*shown).stdout) == before
    assert admin("diff", *how, "-k", DEFAULT).stdout == ""


@pytest.mark.usefixtures("applied")
def test_with_the_deployments_arguments_and_account_the_operator_leads_and_is_refused_nothing(
    fresh: ControlPlane, objects: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    with operator(fresh, tmp_path, *container["args"][1:], environment={"POD_NAMESPACE": NAMESPACE}) as running:

        def leads() -> bool:
            try:
                return "leading" in httpx.get(f"{running.url}/readyz", trust_env=False).text
            except httpx.TransportError:
                return False

        eventually(leads)
        for probe in ("livenessProbe", "readinessProbe"):
            path = container[probe]["httpGet"]["path"]
            eventually(lambda path=path: httpx.get(f"{running.url}{path}", trust_env=False).status_code == 200)  # type: ignore[misc]
        assert running.stop() == 0
    assert [event for event in fresh.audit_events() if event["responseStatus"]["code"] == 403] == []


def test_the_service_and_the_image_are_the_deployments(objects: dict[str, dict[str, Any]]) -> None:
    deployment, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    container = deployment["template"]["spec"]["containers"][0]
    assert service["selector"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(8084, "http")]
    assert [(port["name"], port["containerPort"]) for port in container["ports"]] == [("http", 8084)]
    assert container["image"] == default_tag()


def test_the_operators_pod_is_admitted_under_the_restricted_standard(
    admin: Run, objects: dict[str, dict[str, Any]]
) -> None:
    admin("create", "namespace", "confined")
    admin("label", "namespace", "confined", "pod-security.kubernetes.io/enforce=restricted")
    spec = json.loads(json.dumps(objects["Deployment"]["spec"]["template"]["spec"]))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", "namespace": "confined"}, "spec": spec}

    def admit() -> str:
        return admin("create", "--dry-run=server", "-f", "-", input=json.dumps(pod), check=False).stderr

    assert admit() == ""
    del spec["containers"][0]["securityContext"]
    assert "violates PodSecurity" in admit(), "the namespace does not enforce anything: the test would prove nothing"
