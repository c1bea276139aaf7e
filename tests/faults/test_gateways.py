"""A gateway in front of the peers that answers a random share of the calls by itself, under load.

The seed is in the output of a case that fails; FAULT_SEED=… repeats it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.gateway import Gateway

if TYPE_CHECKING:
    from tests.support.faults.rig import Rig

SEED = os.environ.get("FAULT_SEED", "1")
ANSWERS = 40
"""So many are the gateways' own in each case: every kind of answer comes several times."""
LOST = "popped by the queue for pulls that the gateway answered with 502 or 504"


@pytest.mark.parametrize("where", ["the queue", "the executors"])
async def test_every_task_is_reported_once_through_gateways_that_answer_by_themselves(rig: Rig, where: str) -> None:
    """Mechanism: only the peer's own words are final; what may have popped a task is counted."""
    print(f"FAULT_SEED={SEED}")
    await rig.start(executors=3, delay=0.05)
    queue = Gateway(rig.queue.proxy, f"{SEED} queue")
    executors = [Gateway(site.proxy, f"{SEED} executor {i}") for i, site in enumerate(rig.executors)]
    gateways = [*([queue] if "queue" in where else []), *(executors if "executors" in where else [])]
    rig.load(0.03)
    await rig.progress()
    with rig.fault(f"gateways in front of {where} answer 12 % of the calls by themselves"):
        for gateway in gateways:
            gateway.open()
        await rig.until(lambda: sum(gateway.answered for gateway in gateways) >= ANSWERS, "enough answers", 90)
        for gateway in gateways:
            gateway.close()
    await rig.account(lost=queue.popped, lost_why=LOST if queue.popped else "", told_again=queue.reported)
    assert await rig.metric("pulls_lost_total") >= len(queue.popped)
    completed_twice = rig.ledger.ids("completed") & set().union(*(gateway.ran for gateway in executors))
    assert not completed_twice, "a result that nobody but the gateway had was reported"
