"""Executors of both kinds that really run their tasks, and an outcome for each that really was."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from tests.support.faults.http_faults import passes

if TYPE_CHECKING:
    from tests.support.faults.rig import Rig, Site

TASKS = 300
NOBODY = ("--async", "--redis-url", "redis://127.0.0.1:9")
"""An asynchronous executor all of whose events are lost."""
CODES = {
    "fails": "import sys; print('the reason of {}', file=sys.stderr); sys.exit(3)",
    "is killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "takes too long": "import time; time.sleep(60)",
    "completes": "import time; time.sleep(0.1); print('the result of {}')",
}


def kind(eval_id: str) -> str:
    """What becomes of the task: six of ten complete."""
    return {"7": "fails", "8": "is killed", "9": "takes too long", "0": "takes too long"}.get(eval_id[-1], "completes")


def code(eval_id: str) -> str:
    return CODES[kind(eval_id)].format(eval_id)


def timeout(eval_id: str) -> int:
    return 2 if kind(eval_id) == "takes too long" else 30


async def kill_one(site: Site, killed: set[str]) -> None:
    """Kill a task of an asynchronous executor that takes too long, as its user does. There is no event of it."""
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(base_url=site.url, trust_env=False) as client:
            running: list[dict[str, Any]] = (await client.get("/running")).json()["running_executions"]
            for task in running:
                if kind(task["eval_id"]) == "takes too long":
                    if (await client.post(f"/kill/{task['eval_id']}")).status_code == 200:
                        killed.add(task["eval_id"])
                    return


def reported(rig: Rig) -> dict[str, Any]:
    """What the queue was told of each task: the result, or the error."""
    told = {}
    for request in rig.queue.proxy.spoilt:
        body = orjson.loads(request.body) if request.body else {}
        if request.path.startswith("/tasks/") and body:
            told[request.path.split("/")[2]] = body.get("output") or body["error"]
    return told


@pytest.mark.minute
async def test_300_tasks_on_executors_of_both_kinds_end_with_the_outcome_that_really_was(rig: Rig) -> None:
    """Mechanism: a result, a published event, or the executor's logs tell how a task ended; nothing else does."""
    heard = ("--async", "--redis-url", rig.redis.url)
    await rig.start(slots=4, kinds=[(), (), heard, heard, NOBODY])
    synchronous, asynchronous = rig.executors[:2], rig.executors[2:]
    rig.queue.proxy.spoil(passes())
    rig.submit(TASKS, 0, code=code, timeout=timeout)
    killed: set[str] = set()
    unsure: set[str] = set()
    await rig.progress()
    with rig.fault("two of five executors are killed, tasks are killed, events are lost, and tasks time out"):
        for victim in (synchronous[0], asynchronous[0]):
            name = f"executor-{rig.executors.index(victim) + 1}"
            await rig.until(lambda: rig.running_on(name), f"tasks on {name}")  # noqa: B023 -- called in this turn only
            await victim.kill()
            unsure |= rig.running_on(name)
            await victim.start()
            rig.redis_proxy.cut()  # What is published now, the router does not hear.
            await rig.progress()
        while rig.ledger.reports() < TASKS * 0.8:
            await kill_one(asynchronous[1], killed)
            await asyncio.sleep(0.3)
    await rig.account(patience=90, published_by_executors={f"task-{i:04}" for i in range(1, TASKS + 1)})
    assert killed, "no task was killed"
    check_outcomes(rig, unsure)


def check_outcomes(rig: Rig, unsure: set[str]) -> None:
    """Compare what the executors recorded with what the queue got.

    `unsure`: an executor that is killed may have finished these, and could tell nobody.
    """
    ran = rig.ledger.ids("ran-completed")
    completed, told = rig.ledger.ids("completed"), reported(rig)
    assert len(told) == TASKS
    assert not completed - ran, "reported as completed, and never completed"
    assert not ran - completed - unsure, "completed, and reported as failed"
    wrong = {i: told[i] for i in completed if told[i]["output"] != f"the result of {i}\n" or told[i]["eval_id"] != i}
    assert not wrong, "completed with another result"
    silent = {i: told[i] for i in rig.ledger.ids("ran-failed") - unsure if f"the reason of {i}" not in told[i]}
    assert not silent, "failed without its reason"
