"""Two leaders and one object: counts are handed over once, and a rival that stays is told of."""

from __future__ import annotations

from typing import Any

import pytest

from queueworker.controller.handover import PATIENCE_SECONDS, RivalAlarm, handed_over, handing_over, taking
from queueworker.controller.status import Totals


def body(annotations: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"annotations": annotations}}


def test_counts_are_left_in_an_annotation_and_found_there() -> None:
    counts = Totals(completed=3, failed=2, retried=1, recovered=0)
    patch = handing_over("queueworker-operator-5c6f-xk2lp-" + "x" * 60 + "-1a2b3c4d", counts)
    annotations = patch["metadata"]["annotations"]
    ((name, _),) = annotations.items()
    assert len(name.partition("/")[2]) <= 63
    assert handed_over(body(annotations | {"other": "[1]"})) == {name: counts}
    test, remove = taking(body(annotations), name)
    assert (test["value"], remove["path"]) == (annotations[name], f"/metadata/annotations/{name.replace('/', '~1')}")


@pytest.mark.parametrize("value", ["", "x", "{}", "[-1,0,0,0]", "[1.5,0,0,0]", "[1,2,3,4,5]", "[true,0,0,0]"])
def test_an_annotation_that_is_not_ours_counts_nothing(value: str) -> None:
    assert handed_over(body({"handed-over.crucible.dev/x": value})) == {"handed-over.crucible.dev/x": Totals()}


def test_a_rival_that_outlives_its_drain_is_told_of_once() -> None:
    alarm = RivalAlarm()
    assert not alarm.look(1, 30, 100.0)
    assert not alarm.look(1, 30, 130.0 + PATIENCE_SECONDS)
    assert alarm.look(1, 30, 131.0 + PATIENCE_SECONDS)
    assert not alarm.look(1, 30, 500.0)
    assert not alarm.look(0, 30, 501.0)
    assert not alarm.look(1, 30, 502.0), "it is another one"
