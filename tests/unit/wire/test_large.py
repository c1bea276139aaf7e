"""A large body means what it would mean if it were small, and goes out as it came."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from queueworker.routing.http import large
from queueworker.routing.http.large import Pieces
from queueworker.routing.journal import entries
from queueworker.routing.journal.entries import State
from queueworker.routing.journal.failed_tasks import NO_TASK
from queueworker.routing.wire import task as task_module
from queueworker.routing.wire.task import (
    InvalidAnswer,
    InvalidTask,
    Outcome,
    Task,
    event,
    execute_body,
    outcome_of,
    parse_large_task,
    parse_result,
    parse_task,
    report_body,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def parsed(body: bytes) -> Task | None:
    return parse_task(body, None, 7.0)  # type: ignore[arg-type]


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every body, strings above 80 bytes, and windows of 40."""
    monkeypatch.setattr(task_module, "LARGE_BYTES", 0)
    monkeypatch.setattr(large, "SHORT_STRING_BYTES", 80)  # the name of a field may be spelled in 66
    monkeypatch.setattr(large, "WINDOW_BYTES", 40)


def joined(body: bytes | Pieces) -> bytes:
    if not isinstance(body, Pieces):
        return body
    assert body.size == len(b"".join(body))
    return b"".join(body)


def meaning(body: bytes, parse: Callable[[bytes], Any]) -> Any:
    """What a body comes to: what matters of a task or a result, or the kind of error."""
    try:
        found = parse(body)
    except (InvalidAnswer, InvalidTask) as error:
        return type(error), getattr(error, "eval_id", None)
    if isinstance(found, Task):
        to_execute = orjson.loads(joined(execute_body(found, 9)))
        return to_execute, found.eval_id, found.timeout, found.language, found.engine, found.raw
    if isinstance(found, dict):
        fields = {name: found.get(name) for name in ("status", "error", "executor_id", "container_id")}
        return fields, outcome_of(found, body)
    return found


texts = st.text() | st.tuples(st.text(), st.integers(0, 60), st.text()).map(lambda t: t[0] * t[1] + t[2])
texts |= st.lists(st.sampled_from(["\\", '"', "\n", "a" * 7, "ä", "😀", "\u2028", "\ud83d"]), max_size=80).map("".join)
# Numbers that no JSON library need keep are left out: one refuses 1e999, another passes over it.
any_json: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(-1e300, 1e300, allow_nan=False), texts
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(["eval_id", "code", "timeout", "language", "engine", "status", "error", "output", "x"])
json_bodies = st.tuples(any_json | st.dictionaries(field_names, any_json), st.booleans()).map(
    lambda t: json.dumps(t[0], ensure_ascii=t[1]).encode("utf-8", "surrogatepass")
)


def damaged(body: bytes, at: int, by: bytes) -> bytes:
    at %= len(body) + 1
    return body[:at] + by + body[at:]


