"""Answers of every kind, sliced anywhere, are what h11 says they are, or broken.

Both parsers take what RFC 9112 lets a server send. They differ in what it does not. There the stricter reading counts,
as the router loses less by an ambiguous task than by a result that is another one's: so what h11 refuses is broken, and
so is what llhttp alone refuses: bare line feeds, folded headers, Content-Length twice or beside Transfer-Encoding (the
ways of smuggling an answer), blanks after the size of a chunk, versions other than 1.0 and 1.1.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queueworker.routing.http.answer import Answer, AnswerReader, BadAnswer
from tests.support.properties import examples

MAX_EVENT_BYTES = 1 << 17
LIMIT = 1 << 20

# llhttp takes any bytes for the words after a status. Nobody reads them.
REASON = re.compile(rb"(HTTP/1\.[01] \d{3} )[^\r\n]*")
# A framing field in a trailer means nothing (RFC 9110, 6.5.1), and llhttp ignores it. h11 refuses it.
FRAMING_IN_TRAILER = re.compile(rb"(\r\n0\r\n.*?\r\n)(?:transfer-encoding|content-length):", re.DOTALL | re.IGNORECASE)

Outcome = Answer | str
"""An answer, `broken`, or `waiting` for more."""


def read(slices: list[bytes], *, closes: bool) -> tuple[Outcome, bool]:
    """What we make of it, and whether we keep the connection."""
    reader = AnswerReader()
    reader.begin(LIMIT)
    try:
        for number, part in enumerate(slices):
            if (answer := reader.feed(part)) is not None:
                return answer, reader.keep_alive and number == len(slices) - 1 and not closes
        return (reader.end() if closes else "waiting"), False
    except BadAnswer:
        return "broken", False


def referee(data: bytes, *, closes: bool) -> tuple[Outcome, bool]:
    """What h11 makes of it, and whether the connection can have another request."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_EVENT_BYTES)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "queue")]))
    client.send(h11.EndOfMessage())
    status, body, may_ask_again_1_0 = 0, bytearray(), False
    try:
        client.receive_data(data)
        if closes and data:
            client.receive_data(b"")
        while True:
            event: Any = client.next_event()
            if event is h11.NEED_DATA:
                return ("broken" if closes else "waiting"), False
            if isinstance(event, h11.Response):
                status = event.status_code
                # h11 keeps no connection of HTTP/1.0, though the peer says that it will: curl and llhttp do
                may_ask_again_1_0 = event.http_version == b"1.0" and (b"connection", b"keep-alive") in [
                    (name, value.lower()) for name, value in event.headers
                ]
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                agreed = client.their_state is h11.DONE or may_ask_again_1_0
                # llhttp skips line ends between answers, unless they come when nothing is asked for
                may_be_kept = agreed and not client.trailing_data[0].strip(b"\r\n") and not closes
                return Answer(status, bytes(body)), may_be_kept
            elif isinstance(event, h11.ConnectionClosed):
                return "broken", False
    except h11.RemoteProtocolError:
        return "broken", False


