"""The account of the demo, from what the queue did and what was stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

from demo.account import LOSS_WINDOW_SECONDS, Account, announced_losses, stored, stored_ids
from demo.services.storage_worker import Event, Store
from demo.show.facts import Stored

if TYPE_CHECKING:
    from pathlib import Path

IN_ORDER = Account(submitted=100, routed=100, stored=Stored(88, 12, 10), lost=0, announced=0)


def action(at: float, what: str, eval_id: str) -> bytes:
    return orjson.dumps({"at": at, "what": what, "eval_id": eval_id, "by": "queue"})


def test_the_summary_line_is_the_one_that_scripts_read() -> None:
    assert str(IN_ORDER) == "submitted=100 routed=100 completed=88 failed=12 lost=0"


def test_failures_are_explained() -> None:
    purpose, killed = IN_ORDER.explanations()
    assert purpose.startswith("failed on purpose: 10 ")
    assert killed.startswith("failed because their executor was killed: 2 ")


@pytest.mark.parametrize(("lost", "announced", "in_order"), [(0, 0, True), (1, 1, True), (2, 1, False), (-1, 0, False)])
def test_only_an_announced_loss_is_in_order(lost: int, announced: int, in_order: bool) -> None:
    account = replace(IN_ORDER, lost=lost, announced=announced)
    assert account.in_order is in_order
    assert any("This is a defect" in line for line in account.explanations()) is not in_order


def test_a_loss_is_announced_if_the_task_was_handed_out_while_the_router_was_killed() -> None:
    kill = 50.0
    actions = [
        action(kill - LOSS_WINDOW_SECONDS / 2, "handed-out", "not-journaled"),
        action(kill - LOSS_WINDOW_SECONDS / 2, "handed-out", "reported"),
        action(kill - LOSS_WINDOW_SECONDS / 2, "handed-out", "stored"),
        action(kill - LOSS_WINDOW_SECONDS * 2, "handed-out", "long-before"),
        action(kill + 5, "failed", "reported"),
    ]
    assert announced_losses(actions, [kill], {"stored"}) == {"not-journaled"}
    assert announced_losses(actions, [], {"stored"}) == set()


def test_outcomes_are_counted_for_each_line_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "evaluations.db")
    error = '{"error": "ValueError: task 3 fails on purpose"}'
    store.write(
        [
            Event("ours-1", "evaluation:completed", "completed", "{}", 1.0),
            Event("ours-2", "evaluation:failed", "failed", error, 1.0),
            Event("ours-3", "evaluation:failed", None, "executor-1 answered 502", 1.0),
            Event("ours-4", "evaluation:running", None, None, 1.0),
            Event("legacy-1", "evaluation:completed", "completed", "{}", 1.0),
        ]
    )
    store.close()
    assert stored(tmp_path / "evaluations.db", "ours") == Stored(1, 2, 1)
    assert stored(tmp_path / "evaluations.db", "legacy") == Stored(1, 0, 0)
    assert stored_ids(tmp_path / "evaluations.db", "ours") == {"ours-1", "ours-2", "ours-3"}
