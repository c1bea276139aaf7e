"""Each value of the chart is where it belongs."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster import binaries
from queueworker import __version__
from queueworker.resource import names
from queueworker.resource.spec import QueueWorkerSpec
from tests.support.charts import (
    CHART,
    CRD,
    IMAGE,
    NAME,
    NAMESPACE,
    by_name,
    container,
    documents,
    helm,
    hooks,
    pod,
    render,
    template,
)
from tests.support.doc_blocks import blocks
from tests.support.operating import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

# Which release an object is of: only Helm knows that.
HELMS_OWN = {
    "helm.sh/chart",
    "helm.sh/resource-policy",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
}


def without_helms_own(node: Any) -> Any:
    """The same with those labels and annotations left out, and with no empty map where they were all."""
    if isinstance(node, list):
        return [without_helms_own(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: without_helms_own(value) for key, value in node.items() if key not in HELMS_OWN}
    return {key: value for key, value in rest.items() if not (key in {"labels", "annotations"} and value == {})}


def kustomized(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    command = [binaries.kubectl(), "kustomize", str(ROOT / "manifests" / folder)]
    return by_name(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_it_lints_and_has_the_projects_version() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART)).stdout
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


def test_it_describes_the_resource_and_an_example_for_artifact_hub() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    (crd,) = yaml.safe_load(annotations["artifacthub.io/crds"])
    assert (crd["kind"], crd["version"], crd["name"]) == (names.KIND, names.VERSION, f"{names.PLURAL}.{names.GROUP}")
    minimal = yaml.safe_load((ROOT / "manifests" / "samples" / "minimal.yaml").read_text())
    assert yaml.safe_load(annotations["artifacthub.io/crdsExamples"]) == [minimal]
    assert annotations["artifacthub.io/operator"] == "true"


@pytest.mark.parametrize(("folder", "values"), [("default", []), ("namespaced", ["watchNamespaces={team-a}"])])
def test_its_objects_are_those_of_the_manifests_field_by_field(folder: str, values: list[str]) -> None:
    plain = kustomized(folder)
    del plain["Namespace", NAMESPACE]  # `helm install --create-namespace`
    charted = render(*values)
    assert charted.keys() == plain.keys()
    for (kind, name), mine in plain.items():
        theirs = without_helms_own(charted[kind, name])
        # The name is a label of all of a chart's objects; of the manifests' own it is one where it is selected by.
        theirs["metadata"].pop("labels", None)
        mine["metadata"].pop("labels", None)
        assert theirs == mine, f"{kind} {name}"


@pytest.mark.parametrize(
    ("values", "image"),
    [
        (["image.repository=r/op"], f"r/op:{__version__}"),
        (["image.repository=r/op", "image.tag=v2"], "r/op:v2"),
        (["image.digest=sha256:" + "0" * 64, "image.tag=v2"], f"{NAME}@sha256:" + "0" * 64),
    ],
)
def test_the_image_has_a_tag_or_a_digest(values: list[str], image: str) -> None:
    assert container(render(*values))["image"] == image


Row = tuple[list[str], str, object]
"""Values, the path of what they are for, and what is expected there."""


def misplaced(made: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """What is found at the paths of the rows whose values are not there."""

    def at(path: str) -> Any:
        found: Any = made
        for key in path.split("."):
            found = found.get(key, {})
        return found

    return {path: at(path) for _, path, expected in rows if at(path) != expected}


def all_values(rows: list[Row]) -> list[str]:
    return [value for values, _, _ in rows for value in values]


OF_THE_CONTAINER: list[Row] = [
    (["image.pullPolicy=Always"], "imagePullPolicy", "Always"),
    (["resources.limits.memory=2Gi"], "resources.limits.memory", "2Gi"),
    (["extraEnvFrom[0].secretRef.name=environment"], "envFrom", [{"secretRef": {"name": "environment"}}]),
    (
        ["extraVolumeMounts[0].name=ca", "extraVolumeMounts[0].mountPath=/etc/ca"],
        "volumeMounts",
        [{"name": "ca", "mountPath": "/etc/ca"}],
    ),
    (["securityContext.runAsUser=1000"], "securityContext.runAsUser", 1000),
    (["startupProbe.failureThreshold=9"], "startupProbe.failureThreshold", 9),
    (["livenessProbe.timeoutSeconds=9"], "livenessProbe.timeoutSeconds", 9),
]


def test_each_value_of_the_container_is_where_it_belongs() -> None:
    assert misplaced(container(render(*all_values(OF_THE_CONTAINER))), OF_THE_CONTAINER) == {}
    assert misplaced(container(render()), OF_THE_CONTAINER).keys() == {path for _, path, _ in OF_THE_CONTAINER}


def test_more_arguments_and_variables_follow_the_charts_own() -> None:
    made = container(render("extraArgs={--log-format,text}", "extraEnv[0].name=A", "extraEnv[0].value=b"))
    assert made["args"][-4:] == ["--lease-name", NAME, "--log-format", "text"]
    assert [item["name"] for item in made["env"]] == ["POD_NAMESPACE", "MANAGED_POOLS", "POD_IP", "WEB_FAILURES", "A"]


def test_tracing_is_configured_by_the_standard_variables_once_there_is_a_receiver() -> None:
    values = ["sampler=parentbased_traceidratio", "ratio=0.01", "headersSecretName=otlp"]
    assert "OTEL_" not in template(*(f"tracing.{value}" for value in values))
    made = container(render(*(f"tracing.{value}" for value in ("endpoint=http://collector:4318", *values))))
    assert [item for item in made["env"] if item["name"].startswith("OTEL_")] == [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"},
        {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"},
        {"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.01"},
        {
            "name": "OTEL_EXPORTER_OTLP_HEADERS",
            "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "headers"}},
        },
    ]


OF_THE_POD: list[Row] = [
    (["imagePullSecrets[0].name=registry"], "imagePullSecrets", [{"name": "registry"}]),
    (["terminationGracePeriodSeconds=120"], "terminationGracePeriodSeconds", 120),
    (["nodeSelector.disk=ssd"], "nodeSelector", {"disk": "ssd", "kubernetes.io/os": "linux"}),
    (["tolerations[0].operator=Exists"], "tolerations", [{"operator": "Exists"}]),
    (["priorityClassName=high"], "priorityClassName", "high"),
    (
        ["topologySpreadConstraints[0].labelSelector.matchLabels.a=b"],
        "topologySpreadConstraints",
        [{"labelSelector": {"matchLabels": {"a": "b"}}}],
    ),
    (["serviceAccount.create=false", "serviceAccount.name=mine"], "serviceAccountName", "mine"),
    (["extraVolumes[0].name=ca"], "volumes", [{"name": "ca"}]),
    (["dnsPolicy=Default"], "dnsPolicy", "Default"),
    (["dnsConfig.nameservers={10.0.0.10}"], "dnsConfig", {"nameservers": ["10.0.0.10"]}),
    (
        ["hostAliases[0].ip=10.0.0.7", "hostAliases[0].hostnames={queue}"],
        "hostAliases",
        [{"ip": "10.0.0.7", "hostnames": ["queue"]}],
    ),
]


def test_each_value_of_the_pod_is_where_it_belongs() -> None:
    assert misplaced(pod(render(*all_values(OF_THE_POD))), OF_THE_POD) == {}
    assert misplaced(pod(render()), OF_THE_POD).keys() == {path for _, path, _ in OF_THE_POD}


def test_pods_are_spread_over_nodes_and_a_constraint_without_a_selector_is_about_them() -> None:
    (default,) = pod(render())["topologySpreadConstraints"]
    (given,) = pod(render("topologySpreadConstraints[0].topologyKey=zone"))["topologySpreadConstraints"]
    selector = render()["Deployment", NAME]["spec"]["selector"]
    assert (default["topologyKey"], default["labelSelector"]) == ("kubernetes.io/hostname", selector)
    assert given == {"topologyKey": "zone", "labelSelector": selector}


def pods_of(text: str) -> list[dict[str, Any]]:
    """The specs of all pods, also of hooks and of the test."""
    made = documents(text)
    specs = [item["spec"]["template"]["spec"] for item in made if item["kind"] in {"Deployment", "Job"}]
    specs += [item["spec"] for item in made if item["kind"] == "Pod"]
    assert len(specs) == 3
    return specs


def test_no_pod_gets_a_token_if_that_is_not_wanted_whoever_made_the_account() -> None:
    given = ("serviceAccount.create=false", "serviceAccount.name=mine")
    for spec in pods_of(template(*given, "serviceAccount.automount=false")):
        assert spec["automountServiceAccountToken"] is False
    assert all("automountServiceAccountToken" not in spec for spec in pods_of(template(*given)))


def test_no_pod_has_a_fixed_user_and_all_are_confined() -> None:
    for spec in pods_of(template()):
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert [c["securityContext"] for c in spec["containers"]] == [
            {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        ]


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("crds.install=false", {"CustomResourceDefinition"}),
        ("serviceAccount.name=x", set()),
        ("rbac.create=false", {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}),
        ("podDisruptionBudget.enabled=false", {"PodDisruptionBudget"}),
        ("replicaCount=1", {"PodDisruptionBudget"}),
    ],
)
def test_what_is_not_wanted_can_be_left_out(value: str, kinds: set[str]) -> None:
    assert {kind for kind, _ in render()} - {kind for kind, _ in render(value)} == kinds


def test_common_labels_and_annotations_are_on_every_object_and_pod_and_select_nothing() -> None:
    made = documents(template("commonLabels.team=a", "commonAnnotations.owner=b"))
    for item in made:
        assert item["metadata"]["labels"]["team"] == "a", item["kind"]
        assert item["metadata"]["annotations"]["owner"] == "b", item["kind"]
        if item["kind"] in {"Deployment", "Job"}:
            assert item["spec"]["template"]["metadata"]["labels"]["team"] == "a"
        assert "team" not in str(item["spec"].get("selector", "")) if "spec" in item else True


def test_no_label_of_a_users_replaces_one_that_pods_are_selected_by() -> None:
    made = render("podLabels.app\\.kubernetes\\.io/name=mine", "commonLabels.app\\.kubernetes\\.io/instance=mine")
    spec = made["Deployment", NAME]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_the_pods_of_hooks_are_no_endpoints_of_the_service() -> None:
    text = template()
    selected = by_name(text)["Service", NAME]["spec"]["selector"]
    pods = [
        item["metadata"] if kind == "Pod" else item["spec"]["template"]["metadata"]
        for (kind, _), item in hooks(text).items()
        if kind in {"Pod", "Job"}
    ]
    assert len(pods) == 2
    for metadata in pods:
        assert not selected.items() <= metadata["labels"].items()


def test_objects_of_ones_own_may_be_maps_or_templates() -> None:
    made = render(
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].metadata.name=a-map",
        'extraObjects[1]=kind: ConfigMap\nmetadata:\n  name: "{{ .Release.Name }}-text"',
    )
    assert {("ConfigMap", "a-map"), ("ConfigMap", f"{NAME}-text")} <= made.keys()


def test_the_crd_is_kept_unless_told_otherwise_and_has_the_annotations_of_gitops() -> None:
    def annotations(*values: str) -> dict[str, str]:
        found: dict[str, str] = render(*values)["CustomResourceDefinition", CRD]["metadata"].get("annotations", {})
        return found

    assert annotations() == {"helm.sh/resource-policy": "keep"}
    assert annotations("crds.keep=false") == {}
    assert annotations("crds.keep=false", "crds.annotations.a=b") == {"a": "b"}


def test_two_releases_have_each_their_own_names_and_lease() -> None:
    one, other = render(release="blue"), render(release="green")
    assert one.keys() & other.keys() == {("CustomResourceDefinition", CRD)}
    args = container(one, f"blue-{NAME}")["args"]
    assert args[args.index("--lease-name") + 1] == f"blue-{NAME}"


def test_the_name_can_be_given_and_is_a_label() -> None:
    made = render("nameOverride=router", release="blue")["Deployment", "blue-router"]
    assert made["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] == "router"
    assert ("Deployment", "mine") in render("fullnameOverride=mine")


def places(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each scalar with the path of keys to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from places(value, path)
    else:
        yield path, node


def test_text_that_yaml_reads_as_a_number_or_as_a_truth_value_stays_text() -> None:
    values = [f"{key}=on" for key in ("nameOverride", "serviceAccount.name", "priorityClassName")]
    more = ["watchNamespaces={on}", "web.failures=Off", "web.allowActions=true", "web.tokenSecretName=on"]
    found = {
        path.rpartition(".")[2]
        for item in documents(template(*values, *more, release="2024"))
        if item["kind"] != "CustomResourceDefinition"
        for path, value in places(item)
        if isinstance(value, bool) or value == 2024
    }
    meant = {"automountServiceAccountToken", "enableServiceLinks"}
    assert found == meant | {"runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation"}


def test_failures_can_be_off_also_without_quotes() -> None:
    for value in ("web.failures=Off", "web.failures=false"):  # false is how YAML reads Off
        (found,) = [item for item in container(render(value))["env"] if item["name"] == "WEB_FAILURES"]
        assert found["value"] == "Off"


def test_the_service_may_have_both_families() -> None:
    spec = render("service.ipFamilyPolicy=PreferDualStack", "service.ipFamilies={IPv6,IPv4}")["Service", NAME]["spec"]
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])


def test_as_a_part_of_another_chart_it_takes_what_the_parent_gives(tmp_path: Any) -> None:
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    (parent / "charts" / NAME).symlink_to(CHART)
    dependency = {"name": NAME, "version": __version__, "condition": f"{NAME}.enabled", "tags": ["routing"]}
    about = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = {"global": {"imageRegistry": "x"}, "tags": {"routing": True}}
    (parent / "values.yaml").write_text(
        yaml.safe_dump(values | {NAME: {"enabled": True, "tags": {"a": True}, "image": {"repository": "r/op"}}})
    )
    made = by_name(helm("template", "whole", str(parent)).stdout)
    assert container(made, f"whole-{NAME}")["image"] == f"r/op:{__version__}"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["image.repository="], "image.repository is required: name the image with its registry"),
        (["serviceAccount.create=false"], "set serviceAccount.name to the account that the operator is to use"),
        (["rbac.secretNames={a,b}"], "write rbac.secrets: {read: Named, names: [a, b]}"),
        (["rbac.secrets.read=Named"], "list the Secrets in rbac.secrets.names"),
        (["rbac.secrets.names={a}"], "rbac.secrets.read is All: write Named, or leave the names out"),
        (["rbac.secrets.read=None", "rbac.secrets.names={a}"], "rbac.secrets.read is None: write Named"),
        (["podMonitor.enabled=true", "serviceMonitor.enabled=true"], "every replica would be scraped twice"),
    ],
)
def test_values_that_cannot_work_together_are_refused_with_what_to_write(values: list[str], words: str) -> None:
    sets = [part for value in (IMAGE, *values) for part in ("--set", value)]
    done = helm("template", "x", str(CHART), *sets, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def notes(*values: str) -> str:
    """What `helm install` prints at its end. Helm 3.17 prints it only where there is a cluster."""
    text = (CHART / "templates" / "NOTES.txt").read_text()
    rest = 'kind: Notes\nmetadata: {name: it}\ntext: {{ include "notes" . | toJson }}'
    found = json.dumps([f'{{{{ define "notes" }}}}{text}{{{{ end }}}}{rest}'])
    sets = [part for value in (IMAGE, *values) for part in ("--set", value)]
    made = helm("template", "x", str(CHART), *sets, "--set-json", f"extraObjects={found}").stdout
    return str(by_name(made)["Notes", "it"]["text"])


@pytest.mark.parametrize(
    ("value", "steps"),
    [("selfTest.enabled=true", "123"), ("selfTest.enabled=false", "12"), ("rbac.create=false", "12")],
)
def test_the_notes_number_what_is_to_be_done(value: str, steps: str) -> None:
    assert "".join(re.findall(r"^(\d)\. ", notes(value), re.MULTILINE)) == steps


def test_the_commands_of_the_notes_make_a_valid_queueworker_where_the_operator_looks_for_it() -> None:
    commands = notes("watchNamespaces={team-a}").partition("look at it:\n")[2].partition("Removal:")[0]
    kubectl = 'kubectl() { [ "$1" != apply ] || { echo "# $*"; cat; }; }\n'
    applied = subprocess.run(["bash", "-euc", kubectl + commands], capture_output=True, text=True, check=True).stdout
    assert applied.startswith("# apply -n team-a ")
    made = yaml.safe_load(applied)
    assert (made.pop("apiVersion"), made.pop("kind")) == (f"{names.GROUP}/{names.VERSION}", names.KIND)
    assert made.keys() == {"metadata", "spec"}
    QueueWorkerSpec.model_validate(made["spec"])


def test_the_notes_have_the_advice_of_the_page_about_installing() -> None:
    (patch,) = [block.text.strip() for block in blocks(ROOT / "docs" / "install.md") if "finalizers" in block.text]
    assert patch in notes()
    assert "`helm install --take-ownership`" in notes()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "`helm uninstall` stops, and names those that are left."),
        (["uninstallHook.release=true"], "`helm uninstall` lets those go that are left."),
        (["uninstallHook.enabled=false"], ""),
    ],
)
def test_the_notes_say_what_an_uninstallation_does(values: list[str], words: str) -> None:
    said = notes(*values)
    assert words in said
    assert said.count("`helm uninstall`") == bool(words) + 1, "the other one keeps the CRD"
    assert "keeps the CRD" not in notes(*values, "crds.keep=false")
