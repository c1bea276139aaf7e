"""What a router is told of its object: an edit is applied part by part, and what is wrong is said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from queueworker.controller.cluster import SecretUnavailable
from queueworker.controller.conditions import condition_states
from queueworker.controller.discovery import Slices
from queueworker.controller.inputs import InputReader
from queueworker.resource.reasons import Reason
from queueworker.routing.config import Intent
from tests.support.fake_cluster import FakeCluster
from tests.support.web_source import DOWN, snapshot

if TYPE_CHECKING:
    from queueworker.controller.inputs import RouterInputs
    from queueworker.routing.config import RouterConfig
    from queueworker.routing.snapshot import Snapshot

UP = snapshot()
QUEUE_AWAY = replace(UP, queue=DOWN)
KEYED = {"url": "http://queue", "apiKeySecretRef": {"name": "key", "key": "k"}}
SECRET_REDIS = {"redisURLSecretRef": {"name": "redis", "key": "url"}}


class Reading:
    """One object's inputs, on a clock of its own."""

    def __init__(self, *, in_pod: bool = False, **secrets: str) -> None:
        self.cluster = FakeCluster(**secrets)
        self.cluster.in_pod = in_pod
        self.now = 0.0
        self.reader = InputReader("team", "legacy", self.cluster, Slices(), clock=lambda: self.now)

    async def read(self, spec: dict[str, Any], seen: Snapshot | None = UP) -> RouterInputs:
        return await self.reader.read({"spec": spec}, seen)

    async def config(self, spec: dict[str, Any], seen: Snapshot | None = UP) -> RouterConfig:
        config = (await self.read(spec, seen)).config
        assert config is not None
        return config


async def test_a_secret_that_cannot_be_used_does_not_block_the_rest_of_an_edit() -> None:
    reading = Reading(redis="redis:6379")
    assert (await reading.config({})).redis_url == "redis://redis:6379"
    edited = await reading.read({"executors": {"concurrency": 7}, "events": SECRET_REDIS})
    assert edited.config is not None
    assert edited.config.spec.executors.concurrency == 7
    assert edited.config.redis_url == "redis://redis:6379", "as before"
    assert not edited.whole
    problem = edited.problems.redis_secret
    assert problem is not None
    assert problem.reason is Reason.INVALID_SECRET
    assert problem.message.startswith("Secret team/redis: the value of url cannot be used: must be a redis:// or")


async def test_queue_and_key_stay_together_when_the_key_of_another_queue_is_missing() -> None:
    reading = Reading(key="s3cret")
    await reading.read({"queue": KEYED})
    moved = {"url": "http://other", "apiKeySecretRef": {"name": "absent", "key": "k"}}
    config = await reading.config({"queue": moved, "suspend": True})
    assert (config.spec.queue.url, config.api_key, config.intent) == ("http://queue", "s3cret", Intent.SUSPEND)


async def test_a_new_object_without_a_usable_secret_has_no_router_but_says_why() -> None:
    found = await Reading().read({"queue": KEYED})
    assert found.config is None
    assert found.spec is not None
    assert found.problems.queue_secret is not None
    assert found.problems.queue_secret.reason is Reason.SECRET_NOT_FOUND


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SecretUnavailable("403 Forbidden", Reason.SECRET_READ_FAILED), Reason.SECRET_READ_FAILED),
        (SecretUnavailable("it is not UTF-8 text", Reason.INVALID_SECRET), Reason.INVALID_SECRET),
        (OSError("refused"), Reason.SECRET_READ_FAILED),
    ],
)
async def test_a_secret_that_gives_no_value_says_why(error: Exception, reason: Reason) -> None:
    reading = Reading(key="s3cret")
    reading.cluster.error = error
    found = await reading.read({"queue": KEYED})
    assert found.config is None
    assert found.problems.queue_secret is not None
    assert found.problems.queue_secret.reason is reason


async def test_an_invalid_spec_takes_nothing_away_and_its_suspend_counts() -> None:
    reading = Reading()
    good = await reading.config({"executors": {"concurrency": 3}})
    bad = await reading.read({"queue": {"url": "queue"}})
    assert (bad.config, bad.whole) == (good, False)
    assert bad.problems.spec.startswith("spec.queue.url: must be an http:// or https:// URL with a host")
    suspended = await reading.config({"queue": {"url": "queue"}, "suspend": True})
    assert (suspended.spec.executors.concurrency, suspended.intent) == (3, Intent.SUSPEND)
    assert (await reading.config({"executors": {"concurrency": 4}})).intent is Intent.ROUTE


