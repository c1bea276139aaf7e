"""Executors that die, freeze, lie and dawdle, with a load running through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.rig import Rig


async def test_an_executor_killed_mid_task_fails_its_tasks_and_the_other_goes_on(rig: Rig) -> None:
    """Mechanism: a connection that broke after the request was written is ambiguous, and is not sent again."""
    await rig.start(delay=0.5)
    rig.submit(60)
    await rig.progress()
    with rig.fault("SIGKILL of one of two executors while it runs tasks; it stays dead"):
        await rig.executors[0].kill()
    await rig.account()
    assert 1 <= len(rig.ledger.ids("failed")) <= 2
