"""The CRD that is made from the models: described field by field, structural, and the same as the committed files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import ValidationError

from queueworker.resource import generate
from queueworker.resource.crd import crd, structural
from queueworker.resource.generate import _fields, crd_yaml
from queueworker.resource.model import INT_OR_STRING
from queueworker.resource.reasons import ConditionType, Reason
from queueworker.resource.spec import QueueWorkerSpec, RoutingSpec
from queueworker.resource.warnings import warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = crd()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]
SPEC = dict(_fields(SCHEMA["spec"], "spec"))
STATUS = dict(_fields(SCHEMA["status"], "status"))
UNIT = re.compile(r"\bseconds\b", re.IGNORECASE)


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        yield from nodes(child)


@pytest.mark.parametrize("path", [*SPEC, *STATUS])
def test_every_field_is_described_in_a_sentence(path: str) -> None:
    text = (SPEC | STATUS)[path].get("description", "")
    assert text[:1].isupper(), f"{path}: {text!r}"
    assert text.endswith("."), f"{path}: {text!r}"


@pytest.mark.parametrize("path", [p for p, node in SPEC.items() if node.get("type", INT_OR_STRING) != "object"])
def test_the_description_tells_the_default(path: str) -> None:
    """The one that the schema has, or the one that holds when the field is not there."""
    node = SPEC[path]
    parent, _, name = path.rpartition(".")
    if name in SPEC.get(parent, {}).get("required", ()):
        assert "default" not in node
        return
    assert "Default: " in node["description"]
    if "default" in node:
        default = node["default"]
        spelled = str(default).lower() if isinstance(default, bool) else str(default)
        assert f"Default: {spelled}." in node["description"]


@pytest.mark.parametrize("path", [p for p in (*SPEC, *STATUS) if p.endswith("Seconds")])
def test_a_duration_is_a_whole_number_of_seconds_and_says_so(path: str) -> None:
    node = (SPEC | STATUS)[path]
    assert node.get("type", INT_OR_STRING) == "integer"
    assert UNIT.search(node["description"])


def test_every_item_of_a_list_is_described_and_so_are_version_and_kind() -> None:
    schema = VERSION["schema"]["openAPIV3Schema"]
    described = [node["items"] for node in nodes(schema) if "items" in node]
    described += [schema["properties"]["apiVersion"], schema["properties"]["kind"]]
    assert len(described) > 4
    assert all(node.get("description", "").endswith(".") for node in described)


def test_a_reference_to_a_secret_is_replaced_as_a_whole() -> None:
    assert all(node["x-kubernetes-map-type"] == "atomic" for p, node in SPEC.items() if p.endswith("SecretRef"))


def test_the_yaml_has_no_aliases() -> None:
    assert not re.search(r"[&*]id\d", crd_yaml())


@pytest.mark.parametrize(("given", "port"), [(8083, "8083"), ("8083", "8083"), ("http", "http")])
def test_the_port_of_a_service_is_a_name_or_a_number_with_or_without_quotes(given: object, port: str) -> None:
    spec = QueueWorkerSpec.model_validate({"executors": {"service": {"name": "executor", "port": given}}})
    assert spec.executors.service is not None
    assert spec.executors.service.port == port


@pytest.mark.parametrize("given", [True, 80.5, None, [80]])
def test_a_port_of_another_type_is_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        QueueWorkerSpec.model_validate({"executors": {"service": {"name": "executor", "port": given}}})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, ""),
        ({"routing": {"drainSeconds": 5}}, "run again; raise drainSeconds to at least 30"),
        ({"routing": {"drainSeconds": 5, "recovery": "Fail"}}, "are reported as failed"),
        ({"routing": {"drainSeconds": 5, "taskTimeoutSeconds": 5}}, ""),
        ({"executors": {"count": 3}}, ""),
        ({"executors": {"count": 3, "service": {"name": "e"}}}, "executors.count (3, which `kubectl scale` sets)"),
        ({"executors": {"count": 0, "endpoints": ["http://e:1"]}}, "change the list instead"),
        ({"executors": {"endpoints": ["http://e:1"]}}, ""),
    ],
)
def test_what_does_something_other_than_one_may_expect_is_a_warning(spec: dict[str, Any], words: str) -> None:
    found = warnings(QueueWorkerSpec.model_validate(spec))
    assert words in "".join(found)
    assert len(found) == bool(words)


def test_the_limit_of_a_body_is_a_small_number_of_mebibytes() -> None:
    node = SPEC["spec.routing.maxBodyMebibytes"]
    assert (node["minimum"], node["default"], node["maximum"], node["format"]) == (1, 8, 64, "int32")
    assert "mebibytes" in node["description"]
    assert RoutingSpec(max_body_mebibytes=2).max_body_bytes == 2 * 1024 * 1024


@pytest.mark.parametrize("path", ["desired", "healthy", "endpoints[].inFlight", "endpoints[].capacity"])
def test_numbers_of_executors_and_slots_are_as_wide_as_those_of_the_scale_subresource(path: str) -> None:
    node = STATUS[f"status.executors.{path}"]
    assert (node["format"], node["maximum"]) == ("int32", 2**31 - 1)


def test_the_schema_is_structural() -> None:
    for node in nodes(VERSION["schema"]["openAPIV3Schema"]):
        assert node.get("type", INT_OR_STRING) in {"object", "array", "string", "integer", "boolean", INT_OR_STRING}, (
            node
        )
        assert node.keys().isdisjoint({"$ref", "$defs", "title", "anyOf", "allOf", "additionalProperties", "const"})
        if node.get("type", INT_OR_STRING) == "integer":
            assert node["format"] in {"int32", "int64"}


@pytest.mark.parametrize(
    "path",
    [p for p, node in SPEC.items() if node.get("type", INT_OR_STRING) in {"string", "array", "integer", INT_OR_STRING}],
)
def test_everything_that_a_user_writes_has_a_bound(path: str) -> None:
    node = SPEC[path]
    bounded = {
        "string": {"maxLength", "enum"},
        "array": {"maxItems"},
        "integer": {"maximum"},
        INT_OR_STRING: {"maximum"},
    }[node.get("type", INT_OR_STRING)]
    assert bounded & node.keys()


def filled(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """As the API server fills defaults in: from the outside inward."""
    for name, child in schema.get("properties", {}).items():
        if name not in value and "default" in child:
            value[name] = yaml.safe_load(yaml.safe_dump(child["default"]))
        if child["type"] == "object" and name in value:
            filled(child, value[name])
    return value


def test_the_api_servers_defaults_are_the_models_own() -> None:
    assert SCHEMA["spec"]["default"] == {}
    assert QueueWorkerSpec.model_validate(filled(SCHEMA["spec"], {})) == QueueWorkerSpec()


def test_status_has_no_defaults() -> None:
    assert all("default" not in node for node in nodes(SCHEMA["status"]))


def test_status_has_no_closed_list_of_values_but_that_of_metav1_condition() -> None:
    closed = {path: node["enum"] for path, node in STATUS.items() if "enum" in node}
    assert closed == {"status.conditions[].status": ["True", "False", "Unknown"]}
    for path in ("status.conditions[].type", "status.conditions[].reason", "status.migration.phase"):
        assert {"minLength", "maxLength", "pattern"} <= STATUS[path].keys()
    assert all(re.fullmatch(STATUS["status.conditions[].reason"]["pattern"], reason) for reason in Reason)
    assert all(re.fullmatch(STATUS["status.conditions[].type"]["pattern"], kind) for kind in ConditionType)


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda c: c["name"])
def test_every_column_shows_a_field_that_there_is(column: dict[str, Any]) -> None:
    path = column["jsonPath"].removeprefix(".").replace("[?(@.type=='Ready')]", "[]")
    if path.startswith("metadata."):
        assert column["type"] == "date"
        return
    assert (SPEC | STATUS)[path]["type"] == column["type"]


def test_scale_goes_by_fields_that_there_are() -> None:
    scale = VERSION["subresources"]["scale"]
    assert SPEC[scale["specReplicasPath"].removeprefix(".")]["type"] == "integer"
    assert STATUS[scale["statusReplicasPath"].removeprefix(".")]["type"] == "integer"
    assert STATUS[scale["labelSelectorPath"].removeprefix(".")]["type"] == "string"


def test_optional_and_constant_parts_of_a_model_become_plain_schema() -> None:
    made = structural(
        {
            "$defs": {
                "Inner": {"type": "object", "title": "Inner", "properties": {"n": {"type": "integer", "default": 1}}}
            },
            "type": "object",
            "properties": {
                "inner": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}], "default": None, "description": "D."},
                "kind": {"const": "One", "type": "string"},
            },
        }
    )
    inner = made["properties"]["inner"]
    assert inner["description"] == "D."
    assert "default" not in inner
    assert inner["properties"]["n"] == {"type": "integer", "format": "int64", "default": 1}
    assert made["properties"]["kind"]["enum"] == ["One"]


def test_the_files_of_the_repository_are_up_to_date() -> None:
    assert generate.run(generate.TARGETS, check=True) == 0


def test_a_stale_file_is_found_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = {str(tmp_path / "folder" / "crd.yaml"): generate.crd_yaml}
    assert generate.run(target, check=True) == 1
    assert "make generate" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists(), "a check writes nothing"
    assert generate.run(target, check=False) == 1
    assert generate.run(target, check=True) == 0
