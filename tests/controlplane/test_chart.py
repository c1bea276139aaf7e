"""The chart, installed, upgraded and uninstalled on a real API server."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from devcluster.server import ControlPlane
from tests.controlplane.conftest import Kubectl, kubectl_of
from tests.support.charts import CHART, CRD, IMAGE, NAME, NAMESPACE, helm, render
from tests.support.operating import eventually, operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def fresh() -> Iterator[ControlPlane]:
    """A control plane of this file's own: Helm takes over nothing that another test has made."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(fresh: ControlPlane) -> Kubectl:
    return kubectl_of(fresh)


@pytest.fixture
def release(fresh: ControlPlane, admin: Kubectl) -> Iterator[list[str]]:
    """Helm's arguments for a release on that server; it is uninstalled after the test, and the CRD with it."""
    at = ["--kubeconfig", fresh.admin_kubeconfig, "-n", NAMESPACE]
    yield at
    helm("uninstall", NAME, *at, "--ignore-not-found", "--no-hooks")  # nothing runs the hook's Job here
    admin("delete", "crd", CRD, "--ignore-not-found")


def deployed(admin: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(admin("get", "deployment", NAME, "-n", NAMESPACE, "-o", "json").stdout)
    return found


def differences(admin: Kubectl, release: list[str]) -> str:
    """Between the release's manifest and what the server has of it, by server-side apply, as GitOps tools compare."""
    manifest = helm("get", "manifest", NAME, *release).stdout
    return admin(
        "diff", "--server-side", "--force-conflicts", "-n", NAMESPACE, "-f", "-", input=manifest, check=False
    ).stdout


def test_install_upgrade_and_uninstall(admin: Kubectl, release: list[str]) -> None:
    notes = helm("install", NAME, str(CHART), *release, "--set", IMAGE, "--create-namespace").stdout
    assert "every namespace" in notes
    for (kind, name), _ in render().items():
        admin("get", kind, name, "-n", NAMESPACE)
    assert differences(admin, release) == ""
    helm("upgrade", NAME, str(CHART), *release, "--set", IMAGE)
    assert deployed(admin)["metadata"]["generation"] == 1, "an upgrade to the same replaces no pod"
    helm("upgrade", NAME, str(CHART), *release, "--set", IMAGE, "--set", "logLevel=debug")
    assert "debug" in deployed(admin)["spec"]["template"]["spec"]["containers"][0]["args"]
    helm("uninstall", NAME, *release, "--no-hooks")
    kinds = "deployment,service,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding"
    left = admin("get", kinds, "-n", NAMESPACE, "-l", f"app.kubernetes.io/instance={NAME}", "-o", "name").stdout
    assert left == ""
    admin("get", "crd", CRD)  # kept: with it would go what users made
    helm("install", NAME, str(CHART), *release, "--set", IMAGE)  # and a new release takes it over


def test_with_all_values_the_server_warns_of_nothing_and_nothing_differs(admin: Kubectl, release: list[str]) -> None:
    without = "podMonitor.enabled=false,prometheusRule.enabled=false"  # their CRDs are the Prometheus operator's
    values = ("--values", str(CHART / "ci" / "full-values.yaml"), "--set", without)
    done = helm("install", NAME, str(CHART), *release, *values, "--create-namespace")
    assert "Warning" not in done.stderr
    assert differences(admin, release) == ""


def test_an_upgrade_brings_the_new_crd(admin: Kubectl, release: list[str], tmp_path: Path) -> None:
    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    crd = newer / "files" / "crd.yaml"
    definition = yaml.safe_load(crd.read_text())
    definition["spec"]["names"]["shortNames"].append("qwx")
    crd.write_text(yaml.safe_dump(definition))
    helm("install", NAME, str(CHART), *release, "--set", IMAGE, "--create-namespace")
    helm("upgrade", NAME, str(newer), *release, "--set", IMAGE)
    names = admin("get", "crd", CRD, "-o", "jsonpath={.spec.names.shortNames}").stdout
    assert json.loads(names) == ["qw", "qwx"]


@pytest.mark.parametrize("watched", [[], ["team-a", "team-b"]], ids=["the whole cluster", "two namespaces"])
def test_with_its_arguments_and_rights_the_operator_leads_and_is_refused_nothing(
    watched: list[str], fresh: ControlPlane, admin: Kubectl, release: list[str], tmp_path: Path
) -> None:
    for name in watched:
        admin("create", "namespace", name)
    values = ["--set", f"watchNamespaces={{{','.join(watched)}}}"] if watched else []
    helm("install", NAME, str(CHART), *release, "--set", IMAGE, "--create-namespace", *values)
    eventually(lambda: admin("get", "qw", "-A", check=False).returncode == 0)
    account = f"system:serviceaccount:{NAMESPACE}:{NAME}"
    elsewhere = admin("auth", "can-i", "get", "secrets", "-n", "default", "--as", account, check=False).stdout.strip()
    assert elsewhere == ("no" if watched else "yes")
    args = deployed(admin)["spec"]["template"]["spec"]["containers"][0]["args"]
    before = len(list(fresh.audit_events()))
    with operator(fresh, tmp_path, *args[1:], environment={"POD_NAMESPACE": NAMESPACE}) as running:

        def leads() -> bool:
            try:
                answer = httpx.get(f"{running.url}/readyz", trust_env=False)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and "leading" in answer.text

        eventually(leads)
        assert running.stop() == 0
    refused = [event for event in list(fresh.audit_events())[before:] if event["responseStatus"]["code"] == 403]
    assert refused == []