@pytest.mark.parametrize("spec", ["suspend", 5, [1], True])
async def test_a_spec_that_is_no_object_is_invalid_and_takes_nothing_away(spec: Any) -> None:
    reading = Reading()
    assert (await reading.read(spec)).problems.spec.startswith("spec: ")
    before = await reading.config({"executors": {"count": 3}})
    found = await reading.read(spec)
    assert found.config == before
    assert found.problems.spec.startswith("spec: ")
    assert not found.whole


async def test_fields_of_a_newer_crd_are_ignored_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading()
    newer = {"executors": {"concurrency": 3, "sidecar": {"x": 1}}, "priority": 5}
    for _ in range(3):
        found = await reading.read(newer)
        assert found.whole
        assert found.spec is not None
        assert found.spec.executors.concurrency == 3
    (record,) = caplog.records
    assert record.getMessage() == (
        "team/legacy: this version does not know spec.executors.sidecar, spec.priority: ignored; is the CRD newer?"
    )


async def test_a_field_of_a_newer_crd_hides_no_mistake() -> None:
    found = await Reading().read({"priority": 5, "queue": {"url": "queue"}})
    assert found.problems.spec.startswith("spec.queue.url: must be an http://")
    assert "priority" not in found.problems.spec


async def test_an_api_server_that_is_away_leaves_what_is_known_in_use() -> None:
    reading = Reading(key="s3cret")
    await reading.read({"queue": KEYED})
    reading.cluster.error = OSError("refused")
    reading.now += 61
    found = await reading.read({"queue": KEYED, "executors": {"concurrency": 2}})
    assert found.config is not None
    assert (found.config.api_key, found.config.spec.executors.concurrency) == ("s3cret", 2)
    assert "the API server does not answer" in found.problems.queue_note


async def test_a_key_that_no_header_can_carry_is_refused_without_a_piece_of_it() -> None:
    found = await Reading(key="hunter2\nx").read({"queue": KEYED})
    assert found.problems.queue_secret is not None
    assert found.problems.queue_secret.reason is Reason.INVALID_SECRET
    assert "hunter2" not in found.problems.queue_secret.message


async def test_an_empty_key_is_not_sent_and_is_said_to_be_empty() -> None:
    found = await Reading(key="").read({"queue": KEYED})
    assert found.config is not None
    assert found.config.api_key is None
    assert found.problems.queue_note == "Secret team/key: the value of k is empty, so it is not sent"


async def test_a_secret_is_read_once_a_minute_while_its_peer_is_connected() -> None:
    reading = Reading(key="one")
    for _ in range(60):
        assert (await reading.config({"queue": KEYED})).api_key == "one"
        reading.now += 1
    assert reading.cluster.reads == 1
    reading.cluster.secrets["key"] = "two"
    assert (await reading.config({"queue": KEYED})).api_key == "two"


async def test_a_secret_is_read_again_with_backoff_while_its_peer_is_away() -> None:
    reading = Reading(key="one")
    await reading.read({"queue": KEYED})
    reading.cluster.secrets["key"] = "two"
    reading.now += 4
    assert (await reading.config({"queue": KEYED}, QUEUE_AWAY)).api_key == "two"
    for _ in range(600):
        reading.now += 1
        await reading.read({"queue": KEYED}, QUEUE_AWAY)
    assert 10 < reading.cluster.reads < 20
    await reading.read({"queue": KEYED}, UP)
    reading.now += 60
    await reading.read({"queue": KEYED}, UP)
    before = reading.cluster.reads
    reading.now += 2
    await reading.read({"queue": KEYED}, QUEUE_AWAY)
    assert reading.cluster.reads == before + 1, "the backoff begins anew"


async def test_a_secret_that_is_gone_is_in_use_and_said_to_be() -> None:
    reading = Reading(key="one")
    await reading.read({"queue": KEYED})
    del reading.cluster.secrets["key"]
    reading.now += 60
    found = await reading.read({"queue": KEYED})
    assert found.whole
    assert found.config is not None
    assert found.config.api_key == "one"
    assert found.problems.queue_note == (
        "Secret team/key does not exist; the value that was read from it is still in use"
    )


