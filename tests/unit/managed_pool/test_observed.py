"""What others write into StatefulSets and pods is read as far as it makes sense, and never ends a watch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueworker.controller.managed_pool.condition import pool_state
from queueworker.controller.managed_pool.observed import PoolObjects, ordinal_of, pod_of, stateful_set_of
from queueworker.controller.managed_pool.plan import PoolPod, WantedPool, plan
from queueworker.resource.names import ANNOTATION_UPDATE_AWAITS, LABEL_QUEUEWORKER
from tests.support.properties import examples

CREATED = "2026-11-01T11:00:00Z"
ODD_TIMES = ["", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "yesterday", "2026-13-01T00:00:00Z"]


def stateful_set(annotation: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {
        "namespace": "team",
        "name": "x-executor",
        "labels": {LABEL_QUEUEWORKER: "x"},
        "annotations": {ANNOTATION_UPDATE_AWAITS: annotation},
        "ownerReferences": [{"uid": "uid-1", "controller": True}],
    }
    return {"metadata": metadata, "spec": {"template": {}} | spec}


def pod(name: str = "x-executor-1", status: Any = None, **metadata: Any) -> dict[str, Any]:
    labels = {LABEL_QUEUEWORKER: "x"}
    values = {"namespace": "team", "name": name, "labels": labels, "creationTimestamp": CREATED}
    return {"metadata": values | metadata} | ({} if status is None else {"status": status})


@pytest.mark.parametrize(
    ("text", "awaited"),
    [
        ("2", 2),
        ("0", 0),
        ("9999", 9999),
        ("", 0),
        ("-1", 0),
        (" 3", 0),
        ("3 ", 0),
        ("３", 0),
        ("²", 0),
        ("1e3", 0),
        ("1_0", 0),
        ("two", 0),
        ("9" * 5000, 0),
    ],
)
def test_an_annotation_counts_only_if_it_is_a_number_of_pods_in_ascii_digits(text: str, awaited: int) -> None:
    assert stateful_set_of(stateful_set(text)).awaited == awaited


def test_an_update_waits_for_no_more_pods_than_there_can_be() -> None:
    seen = replace(stateful_set_of(stateful_set("9999", replicas=2)), template_hash="new")
    one = PoolPod("x-executor-1", 1, "u", "new", ready=True)
    two = PoolPod("x-executor-2", 2, "u", "new", ready=False)
    assert plan(WantedPool(2, "new", 40), seen, [one, two], {}, {}, 0).awaited == 9999
    assert plan(WantedPool(2, "new", 40), seen, [one, replace(two, ready=True)], {}, {}, 0).awaited == 0


@pytest.mark.parametrize("spec", [{}, {"replicas": None}])
def test_a_stateful_set_without_replicas_has_one(spec: dict[str, Any]) -> None:
    assert stateful_set_of(stateful_set(**spec)).replicas == 1


def test_no_plan_names_more_pods_than_a_pool_may_have() -> None:
    """Whoever may scale one StatefulSet would end the operator."""
    seen = stateful_set_of(stateful_set(replicas=2**31 - 1))
    assert seen.replicas == 1000
    assert len(plan(WantedPool(2, "", 40), seen, [], {}, {}, 0).leaving) == 1000


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [
        ("x-executor-12", 12),
        ("x-executor-0", 0),
        ("x-executor-2147483647", 2147483647),
        ("x-executor-", 0),
        ("x", 0),
        ("x-３", 0),
        ("x-²", 0),
        ("x--1", 1),
        ("x-" + "9" * 5000, 0),
    ],
)
def test_a_name_without_an_ordinal_has_the_ordinal_zero(name: str, ordinal: int) -> None:
    """The names of endpoints are those that a slice gives, of any length."""
    assert ordinal_of(name) == ordinal


@pytest.mark.parametrize("text", ODD_TIMES)
def test_a_time_that_cannot_be_read_is_left_out(text: str) -> None:
    """The API server takes and gives years that Python has not."""
    usual = pod_of(pod()).changed_at
    status = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": text}]}
    seen = pod_of(pod(status=status, deletionTimestamp=text or None))
    assert (seen.changed_at, seen.ready, seen.terminating) == (usual, True, bool(text))


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    assert pod_of(pod(creationTimestamp="2026-11-01T12:00:00.5+01:00")).changed_at == pod_of(pod()).changed_at + 0.5


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"conditions": None, "containerStatuses": None, "initContainerStatuses": None},
        {"containerStatuses": [{}, {"state": None}, {"state": {"waiting": None}}]},
        {"containerStatuses": [{"state": {"waiting": {"reason": None, "message": "x"}}}]},
        {"conditions": [{}, {"type": "Ready"}, {"type": "Ready", "status": "False"}]},
    ],
)
def test_a_pod_that_says_nothing_is_not_ready_and_has_no_problem(status: Any) -> None:
    seen = pod_of(pod(status=status))
    assert (seen.ready, seen.problem) == (False, "")


_TIMES = st.one_of(st.none(), st.sampled_from([*ODD_TIMES, CREATED]), st.text(max_size=30))
_WORDS = st.one_of(st.none(), st.text(max_size=20))
_STATES = st.fixed_dictionaries(
    {}, optional={"waiting": st.none() | st.fixed_dictionaries({}, optional={"reason": _WORDS, "message": _WORDS})}
)
_CONTAINERS = st.lists(st.fixed_dictionaries({}, optional={"state": st.none() | _STATES}), max_size=2)
_CONDITIONS = st.fixed_dictionaries(
    {"type": st.sampled_from(["Ready", "PodScheduled", "Other"])},
    optional={"status": _WORDS, "reason": _WORDS, "message": _WORDS, "lastTransitionTime": _TIMES},
)
_STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "conditions": st.none() | st.lists(_CONDITIONS, max_size=3),
        "containerStatuses": st.none() | _CONTAINERS,
        "initContainerStatuses": st.none() | _CONTAINERS,
        "reason": _WORDS,
        "message": _WORDS,
    },
)
_METADATA = st.fixed_dictionaries(
    {},
    optional={
        "annotations": st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
        "creationTimestamp": _TIMES,
        "deletionTimestamp": _TIMES,
        "ownerReferences": st.none() | st.lists(st.dictionaries(st.sampled_from(["uid", "kind"]), _WORDS), max_size=2),
    },
)


@settings(max_examples=examples(300))
@given(
    name=st.text(min_size=1, max_size=40) | st.from_regex(r"x-executor-[0-9]{1,12}", fullmatch=True),
    metadata=_METADATA,
    status=st.none() | _STATUSES,
    annotation=st.text() | st.from_regex(r"[0-9]{1,12}", fullmatch=True),
    count=st.integers(0, 3),
    template_hash=st.sampled_from(["", "new"]),
)
def test_no_pod_and_no_annotation_ends_the_list_of_all(
    name: str, metadata: dict[str, Any], status: Any, annotation: str, count: int, template_hash: str
) -> None:
    """A list that fails is a watch that fails: no pool of the namespace would be looked after."""
    objects = PoolObjects()
    objects.stateful_sets.listed("", [stateful_set(annotation)], ())
    objects.pods.listed("", [pod(name, status, **metadata), pod()], ())
    pods, found = objects.pods_of("team", "x"), objects.stateful_set("team", "x", "uid-1")
    assert "x-executor-1" in [seen.name for seen in pods]
    wanted = WantedPool(count, template_hash, 40)
    made = plan(wanted, found, pods, {}, {"x-executor-1": 0.0, name: 0.0}, 100)
    assert pool_state(wanted, found, pods, made, 100).message
