"""Events as CloudEvents, from the router through a real Redis to a subscriber."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from aiohttp import web

from queueworker.routing.journal import entries
from queueworker.routing.wire.outcome import Outcome
from tests.support.redis_state import leave, published
from tests.support.running import running
from tests.support.stubs import StubExecutor, StubQueue, result, until

if TYPE_CHECKING:
    from typing import Any

CLOUD_EVENTS: dict[str, Any] = {"format": "CloudEvents"}


async def test_completed_and_failed_tasks_are_told_as_cloudevents_with_unique_ids(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    executor.answers.append(web.json_response(result("bad", status="failed", error="it broke")))
    async with published(redis_url) as seen, running(queue, [executor], redis_url, events=CLOUD_EVENTS):
        queue.submit("bad")
        await queue.reported(1)
        queue.submit("good")
        await until(lambda: len(seen) == 2)
    told = {event["subject"]: (channel, event) for channel, event in seen}
    assert told["good"][0] == "evaluation:completed"
    assert told["good"][1]["type"] == "dev.crucible.evaluation.completed"
    assert told["good"][1]["source"] == "/queueworkers/default/legacy"
    assert told["good"][1]["data"]["result"]["status"] == "completed"
    assert told["bad"][0] == "evaluation:failed"
    assert told["bad"][1]["data"]["error"] == "it broke"
    assert told["bad"][1]["id"] != told["good"][1]["id"]


@pytest.mark.parametrize("event_id", ["id-of-the-dead", ""])
async def test_a_successor_publishes_an_outcome_with_the_id_that_the_journal_has(
    queue: StubQueue, executor: StubExecutor, redis_url: str, event_id: str
) -> None:
    done = Outcome(completed=True, result=orjson.dumps(result("a", output="kept")))
    left = entries.encode_outcome(queue.url, done, event_id=event_id)
    await leave(redis_url, queue, {"a": left})
    async with published(redis_url) as seen, running(queue, [executor], redis_url, events=CLOUD_EVENTS):
        await until(lambda: len(seen) == 1)
    ((channel, event),) = seen
    assert channel == "evaluation:completed"
    assert event["data"]["output"] == "kept"
    assert (event["id"] == event_id) is bool(event_id), "an older version's entry has no id: a new one is made"
    assert event["id"]


async def test_a_successor_that_publishes_in_the_legacy_format_ignores_the_id(
    queue: StubQueue, executor: StubExecutor, redis_url: str
) -> None:
    done = Outcome(completed=True, result=orjson.dumps(result("a", output="kept")))
    await leave(redis_url, queue, {"a": entries.encode_outcome(queue.url, done, event_id="x")})
    async with published(redis_url) as seen, running(queue, [executor], redis_url):
        await until(lambda: len(seen) == 1)
    assert seen[0][1]["output"] == "kept"
    assert "specversion" not in seen[0][1]