async def test_what_no_reference_names_is_forgotten() -> None:
    reading = Reading(key="one", other="two")
    await reading.read({"queue": KEYED})
    await reading.read({"queue": KEYED | {"apiKeySecretRef": {"name": "other", "key": "k"}}})
    reading.cluster.secrets["key"] = "three"
    assert (await reading.config({"queue": KEYED})).api_key == "three"


async def test_short_host_names_are_those_of_the_objects_namespace_in_a_pod() -> None:
    spec = {
        "queue": {"url": "http://user:pw@queue:8081/base"},
        "executors": {"endpoints": ["http://executor/x", "http://executor.other:1", "http://10.0.0.7", "http://[::1]"]},
        "events": {"redisURL": "redis://redis:6379/1?db=2"},
    }
    for in_pod in (False, True):
        reading = Reading(in_pod=in_pod)
        found = await reading.read(spec)
        assert found.config is not None
        suffix = ".team.svc" if in_pod else ""
        assert found.config.spec.queue.url == f"http://user:pw@queue{suffix}:8081/base"
        assert found.config.redis_url == f"redis://redis{suffix}:6379/1?db=2"
        assert [(e.name, e.url) for e in found.endpoints] == [
            ("executor/x", f"http://executor{suffix}/x"),
            ("executor.other:1", "http://executor.other:1"),
            ("10.0.0.7", "http://10.0.0.7"),
            ("[::1]", "http://[::1]"),
        ]


async def test_defaults_and_secrets_have_short_names_too() -> None:
    reading = Reading(in_pod=True, redis="redis://:pw@redis")
    found = await reading.read({"events": SECRET_REDIS, "queue": {"url": "http://localhost:8081"}})
    assert found.config is not None
    assert found.config.redis_url == "redis://:pw@redis.team.svc"
    assert found.config.spec.queue.url == "http://localhost:8081"
    assert [e.url for e in found.endpoints] == ["http://executor-1.team.svc:8083"]


async def test_an_edit_is_not_held_up_by_endpoint_slices_that_were_not_listed_yet() -> None:
    reading = Reading()
    service = {"executors": {"service": {"name": "executor"}}}
    assert (await reading.read(service)).config is None, "a new object waits for them"
    before = await reading.read({})
    edited = await reading.read(service | {"suspend": True})
    assert edited.config is not None
    assert (edited.config.intent, edited.endpoints, edited.whole) == (Intent.SUSPEND, before.endpoints, False)


async def test_a_drained_executor_is_none_of_the_routers() -> None:
    reading = Reading()
    names = [e.name for e in (await reading.read({"executors": {"count": 3, "drained": ["executor-2"]}})).endpoints]
    assert names == ["executor-1", "executor-3"]
    names = [e.name for e in (await reading.read({"executors": {"count": 3, "drained": []}})).endpoints]
    assert names == ["executor-1", "executor-2", "executor-3"]


@pytest.mark.parametrize("way", [{"endpoints": ["http://executor:1"]}, {"service": {"name": "executor"}}])
async def test_a_scaling_that_has_no_effect_is_said_in_ready(way: dict[str, Any]) -> None:
    found = await Reading().read({"executors": {"count": 3} | way})
    ready, *_ = condition_states(UP, found.problems)
    assert f"`kubectl scale` sets) has no effect with executors.{next(iter(way))}" in ready.message


async def test_what_the_api_server_does_not_answer_is_awaited_for_a_while() -> None:
    reading = Reading(key="s3cret")
    reading.cluster.secret_errors = [TimeoutError()] * 100
    waited: list[float] = []

    class Passing(asyncio.Event):
        """Never set, and whoever waits for it is late."""

        async def wait(self) -> Literal[True]:
            waited.append(reading.now)
            reading.now += 8
            raise TimeoutError

    found = await reading.reader.read_patiently({"spec": {"queue": KEYED}}, Passing())
    assert (found.config, found.is_awaited) == (None, True)
    assert waited == [0, 8, 16, 24]
    assert reading.cluster.reads == 4


async def test_a_secret_that_could_not_be_read_for_long_is_read_at_once_when_its_object_goes() -> None:
    reading = Reading(key="s3cret")
    reading.cluster.secret_errors = [TimeoutError()] * 100
    for _ in range(100):
        await reading.read({"queue": KEYED}, None)
        reading.now += 2
    reading.cluster.secret_errors.clear()
    found = await asyncio.wait_for(reading.reader.read_patiently({"spec": {"queue": KEYED}}, asyncio.Event()), 10)
    assert found.config is not None
