"""What a task may say of its trace, and what executors are told of it: only what W3C's grammar allows."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from queueworker.routing.wire.task import parse_task, trace_of
from queueworker.routing.wire.trace_context import MAX_TRACESTATE_CHARS, TraceContext, trace_context

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("value", [VALID, f"00-{TRACE}-{PARENT}-ff", f"cc-{TRACE}-{PARENT}-01-what-comes.later"])
def test_a_valid_traceparent_is_taken_as_it_is(value: str) -> None:
    assert trace_context(value, None) == TraceContext(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [VALID],
        "",
        VALID.upper(),
        f" {VALID}",
        f"{VALID}\n",
        f"{VALID}\r\nX-Injected: 1",
        f"{VALID}-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"cc-{TRACE}-{PARENT}-01more",
        f"cc-{TRACE}-{PARENT}-01-\r\n",
        f"cc-{TRACE}-{PARENT}-01-" + "x" * 256,
        f"00-{TRACE[:-1]}٣-{PARENT}-01",
    ],
)
def test_a_malformed_traceparent_is_ignored_with_its_tracestate(value: Any) -> None:
    assert trace_context(value, "a=1") is None


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("a=1", "a=1"),
        ("a=1, b=2 ,,\tc@d= 3", "a=1,b=2,c@d= 3"),
        (",".join(f"k{n}=v" for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        (",".join(f"k{n}=v" for n in range(33)), ""),
        ("", ""),
        (None, ""),
        (7, ""),
        ("A=1", ""),
        ("a", ""),
        ("a=", ""),
        ("a=1=2", ""),
        ("a=1\r\nX-Injected: 1", ""),
        ("a=ü", ""),
        ("a=" + "x" * 257, ""),
        (f"a={'x' * 250},b={'x' * 250},c={'x' * 250}", ""),
    ],
)
def test_a_tracestate_that_is_not_valid_is_dropped_and_the_traceparent_stays(value: Any, taken: str) -> None:
    assert trace_context(VALID, value) == TraceContext(VALID, taken)


def test_headers_are_whole_lines() -> None:
    assert TraceContext(VALID).headers == f"traceparent: {VALID}\r\n"
    assert TraceContext(VALID, "a=1").headers == f"traceparent: {VALID}\r\ntracestate: a=1\r\n"


@given(st.text(), st.text())
def test_whatever_a_task_says_no_header_holds_more_than_printable_ascii(traceparent: str, tracestate: str) -> None:
    for value in (traceparent, VALID):
        context = trace_context(value, tracestate)
        if context is not None:
            assert all(text.isascii() and text.isprintable() for text in context)
            assert len(context.tracestate) <= MAX_TRACESTATE_CHARS


@given(st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"))
def test_we_and_opentelemetry_agree_on_what_is_a_trace(value: str) -> None:
    found = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": value})).get_span_context()
    assert (trace_context(value, None) is not None) == found.is_valid


def test_a_task_has_the_trace_of_its_fields() -> None:
    task = {"eval_id": "a", "code": "x", "traceparent": VALID, "tracestate": "a=1"}
    parsed = parse_task(orjson.dumps(task))
    assert parsed is not None
    assert parsed.trace == TraceContext(VALID, "a=1")
    assert trace_of(parsed.raw) == parsed.trace


@pytest.mark.parametrize("value", [None, 1, {"a": 1}, "malformed"])
def test_a_malformed_trace_does_not_invalidate_the_task(value: Any) -> None:
    parsed = parse_task(orjson.dumps({"eval_id": "a", "code": "x", "traceparent": value}))
    assert parsed is not None
    assert parsed.trace is None


@pytest.mark.parametrize("raw", [b"null", b"", b"[]", b"{", b'{"traceparent": 1}'])
def test_what_is_no_task_has_no_trace(raw: bytes) -> None:
    assert trace_of(raw) is None
