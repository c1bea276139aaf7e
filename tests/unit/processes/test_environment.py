"""The worker's environment: what it becomes, what is refused and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from queueworker.processes import environment_reference as settings_reference
from queueworker.processes.environment import InvalidEnvironment, journal_group, load
from queueworker.processes.environment_table import VARIABLES, WorkerModel
from queueworker.resource.spec import QueueWorkerSpec
from queueworker.routing.config import Intent, static_endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Fields of the spec that only Kubernetes can give a meaning to, or that other variables decide.
NOT_IN_THE_ENVIRONMENT = {
    "spec.suspend",
    "spec.queue.api_key_secret_ref",
    "spec.executors.service",
    "spec.executors.template",
    "spec.executors.drained",
    "spec.events.redis_url",
    "spec.events.redis_url_secret_ref",
    "spec.migration.celery_percent",
}


def spec_of(**environ: str) -> QueueWorkerSpec:
    return load(environ).config.spec


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(InvalidEnvironment) as caught:
        load(environ)
    return caught.value.problems


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_an_empty_environment_is_the_legacy_workers_defaults() -> None:
    settings = load({})
    config = settings.config
    assert (settings.process.worker_id, settings.process.port) == ("queue-worker-1", 8084)
    assert config.spec.queue.url == "http://queue:8081"
    assert config.redis_url == "redis://redis:6379"
    assert config.api_key is None
    assert config.intent is Intent.ROUTE
    assert [e.url for e in static_endpoints(config.spec) or ()] == ["http://executor-1:8083"]


def test_the_legacy_variables_do_what_they_did() -> None:
    settings = load(
        {
            "QUEUE_SERVICE_URL": "http://q:1",
            "QUEUE_API_KEY": "s3cret",
            "REDIS_URL": "redis://:pw@r:2/3",
            "EXECUTOR_COUNT": "2",
            "EXECUTOR_BASE_URL": "http://runner",
            "HOSTNAME": "pod-7",
        }
    )
    assert settings.process.worker_id == "pod-7"
    assert settings.config.spec.queue.url == "http://q:1"
    assert settings.config.redis_url == "redis://:pw@r:2/3"
    assert settings.config.api_key == "s3cret"
    pool = static_endpoints(settings.config.spec) or ()
    assert [e.url for e in pool] == ["http://runner-1:8083", "http://runner-2:8083"]


def test_every_field_has_a_variable_or_a_reason_not_to() -> None:
    covered = {v.path for v in VARIABLES}
    assert covered | NOT_IN_THE_ENVIRONMENT == set(leaves(WorkerModel))
    assert not covered & NOT_IN_THE_ENVIRONMENT


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("POLL_INTERVAL_SECONDS", "3", "queue.poll_interval_seconds", 3),
        ("EXECUTOR_PORT", "9000", "executors.port", 9000),
        ("EXECUTOR_CONCURRENCY", " 4 ", "executors.concurrency", 4),
        ("HEALTH_CHECK_PATH", "/healthz", "executors.health_check.path", "/healthz"),
        ("HEALTH_CHECK_MAX_AGE_SECONDS", "9", "executors.health_check.max_age_seconds", 9),
        ("WHEN_UNAVAILABLE", "Hold", "executors.when_unavailable", "Hold"),
        ("UNAVAILABLE_GRACE_SECONDS", "0", "executors.unavailable_grace_seconds", 0),
        ("ROUTING_STRATEGY", "leastloaded", "routing.strategy", "LeastLoaded"),
        ("STICKY_KEY", "evalid", "routing.sticky_key", "EvalID"),
        ("RETRY_ATTEMPTS", "3", "routing.retry.attempts", 3),
        ("RECOVERY", "FAIL", "routing.recovery", "Fail"),
        ("DRAIN_SECONDS", "5", "routing.drain_seconds", 5),
        ("JOURNAL", "required", "routing.journal", "Required"),
        ("MAX_BODY_MEBIBYTES", "64", "routing.max_body_mebibytes", 64),
        ("FORCE_LEGACY_QUEUE", "TRUE", "migration.force_legacy_queue", True),
        (
            "EXECUTOR_ENDPOINTS",
            "http://a:1/, http://b:2,http://a:1,",
            "executors.endpoints",
            ("http://a:1", "http://b:2"),
        ),
    ],
)
def test_a_variable_sets_its_field(name: str, value: str, path: str, expected: object) -> None:
    found: Any = spec_of(**{name: value})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected


def test_an_empty_variable_is_as_if_it_were_not_set_and_others_are_ignored() -> None:
    assert load({"EXECUTOR_COUNT": "", "QUEUE_API_KEY": " ", "PATH": "/bin", "EXECUTOR_KIND": "x"}) == load({})


@pytest.mark.parametrize(
    ("environ", "percent", "intent"),
    [
        ({}, 0, Intent.ROUTE),
        ({"CELERY_PERCENTAGE": "1.0"}, 0, Intent.ROUTE),
        ({"CELERY_ENABLED": "false", "CELERY_PERCENTAGE": "1.0"}, 0, Intent.ROUTE),
        ({"CELERY_ENABLED": "true"}, 50, Intent.ROUTE),
        ({"CELERY_ENABLED": "true", "CELERY_PERCENTAGE": "0.29"}, 29, Intent.ROUTE),
        ({"CELERY_ENABLED": "1", "CELERY_PERCENTAGE": "0.999"}, 99, Intent.ROUTE),
        ({"CELERY_ENABLED": "1", "CELERY_PERCENTAGE": "0.999999999"}, 99, Intent.ROUTE),
        ({"CELERY_ENABLED": "True", "CELERY_PERCENTAGE": "1"}, 100, Intent.STANDBY),
        ({"CELERY_ENABLED": "true", "CELERY_PERCENTAGE": "1", "FORCE_LEGACY_QUEUE": "true"}, 100, Intent.ROUTE),
    ],
)
def test_the_migration_flags_are_the_platforms(environ: dict[str, str], percent: int, intent: Intent) -> None:
    config = load(environ).config
    assert (config.spec.migration.celery_percent, config.intent) == (percent, intent)


@pytest.mark.parametrize(
    ("url", "group"),
    [
        ("http://queue:8081", "worker/queue:8081"),
        ("http://queue:8081/", "worker/queue:8081"),
        ("http://Queue", "worker/queue:80"),
        ("https://user:pw@queue", "worker/queue:443"),
        ("http://gateway/a/b", "worker/gateway:80-a-b"),
        ("http://[::1]:8081", "worker/[::1]:8081"),
    ],
)
def test_the_journals_group_follows_the_queue_and_not_the_host(url: str, group: str) -> None:
    assert journal_group(url) == group
    assert load({"QUEUE_SERVICE_URL": url, "HOSTNAME": "another"}).config.group == group


def test_a_group_that_is_given_stands() -> None:
    assert load({"JOURNAL_GROUP": "default/legacy"}).config.group == "default/legacy"


def test_a_port_that_kubernetes_set_for_a_service_named_executor_is_no_mistake() -> None:
    settings = load({"EXECUTOR_PORT": "tcp://10.96.0.7:8083"})
    assert settings.config.spec.executors.port == 8083
    assert settings.notes == ("EXECUTOR_PORT=tcp://10.96.0.7:8083 is ignored: Kubernetes set it for a Service",)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("EXECUTOR_CUONT", "EXECUTOR_COUNT"),
        ("executor_count", "EXECUTOR_COUNT"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("REDIS_URI", "REDIS_URL"),
        ("QUEUE_SERVICE_URLS", "QUEUE_SERVICE_URL"),
        ("DRAIN_SECOND", "DRAIN_SECONDS"),
    ],
)
def test_a_misspelt_variable_is_warned_of_with_the_name_that_is_nearest(given: str, meant: str) -> None:
    settings = load({given: "hunter2"})
    assert settings.notes == (f"{given} is not read: is {meant} meant?",)


def test_variables_of_other_programs_and_of_kubernetes_are_no_misspellings() -> None:
    others = {
        "PATH": "/bin",
        "HOME": "/root",
        "HOSTTYPE": "x86_64",
        "LOGNAME": "root",
        "PYTHONPATH": "/x",
        "EXECUTOR_KIND": "x",
        "CELERY_BROKER_URL": "redis://redis",
        "QUEUE_PORT": "tcp://10.0.0.1:8081",
        "QUEUE_SERVICE_HOST": "10.0.0.1",
        "QUEUE_SERVICE_PORT": "8081",
        "QUEUE_SERVICE_PORT_HTTP": "8081",
        "EXECUTOR_1_PORT": "tcp://10.0.0.1:8083",
        "EXECUTOR_PORT_8083_TCP_PORT": "8083",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }
    assert load(others).notes == ()


def test_a_proxy_is_said_to_be_unused() -> None:
    notes = load({"HTTPS_PROXY": "http://u:hunter2@proxy", "http_proxy": "x", "NO_PROXY": "10.0.0.0/8"}).notes
    assert notes == (
        "HTTPS_PROXY, http_proxy is set and not used: the API server, queues, executors and Redis are reached directly",
    )
    assert load({"NO_PROXY": "*", "ALL_PROXY": ""}).notes == ()


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("WARN", "warning"),
        ("Warning", "warning"),
        ("CRITICAL", "critical"),
        ("fatal", "critical"),
        ("NOTSET", "debug"),
    ],
)
def test_pythons_names_of_log_levels_are_taken(given: str, level: str) -> None:
    assert load({"LOG_LEVEL": given}).process.log_level.value == level


@pytest.mark.parametrize("value", ["3.0", "3.", "3e0", ".3"])
def test_a_number_that_is_not_written_as_an_integer_is_refused(value: str) -> None:
    assert problems(EXECUTOR_COUNT=value) == (f"EXECUTOR_COUNT={value!r}: must be an integer from 0 to 1000",)


def test_every_problem_is_told_at_once() -> None:
    found = problems(EXECUTOR_COUNT="-1", PORT="http", ROUTING_STRATEGY="Fair", CELERY_PERCENTAGE="50")
    assert found == (
        "EXECUTOR_COUNT='-1': must be an integer from 0 to 1000",
        "CELERY_PERCENTAGE='50': must be a number from 0.0 to 1.0",
        "ROUTING_STRATEGY='Fair': must be Random, RoundRobin, LeastLoaded, Weighted or Sticky",
        "PORT='http': must be an integer from 0 to 65535",
    )


@pytest.mark.parametrize("nothing", [",", " , ,"])
def test_a_list_of_nothing_is_refused_and_not_taken_for_numbered_executors(nothing: str) -> None:
    (line,) = problems(EXECUTOR_ENDPOINTS=nothing)
    assert line.endswith("must be http:// or https:// URLs with a host, separated by commas, from 1 to 200")


@pytest.mark.parametrize("path", ["health", "/a#b", "/gesund/é", "/a b", "/a\u00a0b", "http://a/health"])
def test_a_health_check_path_that_no_request_can_have_is_refused(path: str) -> None:
    (line,) = problems(HEALTH_CHECK_PATH=path)
    assert "must be a path that begins with /, in visible ASCII characters other than #" in line


@pytest.mark.parametrize("path", ["/", "/health?full=1", "/a%20b", "/h%C3%A9", "/a;b=1,2/~x"])
def test_a_health_check_path_may_have_a_query_and_escapes(path: str) -> None:
    assert load({"HEALTH_CHECK_PATH": path}).config.spec.executors.health_check.path == path


def test_the_one_bad_url_of_a_list_is_shown() -> None:
    (line,) = problems(EXECUTOR_ENDPOINTS="http://a:1,b:2,c")
    assert line == (
        "EXECUTOR_ENDPOINTS='b:2': must be an http:// or https:// URL with a host, for example http://queue:8081"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE_API_KEY", "hunter2\nx"),
        ("QUEUE_API_KEY", "hunter2 x"),
        ("REDIS_URL", "http://:hunter2@redis"),
        ("REDIS_URL", "redis://:hunter2@redis/0?socket_timeout=soon"),
        ("QUEUE_SERVICE_URL", "ftp://user:hunter2@queue"),
        ("EXECUTOR_ENDPOINTS", "ftp://user:hunter2@queue"),
    ],
)
def test_a_secret_is_not_shown(name: str, value: str) -> None:
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name} (value not shown): ")
    assert "hunter2" not in line


def test_a_piece_of_a_password_with_a_comma_in_it_is_not_shown() -> None:
    (line,) = problems(EXECUTOR_ENDPOINTS="http://user:hunter2,rest@executor:8083")
    assert line.startswith("EXECUTOR_ENDPOINTS (value not shown): ")
    assert "hunter2" not in line


def test_a_redis_url_is_tried_out_before_the_worker_starts() -> None:
    (line,) = problems(REDIS_URL="redis://:hunter2@redis?decode_responses=true")
    assert line.startswith("REDIS_URL (value not shown): the option decode_responses is not taken: permitted are db")
    assert load({"REDIS_URL": "unix:///run/redis.sock"}).config.redis_url == "unix:///run/redis.sock"


def test_a_key_is_not_in_the_settings_text() -> None:
    settings = load({"QUEUE_API_KEY": "hunter2"})
    assert settings.config.api_key == "hunter2"
    assert "hunter2" not in repr(settings)


def test_the_reference_has_a_row_for_each_variable_and_is_up_to_date() -> None:
    text = settings_reference.reference()
    assert all(f"\n| `{v.name}` | " in text for v in VARIABLES)
    assert settings_reference.PATH.read_text() == text
    assert settings_reference.run(check=True) == 0


def test_a_reference_that_is_out_of_date_is_told_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "environment.md"
    stale.write_text("old")
    assert settings_reference.run(stale, check=True) == 1
    assert "docs/environment.md is out of date: run `make generate`" in capsys.readouterr().err
    assert stale.read_text() == "old"
    assert settings_reference.run(stale, check=False) == 0
    assert settings_reference.run(stale, check=True) == 0


def test_every_variable_says_its_meaning_and_what_it_may_be() -> None:
    assert [v.name for v in VARIABLES if not v.meaning or not v.may_be] == []
    assert len({v.name for v in VARIABLES}) == len(VARIABLES)
