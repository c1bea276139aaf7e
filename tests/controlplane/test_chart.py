"""The chart: linted, refused where it should be, installed on a real API server, and equal to the manifests."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo.control_plane import binaries
from tests.controlplane.operating import ROOT

if TYPE_CHECKING:
    from demo.control_plane.server import ControlPlane
    from tests.controlplane.conftest import Kubectl

CHART = str(ROOT / "charts" / "queueworker-operator")


def helm(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([binaries.helm(), *args], capture_output=True, text=True, check=False, timeout=120)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def render(*values: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects by kind and name."""
    sets = [part for value in values for part in ("--set", value)]
    text = helm("template", "queueworker-operator", CHART, "-n", "queueworker-system", *sets).stdout
    return _by_name(text)


def _by_name(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(text) if item}


def test_it_lints() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART).stdout


def test_its_objects_are_those_of_the_manifests(kubectl: Kubectl) -> None:
    plain = _by_name(kubectl("kustomize", str(ROOT / "manifests" / "default")).stdout)
    charted = render()
    assert {key for key in plain if key[0] != "Namespace"} == charted.keys()
    for key, mine in plain.items():
        if key[0] in {"ClusterRole", "Role"}:
            assert charted[key]["rules"] == mine["rules"]
        elif key[0] in {"ClusterRoleBinding", "RoleBinding"}:
            assert (charted[key]["roleRef"], charted[key]["subjects"]) == (mine["roleRef"], mine["subjects"])
        elif key[0] == "CustomResourceDefinition":
            assert charted[key]["spec"] == mine["spec"]
        elif key[0] == "Service":
            assert charted[key]["spec"]["ports"] == mine["spec"]["ports"]
        elif key[0] == "Deployment":
            left, right = (item["spec"]["template"]["spec"] for item in (charted[key], mine))
            (left_container,), (right_container,) = left.pop("containers"), right.pop("containers")
            assert left == right
            assert left_container.pop("args")[0] == right_container.pop("args")[0] == "operator"
            assert left_container == right_container
            assert charted[key]["spec"]["replicas"] == mine["spec"]["replicas"]


def test_watched_namespaces_get_roles_and_the_cluster_none() -> None:
    made = render("watchNamespaces={team-a,team-b}", "rbac.secretNames={queue-key}")
    assert not any(kind.startswith("ClusterRole") for kind, _ in made)
    role = made["Role", "queueworker-operator-routing"]
    assert role["metadata"]["namespace"] == "team-b"
    assert {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["queue-key"]} in role[
        "rules"
    ]
    args = made["Deployment", "queueworker-operator"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[-4:] == ["--namespace", "team-a", "--namespace", "team-b"]


def test_a_digest_goes_before_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    made = render(f"image.digest={digest}", "image.repository=example/op")
    containers = made["Deployment", "queueworker-operator"]["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == f"example/op@{digest}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("replicaCount=two", "replicaCount"),
        ("logLevel=loud", "value must be one of 'debug', 'info', 'warning', 'error'"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=latest", "digest"),
        ("watchNamespaces=team-a", "watchNamespaces"),
        ("service.port=0", "port"),
    ],
)
def test_a_bad_value_is_refused_by_name(value: str, words: str) -> None:
    done = helm("template", "x", CHART, "--set", value, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_install_upgrade_and_uninstall_on_a_real_api_server(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("delete", "crd", "queueworkers.crucible.dev", "--ignore-not-found")
    at = ("--kubeconfig", control_plane.admin_kubeconfig, "-n", namespace)
    helm("install", "qw", CHART, *at)
    kubectl("get", "deployment", "qw-queueworker-operator", "-n", namespace)
    helm("upgrade", "qw", CHART, *at, "--set", "logLevel=debug")
    path = "jsonpath={.spec.template.spec.containers[0].args}"
    assert "debug" in kubectl("get", "deployment", "qw-queueworker-operator", "-n", namespace, "-o", path).stdout
    helm("uninstall", "qw", *at)
    left = kubectl("get", "deployment,service,serviceaccount,role", "-n", namespace, "-o", "name").stdout
    assert "queueworker" not in left
    kubectl("get", "crd", "queueworkers.crucible.dev")  # kept: it holds what users made
