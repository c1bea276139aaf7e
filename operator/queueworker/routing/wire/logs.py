"""What an asynchronous executor's `GET /logs/{eval_id}` says of a task (docs/wire.md). Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from queueworker.routing.wire.outcome import Outcome
from queueworker.routing.wire.published import failure_text
from queueworker.routing.wire.reading import InvalidAnswer, excerpt, read_leniently, read_strictly, write_for_all


class Lost(NamedTuple):
    """The executor does not know the task any more: somebody has killed it there, or the executor has lost it."""

    error: str


class _Fields(msgspec.Struct):
    eval_id: Any = None
    is_running: Any = None
    exit_code: Any = None
    error: Any = None
    output: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Fields)


def outcome_in_logs(body: bytes, eval_id: str) -> Outcome | Lost | None:
    """How the task ended; None while it runs, or when the answer does not tell.

    Raises `InvalidAnswer` when the answer is not that of this call.
    """
    try:
        fields = read_strictly(body, _decoder)
    except (ValueError, RecursionError):
        value = read_leniently(body)
        if not isinstance(value, dict):
            raise InvalidAnswer(f"no logs: {excerpt(body)}") from None
        body = write_for_all(value)
        fields = _decoder.decode(body)
    if not isinstance(fields.is_running, bool) or fields.eval_id not in (None, eval_id):
        raise InvalidAnswer(f"no logs of the task: {excerpt(body)}")
    if fields.is_running:
        return None
    if not isinstance(fields.exit_code, int) or isinstance(fields.exit_code, bool):
        return _lost(fields)
    completed = fields.exit_code == 0
    status = b"completed" if completed else b"failed"
    result = b'%b,"status":"%b"}' % (body.rstrip()[:-1], status)
    if completed:
        return Outcome(completed=True, result=result)
    output = msgspec.json.decode(fields.output)
    return Outcome(False, failure_text("failed", fields.error, fields.exit_code, output), result)


def _lost(fields: _Fields) -> Lost | None:
    said = str(fields.error)
    if "not found" not in said.lower():
        return None
    return Lost(f"the task was killed, or the executor lost it: {excerpt(said.encode('utf-8', 'replace'))}")
