"""The chart: linted, refused where it should be, equal to the manifests, and installed on a real API server."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest
import yaml

from devcluster import binaries
from devcluster.server import OPERATOR_ACCOUNT, ControlPlane
from queueworker import __version__
from tests.support.operating import ROOT, eventually, operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHART = ROOT / "charts" / "queueworker-operator"
NAMESPACE, NAME = OPERATOR_ACCOUNT
CRD = "queueworkers.crucible.dev"
Objects = dict[tuple[str, str], dict[str, Any]]
# Which release an object is of: only Helm knows that.
HELMS_OWN = {
    "helm.sh/chart",
    "helm.sh/resource-policy",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
}


def helm(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([binaries.helm(), *args], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, done.stderr
    return done


def render(*values: str, release: str = NAME) -> Objects:
    """The objects by kind and name; `values` as `--set` takes them."""
    sets = [part for value in values for part in ("--set", value)]
    return by_name(helm("template", release, str(CHART), "-n", NAMESPACE, *sets).stdout)


def by_name(text: str) -> Objects:
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(text) if item}


def pod(objects: Objects, name: str = NAME) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", name]["spec"]["template"]["spec"]
    return spec


def container(objects: Objects, name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = pod(objects, name)["containers"][0]
    return found


def without_helms_own(node: Any) -> Any:
    """The same with those labels and annotations left out, and with no empty map where they were all."""
    if isinstance(node, list):
        return [without_helms_own(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: without_helms_own(value) for key, value in node.items() if key not in HELMS_OWN}
    return {key: value for key, value in rest.items() if not (key in {"labels", "annotations"} and value == {})}


def test_it_lints_and_has_the_projects_version() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART)).stdout
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


def test_its_objects_are_those_of_the_manifests_field_by_field() -> None:
    command = [binaries.kubectl(), "kustomize", str(ROOT / "manifests" / "default")]
    plain = by_name(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    del plain["Namespace", NAMESPACE]  # `helm install --create-namespace`
    charted = render()
    assert charted.keys() == plain.keys()
    for (kind, name), mine in plain.items():
        theirs = without_helms_own(charted[kind, name])
        # The name is a label of all of a chart's objects; of the manifests' own it is one where it is selected by.
        theirs["metadata"].pop("labels", None)
        mine["metadata"].pop("labels", None)
        assert theirs == mine, f"{kind} {name}"


def test_watched_namespaces_get_roles_and_the_cluster_only_what_must_outlive_them() -> None:
    made = [
        item
        for item in yaml.safe_load_all(
            helm("template", NAME, str(CHART), "-n", NAMESPACE, "--set", "watchNamespaces={team-a,team-b}").stdout
        )
        if item
    ]
    crd, *everywhere = render()["ClusterRole", NAME]["rules"]
    finalizer = {"apiGroups": ["crucible.dev"], "resources": ["queueworkers"], "verbs": ["patch"]}
    assert [item["rules"] for item in made if item["kind"] == "ClusterRole"] == [[crd, finalizer]]
    roles = {item["metadata"]["namespace"]: item["rules"] for item in made if item["kind"] == "Role"}
    assert roles == {"team-a": everywhere, "team-b": everywhere, NAMESPACE: render()["Role", NAME]["rules"]}
    bound = {item["metadata"]["namespace"]: item["roleRef"]["name"] for item in made if item["kind"] == "RoleBinding"}
    assert bound == {"team-a": f"{NAME}-routing", "team-b": f"{NAME}-routing", NAMESPACE: NAME}
    args = container(by_name(yaml.safe_dump_all(made)))["args"]
    assert args[-4:] == ["--namespace", "team-a", "--namespace", "team-b"]


def test_named_secrets_are_the_only_ones_that_it_may_read() -> None:
    rules = render("rbac.secretNames={queue-key,redis}")["ClusterRole", NAME]["rules"]
    assert [rule for rule in rules if "secrets" in rule["resources"]] == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["queue-key", "redis"]}
    ]


@pytest.mark.parametrize(
    ("values", "where", "shown"),
    [
        (["image.repository=r/op"], "image", f"r/op:{__version__}"),
        (["image.repository=r/op", "image.tag=v2"], "image", "r/op:v2"),
        (["image.digest=sha256:" + "0" * 64, "image.tag=v2"], "image", f"{NAME}@sha256:" + "0" * 64),
        (["image.pullPolicy=Always"], "imagePullPolicy", "Always"),
        (["resources.limits.memory=2Gi"], "resources.limits.memory", "2Gi"),
        (["extraEnvFrom[0].secretRef.name=proxy"], "envFrom", [{"secretRef": {"name": "proxy"}}]),
    ],
)
def test_a_value_of_the_container_is_where_it_belongs(values: list[str], where: str, shown: object) -> None:
    found: Any = container(render(*values))
    for key in where.split("."):
        found = found[key]
    assert found == shown


@pytest.mark.parametrize(
    ("values", "where", "shown"),
    [
        (["imagePullSecrets[0].name=registry"], "imagePullSecrets", [{"name": "registry"}]),
        (["terminationGracePeriodSeconds=120"], "terminationGracePeriodSeconds", 120),
        (["nodeSelector.disk=ssd"], "nodeSelector", {"disk": "ssd"}),
        (["tolerations[0].operator=Exists"], "tolerations", [{"operator": "Exists"}]),
        (["priorityClassName=high"], "priorityClassName", "high"),
        (["topologySpreadConstraints[0].maxSkew=2"], "topologySpreadConstraints", [{"maxSkew": 2}]),
        (["serviceAccount.create=false", "serviceAccount.name=mine"], "serviceAccountName", "mine"),
    ],
)
def test_a_value_of_the_pod_is_where_it_belongs(values: list[str], where: str, shown: object) -> None:
    assert pod(render(*values))[where] == shown


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("crds.install=false", {"CustomResourceDefinition"}),
        ("serviceAccount.create=false", {"ServiceAccount"}),
        ("rbac.create=false", {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}),
    ],
)
def test_what_the_cluster_has_already_can_be_left_out(value: str, kinds: set[str]) -> None:
    assert {kind for kind, _ in render()} - {kind for kind, _ in render(value)} == kinds


def test_the_crd_is_kept_unless_told_otherwise() -> None:
    kept, not_kept = render(), render("crds.keep=false")
    assert kept["CustomResourceDefinition", CRD]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in not_kept["CustomResourceDefinition", CRD]["metadata"]


def test_two_releases_have_each_their_own_names_and_lease() -> None:
    one, other = render(release="blue"), render(release="green")
    assert one.keys() & other.keys() == {("CustomResourceDefinition", CRD)}
    args = container(one, f"blue-{NAME}")["args"]
    assert args[args.index("--lease-name") + 1] == f"blue-{NAME}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("image.name=op", "at '/image': additional properties 'name' not allowed"),
        ("replicaCount=two", "at '/replicaCount': got string, want integer"),
        ("replicaCount=-1", "at '/replicaCount': minimum: got -1, want 0"),
        ("logLevel=loud", "at '/logLevel': value must be one of 'debug', 'info', 'warning', 'error'"),
        ("logFormat=xml", "at '/logFormat': value must be one of 'json', 'text'"),
        (
            "image.pullPolicy=Sometimes",
            "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
        ),
        ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
        ("image.repository=", "at '/image/repository': minLength: got 0, want 1"),
        ("watchNamespaces=team-a", "at '/watchNamespaces': got string, want array"),
        ("watchNamespaces={Team}", "at '/watchNamespaces/0': 'Team' does not match pattern"),
        ("imagePullSecrets={registry}", "at '/imagePullSecrets/0': got string, want object"),
        ("extraEnvFrom[0].secretRef.key=a", "missing property 'name'"),
        ("service.port=0", "at '/service/port': minimum: got 0, want 1"),
        ("terminationGracePeriodSeconds=60s", "at '/terminationGracePeriodSeconds': got string, want integer"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_it_may_be(value: str, words: str) -> None:
    done = helm("template", "x", str(CHART), "--set", value, check=False)
    assert done.returncode != 0
    assert words in done.stderr


class Run(Protocol):
    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="module")
def fresh() -> Iterator[ControlPlane]:
    """A control plane of this file's own: Helm takes over nothing that another test has made."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(fresh: ControlPlane) -> Run:
    def run(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [binaries.kubectl(), "--kubeconfig", fresh.admin_kubeconfig, *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(args)}: {done.stderr}{done.stdout}"
        return done

    return run


@pytest.fixture
def release(fresh: ControlPlane, admin: Run) -> Iterator[list[str]]:
    """Helm's arguments for a release on that server; it is uninstalled after the test, and the CRD with it."""
    at = ["--kubeconfig", fresh.admin_kubeconfig, "-n", NAMESPACE]
    yield at
    helm("uninstall", NAME, *at, "--ignore-not-found")
    admin("delete", "crd", CRD, "--ignore-not-found")


def deployed(admin: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(admin("get", "deployment", NAME, "-n", NAMESPACE, "-o", "json").stdout)
    return found


def test_install_upgrade_and_uninstall(admin: Run, release: list[str]) -> None:
    notes = helm("install", NAME, str(CHART), *release, "--create-namespace").stdout
    assert "every namespace" in notes
    for (kind, name), _ in render().items():
        admin("get", kind, name, "-n", NAMESPACE)
    helm("upgrade", NAME, str(CHART), *release)
    assert deployed(admin)["metadata"]["generation"] == 1, "an upgrade to the same replaces no pod"
    helm("upgrade", NAME, str(CHART), *release, "--set", "logLevel=debug")
    assert "debug" in deployed(admin)["spec"]["template"]["spec"]["containers"][0]["args"]
    helm("uninstall", NAME, *release)
    kinds = "deployment,service,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding"
    left = admin("get", kinds, "-n", NAMESPACE, "-l", f"app.kubernetes.io/instance={NAME}", "-o", "name").stdout
    assert left == ""
    admin("get", "crd", CRD)  # kept: with it would go what users made
    helm("install", NAME, str(CHART), *release)  # and a new release takes it over


def test_an_upgrade_brings_the_new_crd(admin: Run, release: list[str], tmp_path: Path) -> None:
    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    crd = newer / "files" / "crd.yaml"
    definition = yaml.safe_load(crd.read_text())
    definition["spec"]["names"]["shortNames"].append("qwx")
    crd.write_text(yaml.safe_dump(definition))
    helm("install", NAME, str(CHART), *release, "--create-namespace")
    helm("upgrade", NAME, str(newer), *release)
    names = admin("get", "crd", CRD, "-o", "jsonpath={.spec.names.shortNames}").stdout
    assert json.loads(names) == ["qw", "qwx"]


@pytest.mark.parametrize("watched", [[], ["team-a", "team-b"]], ids=["the whole cluster", "two namespaces"])
def test_with_its_arguments_and_rights_the_operator_leads_and_is_refused_nothing(
    watched: list[str], fresh: ControlPlane, admin: Run, release: list[str], tmp_path: Path
) -> None:
    for name in watched:
        admin("create", "namespace", name)
    values = ["--set", f"watchNamespaces={{{','.join(watched)}}}"] if watched else []
    helm("install", NAME, str(CHART), *release, "--create-namespace", *values)
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
