"""The former version reads what this one leaves in the journal: a rollout may be rolled back while tasks run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from queueworker.routing.journal.entries import State, encode_outcome, encode_task
from queueworker.routing.wire.outcome import Outcome

ROOT = Path(__file__).parents[3]
FORMER = "7b5fea8"
QUEUE = "http://queue:8081"
TASK = b'{"eval_id": "a", "code": "x", "n": 1.10}'
# Run by the former version's own code, in a process of its own.
READER = """
import json, sys
from queueworker.routing.entries import decode
for line in sys.stdin:
    entry = decode(bytes.fromhex(line))
    outcome = entry.outcome
    ended = outcome and [outcome.completed, outcome.error, json.loads(outcome.result or b"null"), outcome.published]
    print(json.dumps([entry.state, entry.queue_url, entry.attempt, entry.executor, json.loads(entry.task), ended,
                      entry.doubtful, entry.until]))
"""


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the former version, from the history of this repository."""
    place = tmp_path_factory.mktemp("former")
    archive = subprocess.run(["git", "archive", FORMER, "operator"], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history has no {FORMER}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(place)], input=archive.stdout, check=True)
    return place / "operator"


def read(former: Path, *entries: bytes) -> list[Any]:
    environment = os.environ | {"PYTHONPATH": str(former)}
    lines = "\n".join(entry.hex() for entry in entries)
    done = subprocess.run(
        [sys.executable, "-c", READER], input=lines, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_former_version_reads_every_kind_of_entry(former: Path) -> None:
    task = json.loads(TASK)
    result = b'{"status": "completed", "eval_id": "a", "output": "\xc3\xa4"}'
    large = b'{"status": "completed", "output": "%b"}' % (b"x" * (8 << 20))
    failure = Outcome(completed=False, error="half an emoji: \ud83d", result=b'{"status": "failed"}', published=True)
    cases = [
        (encode_task(State.PULLED, QUEUE, TASK), ["pulled", QUEUE, 1, "", task, None, False, None]),
        (
            encode_task(State.PULLED, QUEUE, TASK, 2, ambiguous=True, deaths=1),
            ["pulled", QUEUE, 2, "", task, None, True, None],
        ),
        (
            encode_task(State.EXECUTING, QUEUE, TASK, 3, "executor-1", deadline=1.5e9, deaths=2),
            ["executing", QUEUE, 3, "executor-1", task, None, True, 1.5e9],
        ),
        (
            encode_outcome(QUEUE, Outcome(completed=True, result=result), TASK),
            ["executed", QUEUE, 1, "", None, [True, "", json.loads(result), False], False, None],
        ),
        (
            encode_outcome(QUEUE, Outcome(completed=True, result=large), TASK),
            ["executed", QUEUE, 1, "", None, [True, "", json.loads(large), False], False, None],
        ),
        (
            encode_outcome(QUEUE, failure, TASK, 2, "executor-2", ambiguous=True),
            [
                *("executed", QUEUE, 2, "executor-2", task),
                *([False, "half an emoji: \ufffd", {"status": "failed"}, True], True, None),
            ],
        ),
    ]
    found = read(former, *(entry for entry, _ in cases))
    for seen, (_, wanted) in zip(found, cases, strict=True):
        assert seen == wanted
