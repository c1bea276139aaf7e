"""A file with a line of JSON for each action of a demo service; complete even if the service gets a SIGKILL."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path


class ActionLog:
    """Appends to `path`, which several processes may share. If `path` is None, nothing is written.

    A line has `at` (seconds on the machine's monotonic clock, the same for all processes), `what`, `eval_id` and `by`.
    """

    def __init__(self, path: Path | None, by: str) -> None:
        self._by = by
        # Unbuffered, and one write for each line, so that no line is lost if the process is killed.
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, what: str, eval_id: str) -> None:
        if self._file is not None:
            line = {"at": time.monotonic(), "what": what, "eval_id": eval_id, "by": self._by}
            os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
