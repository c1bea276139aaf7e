"""One event, one line: in text for people, in JSON for machines."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

from queueworker.logs import JsonFormatter, TextFormatter


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
