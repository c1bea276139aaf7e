"""A bad variable ends the real process at once, with status 2 and one line that names it and what it may be."""

from __future__ import annotations

import pytest

from tests.support.worker_processes import run_command

HTTP = "must be an http:// or https:// URL with a host, for example"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("QUEUE_SERVICE_URL", "queue:8081", f"QUEUE_SERVICE_URL='queue:8081': {HTTP} http://queue:8081"),
        ("QUEUE_SERVICE_URL", "http://", f"QUEUE_SERVICE_URL='http://': {HTTP} http://queue:8081"),
        ("QUEUE_SERVICE_URL", "http://q:99999", f"QUEUE_SERVICE_URL='http://q:99999': {HTTP} http://queue:8081"),
        (
            "REDIS_URL",
            "http://redis",
            "REDIS_URL (value not shown): must be a redis://, rediss:// or unix:// URL, for example redis://redis:6379",
        ),
        ("QUEUE_API_KEY", "a b", "QUEUE_API_KEY (value not shown): must be visible ASCII characters with no space"),
        ("EXECUTOR_COUNT", "-1", "EXECUTOR_COUNT='-1': must be an integer from 0 to 1000"),
        ("EXECUTOR_COUNT", "three", "EXECUTOR_COUNT='three': must be an integer from 0 to 1000"),
        ("EXECUTOR_COUNT", "3.0", "EXECUTOR_COUNT='3.0': must be an integer from 0 to 1000"),
        ("EXECUTOR_COUNT", "2.5", "EXECUTOR_COUNT='2.5': must be an integer from 0 to 1000"),
        ("EXECUTOR_BASE_URL", "executor", "EXECUTOR_BASE_URL='executor': must be an http:// or https:// URL of only"),
        ("EXECUTOR_CONCURRENCY", "0", "EXECUTOR_CONCURRENCY='0': must be an integer from 1 to 1000"),
        ("EXECUTOR_PORT", "70000", "EXECUTOR_PORT='70000': must be an integer from 1 to 65535"),
        ("EXECUTOR_ENDPOINTS", "a,http://b", f"EXECUTOR_ENDPOINTS='a': {HTTP} http://queue"),
        (
            "ROUTING_STRATEGY",
            "Fair",
            "ROUTING_STRATEGY='Fair': must be Random, RoundRobin, LeastLoaded, Weighted or Sticky",
        ),
        ("STICKY_KEY", "Id", "STICKY_KEY='Id': must be EvalID, Code, Language or Engine"),
        ("TASK_TIMEOUT_SECONDS", "30s", "TASK_TIMEOUT_SECONDS='30s': must be an integer from 1 to 86400"),
        ("HEALTH_CHECK_PATH", "health", "HEALTH_CHECK_PATH='health': must be a path that begins with /"),
        ("WHEN_UNAVAILABLE", "Wait", "WHEN_UNAVAILABLE='Wait': must be Fail or Hold"),
        ("RECOVERY", "Drop", "RECOVERY='Drop': must be Retry or Fail"),
        ("JOURNAL", "Off", "JOURNAL='Off': must be Preferred or Required"),
        ("MAX_BODY_MEBIBYTES", "65", "MAX_BODY_MEBIBYTES='65': must be an integer from 1 to 64"),
        ("JOURNAL_GROUP", "legacy", "JOURNAL_GROUP='legacy': must be two words with a slash between them"),
        ("DRAIN_SECONDS", "-5", "DRAIN_SECONDS='-5': must be an integer from 0 to 3600"),
        ("CELERY_ENABLED", "maybe", "CELERY_ENABLED='maybe': must be true or false"),
        ("CELERY_PERCENTAGE", "50", "CELERY_PERCENTAGE='50': must be a number from 0.0 to 1.0"),
        ("CELERY_PERCENTAGE", "nan", "CELERY_PERCENTAGE='nan': must be a number from 0.0 to 1.0"),
        ("FORCE_LEGACY_QUEUE", "2", "FORCE_LEGACY_QUEUE='2': must be true or false"),
        ("PORT", "http", "PORT='http': must be an integer from 0 to 65535"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL='loud': must be debug, info, warning, error or critical"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT='xml': must be text or json"),
    ],
)
def test_a_bad_variable_ends_the_worker_with_a_line(name: str, value: str, line: str) -> None:
    ended = run_command("worker", **{name: value})
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1


def test_each_of_several_bad_variables_has_its_line() -> None:
    ended = run_command("worker", EXECUTOR_COUNT="x", PORT="y", JOURNAL="z")
    assert ended.returncode == 2
    assert [line.partition("=")[0] for line in ended.stderr.splitlines()] == ["EXECUTOR_COUNT", "JOURNAL", "PORT"]
