"""What a spec means to its router: whether it routes, and to whom; and what a Service's endpoints are."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.controller.discovery import Slices, endpoints
from queueworker.resource.spec import QueueWorkerSpec, ServiceRef
from queueworker.routing.config import Endpoint, Intent, RouterConfig, intent, static_endpoints


def spec(**parts: Any) -> QueueWorkerSpec:
    return QueueWorkerSpec.model_validate(parts)


@pytest.mark.parametrize(
    ("suspend", "percent", "force", "wanted"),
    [
        (False, 0, False, Intent.ROUTE),
        (False, 50, False, Intent.ROUTE),
        (False, 99, False, Intent.ROUTE),
        (False, 100, False, Intent.STANDBY),
        (False, 100, True, Intent.ROUTE),
        (True, 0, False, Intent.SUSPEND),
        (True, 100, False, Intent.SUSPEND),
        (True, 100, True, Intent.SUSPEND),
    ],
)
def test_suspension_is_stronger_than_force_and_force_than_the_percentage(
    suspend: bool, percent: int, force: bool, wanted: Intent
) -> None:
    assert intent(spec(suspend=suspend, migration={"celeryPercent": percent, "forceLegacyQueue": force})) is wanted


@pytest.mark.parametrize(
    ("executors", "wanted"),
    [
        ({}, [("executor-1", "http://executor-1:8083")]),
        ({"count": 0}, []),
        (
            {"count": 2, "baseURL": "http://e/", "port": 1},
            [("executor-1", "http://e-1:1"), ("executor-2", "http://e-2:1")],
        ),
        ({"count": 9, "endpoints": ["http://10.0.0.7:8083/"]}, [("10.0.0.7:8083", "http://10.0.0.7:8083")]),
        ({"endpoints": ["https://a/b", "http://[::1]:1"]}, [("a/b", "https://a/b"), ("[::1]:1", "http://[::1]:1")]),
        ({"service": {"name": "executor"}}, None),
    ],
)
def test_executors_are_numbered_or_listed_or_watched(executors: dict[str, Any], wanted: Any) -> None:
    found = static_endpoints(spec(executors=executors))
    assert (None if found is None else [(e.name, e.url) for e in found]) == wanted


def test_a_config_shows_no_key() -> None:
    assert "s3cret" not in repr(RouterConfig("g", spec(), "redis://r", "s3cret"))


# --- a Service's endpoints


def slice_of(*addresses: str, port: int | None = 8083, name: str = "http") -> dict[str, Any]:
    return {
        "ports": [{"name": "metrics", "port": 9}, {"name": name, "port": port}],
        "endpoints": [{"addresses": [address], "targetRef": {"name": f"pod-{address}"}} for address in addresses],
    }


def found(*slices: dict[str, Any], port: str = "http") -> list[str]:
    return [endpoint.url for endpoint in endpoints(ServiceRef(name="executor", port=port), slices)]


@pytest.mark.parametrize(
    ("conditions", "counts"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": True, "terminating": False}, True),
        ({"ready": False}, False),
        ({"ready": True, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
    ],
)
def test_ready_endpoints_count_and_unset_is_ready(conditions: dict[str, bool], counts: bool) -> None:
    item = slice_of("10.0.0.1")
    item["endpoints"][0]["conditions"] = conditions
    assert bool(found(item)) is counts


def test_endpoints_of_several_slices_come_once_each_in_the_order_of_their_names() -> None:
    assert found(slice_of("10.0.0.2", "10.0.0.1"), slice_of("10.0.0.1", "10.0.0.3")) == [
        "http://10.0.0.1:8083",
        "http://10.0.0.2:8083",
        "http://10.0.0.3:8083",
    ]


def test_ports_go_by_name_or_by_number() -> None:
    assert found(slice_of("10.0.0.1", name="web")) == []
    assert found(slice_of("10.0.0.1", name="web"), port="web") == ["http://10.0.0.1:8083"]
    assert found(slice_of("10.0.0.1", name="web"), port="7000") == ["http://10.0.0.1:7000"]
    assert found(slice_of("10.0.0.1", port=None)) == []


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert found(slice_of("fd00::1")) == ["http://[fd00::1]:8083"]


@pytest.mark.parametrize("item", [{}, {"ports": None, "endpoints": None}, {"ports": [{"name": "http", "port": 1}]}])
def test_a_slice_with_nothing_in_it_gives_nothing(item: dict[str, Any]) -> None:
    assert found(item) == []


def test_an_endpoint_without_a_pod_is_called_by_its_address() -> None:
    item = {"ports": [{"name": "http", "port": 1}], "endpoints": [{"addresses": ["10.0.0.1"]}]}
    assert endpoints(ServiceRef(name="executor"), [item]) == [Endpoint("10.0.0.1", "http://10.0.0.1:1")]


def test_slices_are_kept_by_service_until_they_are_deleted() -> None:
    def body(name: str, service: str = "executor", namespace: str = "ns") -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}}}

    slices = Slices()
    assert slices.of("ns", "executor") == []
    assert slices.take(None, body("a")) == "ns"
    slices.take("ADDED", body("b"))
    slices.take("MODIFIED", body("b") | {"endpoints": []})
    slices.take("ADDED", body("c", service="other"))
    slices.take("ADDED", body("d", namespace="elsewhere"))
    assert [item["metadata"]["name"] for item in slices.of("ns", "executor")] == ["a", "b"]
    assert "endpoints" in slices.of("ns", "executor")[1]
    slices.take("DELETED", body("a"))
    slices.take("DELETED", body("never seen"))
    assert [item["metadata"]["name"] for item in slices.of("ns", "executor")] == ["b"]
