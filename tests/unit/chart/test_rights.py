"""The rights that the chart gives, and to whom."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.support.charts import NAME, NAMESPACE, by_name, container, documents, hooks, render, template
from tests.support.operating import ROOT
from tools.audit import COMPONENTS, kustomized

Rule = dict[str, Any]
LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
FINALIZER = {"apiGroups": ["crucible.dev"], "resources": ["queueworkers"], "verbs": ["patch"]}


def rules(*values: str) -> list[Rule]:
    found: list[Rule] = render(*values)["ClusterRole", NAME]["rules"]
    return found


def about(resource: str, found: list[Rule]) -> list[Rule]:
    return [rule for rule in found if resource in rule["resources"]]


def test_watched_namespaces_get_roles_and_the_cluster_only_what_must_outlive_them() -> None:
    text = template("watchNamespaces={team-a,team-b}")
    made = [item for item in documents(text) if ("annotations" not in item["metadata"])]
    crd, *everywhere = rules()
    owned = {item["metadata"]["name"]: item["rules"] for item in made if item["kind"] == "ClusterRole"}
    assert owned[NAME] == [crd, FINALIZER]
    assert owned.keys() == {NAME, f"{NAME}-view", f"{NAME}-edit"}
    roles = {item["metadata"]["namespace"]: item["rules"] for item in made if item["kind"] == "Role"}
    assert roles == {"team-a": everywhere, "team-b": everywhere, NAMESPACE: render()["Role", NAME]["rules"]}
    bound = {item["metadata"]["namespace"]: item["roleRef"]["name"] for item in made if item["kind"] == "RoleBinding"}
    assert bound == {"team-a": f"{NAME}-routing", "team-b": f"{NAME}-routing", NAMESPACE: NAME}
    assert container(by_name(text))["args"][-4:] == ["--namespace", "team-a", "--namespace", "team-b"]


@pytest.mark.parametrize(
    ("values", "secrets"),
    [
        ([], [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
        (
            ["rbac.secrets.read=Named", "rbac.secrets.names={queue-key,redis}"],
            [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["queue-key", "redis"]}],
        ),
        (["rbac.secrets.read=None"], []),
    ],
    ids=["all", "named", "none"],
)
def test_it_may_read_all_secrets_or_those_with_a_name_or_none(values: list[str], secrets: list[Rule]) -> None:
    assert about("secrets", rules(*values)) == secrets


def test_of_leases_it_may_change_only_its_own() -> None:
    assert render(release="blue")["Role", f"blue-{NAME}"]["rules"] == [
        LEASES | {"resourceNames": [f"blue-{NAME}"], "verbs": ["get", "update"]},
        LEASES | {"verbs": ["create"]},
    ]


def test_it_may_run_pods_only_if_managed_pools_are_on() -> None:
    off, on = rules(), rules("managedPools.enabled=true")
    assert [rule for rule in on if rule not in off] == kustomized_pool_rules()
    variables = {item["name"]: item.get("value") for item in container(render("managedPools.enabled=true"))["env"]}
    assert variables["MANAGED_POOLS"] == "true"
    assert about("pods", off) == about("statefulsets", off) == []


def kustomized_pool_rules() -> list[Rule]:
    file = ROOT / "manifests" / "components" / "managed-pools" / "role.yaml"
    found: list[Rule] = by_name(file.read_text())["ClusterRole", f"{NAME}-pools"]["rules"]
    return found


@pytest.mark.parametrize(("folder", "component"), COMPONENTS.items())
def test_a_kustomize_component_switches_managed_pools_on(folder: str, component: str) -> None:
    on = {"name": "MANAGED_POOLS", "value": "true"}
    assert on not in container(by_name(kustomized(folder)))["env"]
    assert on in container(by_name(kustomized(folder, component)))["env"]


def test_for_one_namespace_kustomize_gives_the_rights_of_pools_in_that_one_only() -> None:
    made = documents(kustomized("namespaced", "managed-pools-namespaced"))
    everywhere = [rule for item in made if item["kind"] == "ClusterRole" for rule in item["rules"]]
    assert about("queueworkers", everywhere), "the ClusterRoles are found"
    assert about("pods", everywhere) == about("statefulsets", everywhere) == about("services", everywhere) == []
    pools = [item for item in made if item["metadata"]["name"] == f"{NAME}-pools"]
    assert {(item["kind"], item["metadata"]["namespace"]) for item in pools} == {
        ("Role", "team-a"),
        ("RoleBinding", "team-a"),
    }
    assert by_name(yaml.safe_dump_all(pools))["Role", f"{NAME}-pools"]["rules"] == kustomized_pool_rules()


@pytest.mark.parametrize(
    ("name", "aggregated"),
    [("view", {"view", "edit", "admin"}), ("edit", {"edit", "admin"})],
)
def test_the_roles_of_people_apply_to_queueworkers(name: str, aggregated: set[str]) -> None:
    labels = render()["ClusterRole", f"{NAME}-{name}"]["metadata"]["labels"]
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {key.removeprefix(prefix) for key in labels if key.startswith(prefix)} == aggregated
    assert ("ClusterRole", f"{NAME}-{name}") not in render("rbac.aggregate=false")


def test_the_test_has_an_account_of_its_own_in_the_first_namespace_that_is_watched() -> None:
    made = hooks(template("watchNamespaces={team-a,team-b}"))
    role, pod = made["Role", f"{NAME}-test"], made["Pod", f"{NAME}-test"]
    assert role["metadata"]["namespace"] == "team-a"
    assert role["rules"] == [
        {"apiGroups": ["crucible.dev"], "resources": ["queueworkers"], "verbs": ["create", "list", "delete"]}
    ]
    assert pod["spec"]["serviceAccountName"] == f"{NAME}-test"
    assert pod["spec"]["containers"][0]["args"][:3] == ["selftest", "--namespace", "team-a"]


def test_without_rbac_the_test_gets_no_rights_and_needs_an_account_that_has_them() -> None:
    test = f"{NAME}-test"

    def made(*values: str) -> set[str]:
        return {kind for kind, name in hooks(template(*values)) if name == test}

    assert made() == {"ServiceAccount", "Role", "RoleBinding", "Pod"}
    assert made("rbac.create=false") == set()
    given = ("rbac.create=false", "selfTest.serviceAccountName=tester")
    assert made(*given) == {"Pod"}
    assert hooks(template(*given))["Pod", test]["spec"]["serviceAccountName"] == "tester"


def test_a_given_account_of_the_test_gets_the_rights_if_the_chart_gives_any() -> None:
    made = hooks(template("selfTest.serviceAccountName=tester"))
    assert ("ServiceAccount", f"{NAME}-test") not in made
    (subject,) = made["RoleBinding", f"{NAME}-test"]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "tester", "namespace": NAMESPACE}


def test_the_uninstall_hook_asks_about_the_namespaces_that_are_watched() -> None:
    def args(*values: str) -> list[str]:
        job = hooks(template("watchNamespaces={team-a}", *values))["Job", f"{NAME}-uninstall"]
        found: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
        return found

    assert args() == ["uninstall", "--lease-name", NAME, "--namespace", "team-a"]
    assert args("uninstallHook.release=true") == [*args(), "--release"]
    assert ("Job", f"{NAME}-uninstall") not in hooks(template("uninstallHook.enabled=false"))
