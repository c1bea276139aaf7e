"""What a demo service did, a line of JSON for each act, in a file that outlives a SIGKILL of the service."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path


class Record:
    """Appends to `path`; several processes may share one file. With no path nothing is written.

    A line has `at` (seconds on the machine's monotonic clock, one for all processes), `what`, `eval_id` and `by`.
    """

    def __init__(self, path: Path | None, by: str) -> None:
        self._by = by
        # unbuffered, and each line one write: what was done is in the file whatever becomes of us
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, eval_id: str) -> None:
        if self._file is not None:
            line = {"at": time.monotonic(), "what": what, "eval_id": eval_id, "by": self._by}
            os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