bodies = json_bodies | st.binary() | st.builds(damaged, json_bodies, st.integers(0), st.binary(min_size=1, max_size=3))
bodies |= st.builds(damaged, json_bodies, st.integers(0), st.sampled_from([b'"', b"\\", b"\\u", b"\n", b"\\ud800"]))


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("parse", [parsed, parse_result])
@given(body=bodies)
@example(body=b'{"eval_id":"a","code":"x"} x')
@example(body=b'{"eval_id":"a","code":"x","more":"\xff"}')
@example(body=b'{"eval_id":"a","code":"\xff"}')
@example(body=b'{"eval_id":"a","code":"x","more":NaN}')
@example(body=b'{"eval_id":"a","code":"x","more":"\\ud800"}')
@example(body=b'{"eval_id":"a","code":"\\ud800"}')
@example(body=b'{"eval_id":"a","code":"\n"}')
@example(body=b'{"eval_id":"a","code":"x","more":"\n"}')
@example(body=b'{"eval_id":"a","code":1,"code":"x"}')
@example(body=b'{"eval_id":"a","code":"x","code":1}')
@example(body=b'{"eval_id":"a","code":"x","more":01}')
@example(body=b'\xef\xbb\xbf{"eval_id":"a","code":"x"}')
@example(body=b"[" * 2000 + b"]" * 2000)
@example(body=b'{"eval_id":"a","code":"' + b"x" * 200)
@example(body=b'{"eval_id":"a","code":"' + b"\\" * 201 + b'"}')
@example(body=b'{"eval_id":"a","code":"' + b"\\" * 200 + b'"}')
@example(body=b'{"eval_id":"a","code":"' + b"\\ud83d\\ude00" * 50 + b'"}')
@example(body=b'{"eval_id":"a","code":"' + b"x\\\\ud83d\\ude00" * 50 + b'"}')
@example(body=b'{"eval_id":"a","code":"' + b"x" * 200 + b'\\ud83d"}')
@example(body=b'{"eval_id":"a","code":"' + b"\x80" * 200 + b'"}')
@example(
    body=b'{"eval_id":"' + b"a" * 200 + b'","code":"x","language":{"' + b"b" * 200 + b'":["' + b"c" * 200 + b'"]}}'
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_large_body_means_what_it_would_mean_if_it_were_small(parse: Callable[[bytes], Any], body: bytes) -> None:
    as_large = meaning(body, parse)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(task_module, "LARGE_BYTES", len(body) + 1)
        assert meaning(body, parse) in (as_large, None)  # None: an empty queue, which no large body stands for


@pytest.mark.usefixtures("all_are_large")
def test_what_is_large_goes_out_in_pieces_that_were_not_copied() -> None:
    code = 'print("1")' * 20
    body = orjson.dumps({"eval_id": "a b", "code": code, "timeout": 7})
    task = parsed(body)
    assert task is not None
    to_execute = execute_body(task, 9)
    assert isinstance(to_execute, Pieces)
    assert any(isinstance(piece, memoryview) and piece.obj is body for piece in to_execute)
    assert joined(to_execute) == b'{"eval_id":"a b","timeout":9,"code":%b}' % orjson.dumps(code)
    for outcome in (Outcome(completed=True, result=body), Outcome(completed=False, error="no", result=body)):
        for sent in (report_body(outcome), event("a", outcome)[1]):
            assert not isinstance(sent, Pieces) or any(piece is body for piece in sent)
        assert orjson.loads(joined(event("a", outcome)[1]))["result"] == orjson.loads(body)
    assert orjson.loads(joined(report_body(Outcome(completed=True, result=body)))) == {"output": orjson.loads(body)}


LONG_STRINGS = {
    "plain": b"x" * 3_000_000,
    "escapes": b"line\\n\\u00e4\\\\" * 200_000,
    "surrogates": b"\\ud83d\\ude00" * 300_000,
    "no surrogates": b"\\\\ud83d\\u00e4" * 300_000,
    "utf-8": "ä😀".encode() * 500_000,
    "backslashes": b"\\\\" * 1_500_000,
    "quotes": b'\\"' * 1_500_000,
}


@pytest.mark.parametrize("contents", LONG_STRINGS.values(), ids=LONG_STRINGS.keys())
def test_a_long_string_is_read_window_by_window(contents: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at no time more of it than that: what reads a whole body is not called with one."""
    seen: list[int] = []
    hold = large._hold_to_json

    def counting(window: bytes) -> None:
        seen.append(len(window))
        hold(window)

    monkeypatch.setattr(large, "_hold_to_json", counting)
    body = b'{"eval_id":"a","code":"%b","timeout":7}' % contents
    steps = parse_large_task(body, None, 7.0)  # type: ignore[arg-type]
    task = asyncio.run(large.in_turns(steps))
    assert task is not None
    assert isinstance(task.code, memoryview)
    assert bytes(task.code) == b'"%b"' % contents
    assert max(seen) <= large.WINDOW_BYTES
    assert sum(seen) < 1.1 * len(contents)
    assert len(seen) >= len(contents) // large.WINDOW_BYTES


@pytest.mark.parametrize("size", [99, 100, 101, 140, 141, 1000, 1001])
@pytest.mark.parametrize("lost", [False, True])
def test_what_is_large_is_kept_beside_its_entry(size: int, lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LARGE_BYTES", 100), ("MAX_KEPT_BYTES", 1000), ("PART_BYTES", 40)):
        monkeypatch.setattr(entries, name, value)
    body = b'"%b"' % (b"x" * (size - 2))

    def kept(kind: str) -> dict[str, memoryview]:
        parts = entries.parts(kind, body)
        assert bool(parts) == (100 <= size <= 1000)
        assert b"".join(parts.values()) == (body if parts else b"")
        assert all(len(part) <= 40 for part in parts.values())
        if lost and parts:
            del parts[f"{kind}1"]
        return parts

    parts = kept(entries.TASK)
    head = entries.encode_task(State.EXECUTING, "q", body)
    assert len(head) < 100 + 100 * (size < 100)
    missing = size > 1000 or (lost and bool(parts))
    assert entries.decode(head, parts).task == (NO_TASK if missing else body)
    if size <= 1000:
        parts = kept(entries.RESULT)
        head = entries.encode_outcome("q", Outcome(completed=True, result=body))
        if lost and parts:
            with pytest.raises(entries.UnreadableEntry):
                entries.decode(head, parts)
        else:
            assert entries.decode(head, parts).outcome == Outcome(completed=True, result=body)
