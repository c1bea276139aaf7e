"""One event, one line: in text for people, in JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import orjson
import pytest

from queueworker.processes.logs import JsonFormatter, TextFormatter
from queueworker.redaction import without_credentials, without_credentials_in_json
from queueworker.resource.spec import QueueSpec, QueueWorkerSpec


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("queueworker.test")
    return logger.makeRecord(logger.name, logging.WARNING, "f", 1, message, args, None, extra=extra)


def test_json_has_the_event_and_what_came_with_it() -> None:
    event = orjson.loads(JsonFormatter().format(record("lost %d", 3, queue="http://q", k8s_skip=True)))
    assert event["time"].endswith("Z")
    del event["time"]
    assert event == {"level": "warning", "logger": "queueworker.test", "message": "lost 3", "queue": "http://q"}


def test_an_event_of_kopf_names_its_object() -> None:
    event = orjson.loads(JsonFormatter().format(record("created", k8s_ref={"namespace": "a", "name": "b", "uid": "c"})))
    assert event["object"] == "a/b"
    assert "k8s_ref" not in event


def test_a_traceback_is_a_field_of_its_one_line() -> None:
    try:
        int("broken")
    except ValueError:
        broken = record("a lane broke")
        broken.exc_info = sys.exc_info()
    line = JsonFormatter().format(broken)
    assert "\n" not in line
    assert "ValueError: invalid literal" in orjson.loads(line)["exception"]


def test_a_message_cannot_forge_a_second_line() -> None:
    line = TextFormatter().format(record("queue answered %s", "x\n2026-01-01 ERROR forged", peer="a"))
    assert "\n" not in line
    assert line.endswith("WARNING queueworker.test: queue answered x\\n2026-01-01 ERROR forged peer=a")


def test_a_message_cannot_move_the_cursor_of_a_terminal() -> None:
    line = TextFormatter().format(record("task %s failed", "a\x1b[2J\x07\x9b\u2028\u2029\tb é"))
    assert line.endswith("task a\\x1b[2J\\x07\\x9b\\u2028\\u2029\tb é failed")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_line_is_bounded_whatever_it_names(formatter: logging.Formatter) -> None:
    assert len(formatter.format(record("task %s failed", "x" * 1_000_000))) < 10_000


def test_half_a_surrogate_pair_is_logged_as_json_all_the_same() -> None:
    line = JsonFormatter().format(record("task a failed: %s", "half \ud83d"))
    assert json.loads(line)["message"].startswith("task a failed: half")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_credentials_in_a_url_are_not_logged(formatter: logging.Formatter) -> None:
    error = ConnectionError("redis://:hunter2@redis:6379 refused")
    event = record("queue %s is away", "http://user:hunter2@queue:8081", peer="http://hunter2@other")
    event.exc_info = (type(error), error, None)
    line = formatter.format(event)
    assert "hunter2" not in line
    assert "queue http://queue:8081 is away" in line
    assert "redis://redis:6379 refused" in line


def test_json_stays_json_when_an_at_sign_stands_in_another_field() -> None:
    event = record("queue %s", "http://queue", owner="someone@example.org", code='"http://a"@b')
    found = orjson.loads(JsonFormatter().format(event))
    assert (found["message"], found["owner"], found["code"]) == (
        "queue http://queue",
        "someone@example.org",
        '"http://a"@b',
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pw@queue:8081/x", "http://queue:8081/x"),
        ("http://user:p@ss@queue", "http://queue"),
        ("redis://:pw@[::1]:6379/0", "redis://[::1]:6379/0"),
        ("two: http://a:b@c, http://d:e@f", "two: http://c, http://f"),
        ("http://queue/who@where?to=a@b", "http://queue/who@where?to=a@b"),
        ("nobody@example.org", "nobody@example.org"),
        ("http://queue:8081", "http://queue:8081"),
    ],
)
def test_only_credentials_are_taken_out(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


# What the rules for URLs (resource/urls.py) let a user and a password be made of.
IN_PASSWORDS = sorted({chr(code) for code in range(0x21, 0x7F)} - set("/?#[]"))


@pytest.mark.parametrize("sign", IN_PASSWORDS)
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_password_of_any_signs_is_taken_out(formatter: logging.Formatter, sign: str) -> None:
    spec = QueueWorkerSpec(queue=QueueSpec(url=f"http://us{sign}er:{sign}hunter2{sign}@queue:8081"))
    line = formatter.format(record("queue %s is away", spec.queue.url, owner="someone@example.org"))
    assert "hunter2" not in line
    assert "queue http://queue:8081 is away" in line
    assert "someone@example.org" in line
    assert without_credentials(spec.queue.url) == "http://queue:8081"


def test_json_stays_json_when_a_port_and_an_at_sign_stand_in_different_fields() -> None:
    event = record("queue %s", "http://queue:8081", owner="someone@example.org", code='{"http://a:1","b@c"}')
    found = orjson.loads(JsonFormatter().format(event))
    assert (found["message"], found["owner"]) == ("queue http://queue:8081", "someone@example.org")


def test_credentials_are_looked_for_in_a_time_that_grows_with_the_text() -> None:
    for text in (
        "http://" + ":" * 1_000_000,
        "://" * 300_000,
        "http://" + '\\"' * 500_000,
        "http://a:" + "@" * 1_000_000 + "/",
    ):
        without_credentials(text)
        without_credentials_in_json(text)