def sliced(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


names = st.sampled_from([b"Server", b"x-a", b"Date", b"Content-Type", b"Content-Encoding", b"Keep-Alive", b"X_Y!"])
values = st.sampled_from([b"", b"a", b"text/html; charset=utf-8", b"a: b", b"\xc3\xa9", b"a\tb", b"content-length: 3"])
headers = st.lists(st.tuples(names, values), max_size=4)
connections = st.sampled_from([b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"connection:Close\r\n"])
bodies = st.one_of(st.binary(max_size=40), st.sampled_from([b"{}", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n"]))


def lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    chunks = [chunk for chunk in draw(st.lists(bodies, max_size=4)) if chunk]
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b"']))
    sizes = draw(st.sampled_from([b"%x", b"%X", b"0%x"]))
    sent = b"".join(sizes % len(chunk) + extension + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
    return sent + b"0\r\n" + lines(draw(headers)) + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]))
    status = draw(st.sampled_from([200, 200, 200, 201, 204, 304, 307, 404, 500, 599]))
    reason = draw(st.sampled_from([b" OK", b"", b" ", b" Not  Found", b" \xc3\xa9"]))
    interim = b"".join(
        b"HTTP/1.1 %d Wait\r\n%b\r\n" % (code, lines(draw(headers)))
        for code in draw(st.lists(st.sampled_from([100, 102, 103, 199]), max_size=2))
    )
    head = version + b" %d" % status + reason + b"\r\n" + lines(draw(headers)) + draw(connections)
    name = draw(st.sampled_from([b"%b: %b\r\n", b"%b:%b\r\n", b"%b:  %b \r\n"]))
    match draw(st.sampled_from(["length", "length", "chunked", "end"])):
        case "length":
            body = draw(bodies)
            framing = name % (draw(st.sampled_from([b"Content-Length", b"content-length"])), b"%d" % len(body))
        case "chunked":
            body = draw(chunked())
            framing = name % (b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"])))
        case _:
            body, framing = draw(bodies), b""
    if status in (204, 304):
        body = b""
    return interim + head + framing + lines(draw(headers)) + b"\r\n" + body


GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b" ",
            b":",
            b"0",
            b"\x00",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            b"\r\nContent-Length: 1",
            b"\r\nTransfer-Encoding: gzip",
            b"\r\nTransfer-Encoding: chunked",
        ]
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer that is cut, or has something more, less or else anywhere."""
    whole = draw(answers())
    begin = draw(st.integers(0, len(whole)))
    end = draw(st.one_of(st.just(begin), st.integers(begin, min(begin + 3, len(whole)))))
    match draw(st.sampled_from(["cut", "insert", "replace", "append"])):
        case "cut":
            return whole[:begin]
        case "append":
            return whole + draw(GARBAGE)
        case "insert":
            return whole[:begin] + draw(GARBAGE) + whole[begin:]
    return whole[:begin] + draw(GARBAGE) + whole[end:]


@settings(max_examples=examples(80), deadline=None)
@given(answers(), st.lists(st.integers(0, 500), max_size=6), st.booleans())
def test_what_a_server_may_send_is_read_as_h11_reads_it(data: bytes, cuts: list[int], closes: bool) -> None:
    outcome, kept = read(sliced(data, cuts), closes=closes)
    assert (outcome, kept) == referee(data, closes=closes)


@settings(max_examples=examples(100), deadline=None)
@given(damaged(), st.lists(st.integers(0, 500), max_size=6), st.booleans())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", [], True)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", [], True)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n{}", [], True)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n{}", [], True)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", [], True)
@example(b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", [], False)
@example(b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", [], False)
@example(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\na: b\r\nTransfer-Encoding: gzip\r\n\r\n",
    [],
    True,
)
@example(b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\n{}", [], False)
def test_a_damaged_answer_is_what_h11_makes_of_it_or_broken(data: bytes, cuts: list[int], closes: bool) -> None:
    outcome, kept = read(sliced(data, cuts), closes=closes)
    said, may_be_kept = referee(data, closes=closes)
    if said == "broken":
        said, may_be_kept = referee(REASON.sub(rb"\1OK", data), closes=closes)
    if said == "broken":
        plain = FRAMING_IN_TRAILER.sub(rb"\1x:", REASON.sub(rb"\1OK", data))
        said, may_be_kept = referee(plain, closes=closes)
    if isinstance(outcome, Answer) and outcome.status in (204, 304):
        assert not outcome.body  # whatever headers say about one, which h11 may refuse
    elif isinstance(outcome, Answer):
        assert outcome == said
        assert may_be_kept or not kept
    elif outcome == "waiting":
        assert not isinstance(said, Answer)


@settings(max_examples=examples(30), deadline=None)
@given(damaged(), st.lists(st.lists(st.integers(0, 500), max_size=6), min_size=2, max_size=3), st.booleans())
@example(
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n",
    [[], [75]],
    False,
)
def test_where_an_answer_is_sliced_changes_nothing(data: bytes, cuts: list[list[int]], closes: bool) -> None:
    outcomes = [read(sliced(data, places), closes=closes)[0] for places in cuts]
    assert all(outcome == outcomes[0] for outcome in outcomes)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(answers(), min_size=1, max_size=5), st.lists(st.integers(0, 500), max_size=6))
def test_one_reader_reads_one_answer_after_another(many: list[bytes], cuts: list[int]) -> None:
    reader = AnswerReader()
    for data in many:
        said, may_be_kept = referee(data, closes=False)
        reader.begin(LIMIT)
        outcome = [answer for part in sliced(data, cuts) if (answer := reader.feed(part)) is not None]
        assert outcome == ([said] if isinstance(said, Answer) else [])
        if not may_be_kept:
            break
