"""A Service's ready endpoints, from its EndpointSlices."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.controller.discovery import Slices, endpoints, read_slice
from queueworker.controller.kinds import ENDPOINT_SLICES
from queueworker.resource.executors_spec import ServiceRef
from queueworker.routing.config import Endpoint


def slice_of(*addresses: str, port: int | None = 8083, name: str = "http") -> dict[str, Any]:
    return {
        "ports": [{"name": "metrics", "port": 9}, {"name": name, "port": port}],
        "endpoints": [{"addresses": [address], "targetRef": {"name": f"pod-{address}"}} for address in addresses],
    }


def found(*slices: dict[str, Any], port: str = "http") -> list[str]:
    return [endpoint.url for endpoint in endpoints(ServiceRef(name="executor", port=port), map(read_slice, slices))]


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


def both_families(*, ready: bool = True) -> list[dict[str, Any]]:
    """The slices of a dual-stack Service, IPv6 first; `ready` is what the IPv4 slice says of its pods."""
    slices = [slice_of("fd00::1", "fd00::2"), slice_of("10.0.0.1", "10.0.0.2")]
    for item in slices:
        for number, endpoint in enumerate(item["endpoints"]):
            endpoint["targetRef"] = {"name": f"executor-{number}"}
    for endpoint in slices[1]["endpoints"]:
        endpoint["conditions"] = {"ready": ready}
    return slices


def test_a_pod_with_addresses_of_both_families_counts_once() -> None:
    assert found(*both_families()) == ["http://10.0.0.1:8083", "http://10.0.0.2:8083"]


def test_a_pod_is_not_ready_as_soon_as_its_ipv4_slice_says_so() -> None:
    assert found(*both_families(ready=False)) == []


def test_a_pod_whose_ipv4_slice_has_not_the_port_counts_by_its_ipv6_address() -> None:
    slices = both_families()
    slices[1]["ports"] = [{"name": "metrics", "port": 9090}]
    assert found(*slices) == ["http://[fd00::1]:8083", "http://[fd00::2]:8083"]


def test_endpoints_of_both_families_that_are_no_pods_all_count() -> None:
    slices = both_families()
    for endpoint in slices[0]["endpoints"] + slices[1]["endpoints"]:
        del endpoint["targetRef"]
    assert len(found(*slices)) == 4


@pytest.mark.parametrize("item", [{}, {"ports": None, "endpoints": None}, {"ports": [{"name": "http", "port": 1}]}])
def test_a_slice_with_nothing_in_it_gives_nothing(item: dict[str, Any]) -> None:
    assert found(item) == []


def test_an_endpoint_without_a_pod_is_called_by_its_address() -> None:
    item = {"ports": [{"name": "http", "port": 1}], "endpoints": [{"addresses": ["10.0.0.1"]}]}
    assert endpoints(ServiceRef(name="executor"), [read_slice(item)]) == [Endpoint("10.0.0.1", "http://10.0.0.1:1")]


def body(name: str, service: str = "executor", namespace: str = "ns") -> dict[str, Any]:
    """A slice with one endpoint, which has the slice's name."""
    metadata = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}}
    return {"metadata": metadata, "endpoints": [{"addresses": [f"10.0.0.{ord(name[0])}"], "targetRef": {"name": name}}]}


def names(slices: Slices, service: str = "executor") -> list[str]:
    return [endpoint.name for endpoint in endpoints(ServiceRef(name=service, port="1"), slices.of("ns", service))]


def test_slices_are_kept_by_service_until_they_are_deleted() -> None:
    changed: list[str] = []
    slices = Slices(changed.append)
    assert names(slices) == []
    slices.changed(None, body("a"))
    slices.changed("ADDED", body("b"))
    slices.changed("ADDED", body("c", service="other"))
    slices.changed("ADDED", body("d", namespace="elsewhere"))
    assert names(slices) == ["a", "b"]
    slices.changed("MODIFIED", body("b") | {"endpoints": []})
    assert names(slices) == ["a"]
    slices.changed("MODIFIED", body("b"))
    slices.changed("DELETED", body("a"))
    slices.changed("DELETED", body("never seen"))
    assert names(slices) == ["b"]
    slices.changed("MODIFIED", body("b", service="other"))
    assert (names(slices), names(slices, "other")) == ([], ["b", "c"])
    assert changed[:2] == ["ns", "ns"]
    assert "elsewhere" in changed


def test_what_is_kept_of_a_page_is_all_that_is_read_of_a_slice() -> None:
    whole = body("a") | slice_of("10.0.0.1") | {"addressType": "IPv4"}
    whole["metadata"]["managedFields"] = [{"manager": "endpointslice-controller"}]
    whole["endpoints"][0] |= {"nodeName": "node-1", "zone": "a", "conditions": {"ready": True}}
    trimmed = ENDPOINT_SLICES.trim(whole)
    assert read_slice(trimmed) == read_slice(whole)
    assert "managedFields" not in str(trimmed)
    assert "nodeName" not in str(trimmed)


def test_a_slice_that_is_not_in_the_list_is_gone_unless_an_event_came_meanwhile() -> None:
    slices = Slices()
    for name in ("a", "b", "new"):
        slices.changed("ADDED", body(name))
    slices.changed("ADDED", body("other", namespace="elsewhere"))
    slices.listed("ns", [body("b"), body("c"), body("deleted")], {("ns", "new"), ("ns", "deleted")})
    assert names(slices) == ["b", "c", "new"]
    assert slices.of("elsewhere", "executor")
    slices.listed("", [body("b")], ())
    assert (names(slices), slices.of("elsewhere", "executor")) == (["b"], [])


def test_nothing_is_said_of_a_namespace_before_its_first_list() -> None:
    slices = Slices()
    assert not slices.is_listed("ns")
    slices.listed("ns", [], ())
    assert (slices.is_listed("ns"), slices.is_listed("elsewhere")) == (True, False)
    slices.watch_changed("ns", "403 Forbidden")
    assert (slices.problem("ns"), slices.problem("elsewhere")) == ("403 Forbidden", "")
    slices.watch_changed("ns", "")
    slices.watch_changed("", "404 Not Found")
    assert slices.problem("ns") == "404 Not Found"


def test_nothing_is_kept_of_services_that_are_gone() -> None:
    """In a cluster that makes and deletes namespaces all day, they would be many."""
    slices = Slices()
    for number in range(3):
        slices.changed("ADDED", body("a", service=f"service-{number}"))
        slices.changed("DELETED", body("a", service=f"service-{number}"))
    assert not slices._by_service
