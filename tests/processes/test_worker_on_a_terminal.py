"""What a person sees who starts `queueworker worker` on a terminal; pipes and JSON logs have none of it."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.worker_processes import COMMAND, worker_process
from tools.terminal import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {
    "QUEUE_SERVICE_URL": "http://127.0.0.1:9",
    "REDIS_URL": "redis://:hunter2@127.0.0.1:9",
    "QUEUE_API_KEY": "hunter3",
    "EXECUTOR_COUNT": "2",
    "HOST": "127.0.0.1",
    "PORT": "0",
}
ROWS, WIDE = 60, 400
"""All that it writes stays on the screen; no line of a log is broken."""
PATIENCE_SECONDS = 60
_BASE = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@contextmanager
def greeted(columns: int = 80, **environ: str) -> Iterator[Session]:
    """A worker that has greeted and listens."""
    with Session([*COMMAND, "worker"], _BASE | SETTINGS | environ, columns, ROWS) as session:
        session.until(lambda text: "listening on" in text, PATIENCE_SECONDS)
        yield session


def test_a_worker_greets_on_a_terminal_without_secrets_and_logs_in_colour() -> None:
    with greeted() as seen:
        assert "routes for one queue without Kubernetes" in seen.text
        assert "  executors   2: http://executor-1:8083, http://executor-2:8083" in seen.text
        assert "QUEUE_API_KEY=(not shown)" in seen.text
        assert "cyan" in seen.colours()
        assert "hunter" not in seen.text


def test_no_color_is_respected() -> None:
    with greeted(NO_COLOR="1") as seen:
        assert "routes for one queue without Kubernetes" in seen.text
        assert seen.colours() == set()


def test_json_logs_are_json_on_a_terminal_too() -> None:
    with greeted(WIDE, LOG_FORMAT="json") as seen:
        lines = [line for line in seen.text.splitlines() if line.strip()]
        assert all(json.loads(line) for line in lines)
        assert lines


def test_a_pipe_gets_neither_greeting_nor_colours() -> None:
    with worker_process(**SETTINGS) as worker:
        assert "without Kubernetes" not in worker.log()
        assert "\x1b" not in worker.log()
