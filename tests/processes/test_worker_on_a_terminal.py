"""What a person sees who starts `queueworker worker` on a terminal; pipes and JSON logs have none of it."""

from __future__ import annotations

import json
import os

from tests.support.terminal import terminal
from tests.support.worker_processes import COMMAND, worker_process

SETTINGS = {
    "QUEUE_SERVICE_URL": "http://127.0.0.1:9",
    "REDIS_URL": "redis://:hunter2@127.0.0.1:9",
    "QUEUE_API_KEY": "hunter3",
    "EXECUTOR_COUNT": "2",
    "HOST": "127.0.0.1",
    "PORT": "0",
}
_BASE = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def test_a_worker_greets_on_a_terminal_without_secrets_and_logs_in_colour() -> None:
    with terminal([*COMMAND, "worker"], _BASE | SETTINGS) as seen:
        seen.wait_for("listening on")
        assert "routes for one queue without Kubernetes" in seen.text
        assert "  executors   2: http://executor-1:8083, http://executor-2:8083" in seen.text
        assert "QUEUE_API_KEY=(not shown)" in seen.text
        assert "\x1b[36mINFO   \x1b[0m" in seen.text
        assert "hunter" not in seen.text


def test_no_color_is_respected() -> None:
    with terminal([*COMMAND, "worker"], _BASE | SETTINGS | {"NO_COLOR": "1"}) as seen:
        seen.wait_for("listening on")
        assert "routes for one queue without Kubernetes" in seen.text
        assert "\x1b" not in seen.text


def test_json_logs_are_json_on_a_terminal_too() -> None:
    with terminal([*COMMAND, "worker"], _BASE | SETTINGS | {"LOG_FORMAT": "json"}) as seen:
        seen.wait_for("listening on")
        assert all(json.loads(line) for line in seen.text.splitlines()[:-1])


def test_a_pipe_gets_neither_greeting_nor_colours() -> None:
    with worker_process(**SETTINGS) as worker:
        assert "without Kubernetes" not in worker.log()
        assert "\x1b" not in worker.log()
