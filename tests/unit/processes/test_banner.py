"""What a worker says of itself on a terminal."""

from __future__ import annotations

from queueworker.processes.banner import banner, changes
from queueworker.processes.environment import load

ENVIRON = {
    "QUEUE_SERVICE_URL": "http://user:hunter2@queue:9000",
    "QUEUE_API_KEY": "hunter3",
    "REDIS_URL": "redis://:hunter4@redis:6379",
    "EXECUTOR_COUNT": "5",
    "ROUTING_STRATEGY": "LeastLoaded",
    "PORT": "8084",
}


def test_the_banner_says_what_the_worker_will_do() -> None:
    lines = banner(load(ENVIRON), ENVIRON)
    assert lines[0].startswith("QueueWorker ")
    rows = {line[2:14].strip(): line[14:] for line in lines[1:]}
    assert rows["queue"] == "http://queue:9000"
    assert rows["executors"] == "5: http://executor-1:8083, ..., http://executor-5:8083"
    assert rows["strategy"] == "LeastLoaded"
    assert rows["page"] == "http://localhost:8084/"


def test_only_settings_that_differ_from_their_defaults_are_named() -> None:
    found = changes(load(ENVIRON), ENVIRON)
    assert found.keys() == ENVIRON.keys() - {"PORT"}
    assert found["EXECUTOR_COUNT"] == "5"


def test_each_setting_has_a_line_of_its_own() -> None:
    lines = banner(load(ENVIRON), ENVIRON)
    assert lines[-5] == "  not default QUEUE_SERVICE_URL=(not shown)"
    assert "              EXECUTOR_COUNT=5" in lines[-4:]


def test_secrets_are_not_shown() -> None:
    text = "\n".join(banner(load(ENVIRON), ENVIRON))
    assert "hunter" not in text
    assert "QUEUE_API_KEY=(not shown)" in text


def test_a_worker_with_defaults_says_so() -> None:
    assert banner(load({}), {})[-1] == "  not default nothing"
