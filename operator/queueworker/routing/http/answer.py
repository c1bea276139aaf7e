"""Reads one answer after another from the bytes of one connection; knows no sockets. llhttp parses.

The callbacks that llhttp could make for each header are not used: with them an answer takes twice the time. The head is
kept until the answer is whole, and is searched only when the answer comes in several parts or is chunked.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import NamedTuple

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD_BYTES = 64 * 1024
MAX_INTERIM_ANSWERS = 16
# An answer whose status is not 2xx is read for its words only.
MAX_ERROR_BODY_BYTES = 64 * 1024
# Of a chunked body: the framing may be so many times larger than the contents (a chunk of one byte takes six).
MAX_FRAMING_RATIO = 16

# llhttp takes RTSP and HTTP/2 as well, and empty lines before an answer.
_BEGIN = b"HTTP/1."
NOT_HTTP = "no HTTP answer: it does not begin with HTTP/1"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*(\d{1,20})", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r]*)", re.IGNORECASE)


class Answer(NamedTuple):
    status: int
    body: bytes


class BadAnswer(Exception):
    """What came is not one whole HTTP answer."""


class Oversized(Exception):
    """The answer is a good one whose body is above the limit."""

    def __init__(self, status: int, size: int | None) -> None:
        super().__init__(status, size)
        self.status = status
        self.size = size


class _Cut(Exception):
    """The body of an error is longer than anybody reads."""


class AnswerReader:
    """Call `begin`, then `feed` until it gives the answer."""

    __slots__ = (
        "_body", "_cap", "_chunked", "_head", "_head_known", "_interim", "_large_body", "_parser", "_received",
        "_size", "_status", "keep_alive", "limit",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.keep_alive = False
        """Whether the connection can have another exchange; valid once `feed` has given an answer."""
        self.limit = self._cap = 0
        self._size = self._status = self._received = 0
        self._head = self._body = b""
        self._head_known = self._chunked = False
        self._interim = 0
        self._large_body: BytesIO | None = None

    @property
    def received(self) -> int:
        """Bytes of an answer that is not whole yet."""
        return self._received

    @property
    def expected_bytes(self) -> int:
        """How many bytes the body may have in the end; known once its head is there."""
        size = self._content_length() if self._head_known else None
        return self.limit if size is None else min(size, self.limit)

    def begin(self, limit: int) -> None:
        """Read the next answer. A 2xx body above `limit` bytes is `Oversized`; any other is cut."""
        if limit != self.limit:
            self.limit = limit
            self._cap = min(limit, MAX_ERROR_BODY_BYTES)
        self._size = self._status = self._received = 0

    def feed(self, data: bytes) -> Answer | None:
        """The answer, once it is whole. Raises `BadAnswer` or `Oversized`; the connection must be closed then."""
        if not self._head_known:
            self._head += data
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError as error:
            return self._interrupted(error.__context__)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._status:
                raise BadAnswer(f"no HTTP answer: {error}") from error
            self.keep_alive = False
        if self._status:
            return self._whole()
        self._check_progress(len(data))
        return None

    def end(self) -> Answer:
        """The peer has closed the connection in order: that is the end of a body without a length."""
        if self._head_known and not self._chunked and not _CONTENT_LENGTH.search(self._head):
            self.keep_alive = False
            return Answer(self._parser.get_status_code(), self._whole_body(self._body))
        raise BadAnswer("the connection was closed before the whole answer came")

    # --- called by the parser

    def on_message_begin(self) -> None:
        if self._status:
            self.keep_alive = False  # There are bytes after the answer; nobody asked for them.

    def on_chunk_header(self) -> None:
        self._chunked = True

    def on_body(self, part: bytes) -> None:
        if self._status:
            return  # the body of an answer that nobody asked for
        size = self._size = self._size + len(part)
        if size > self._cap:
            self._check_limit(part)
        if size == len(part):
            self._body = part
        else:
            self._add(part)

    def on_message_complete(self) -> None:
        if self._status:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._count_interim(status)
        else:
            self._status = status
            self.keep_alive = self._parser.should_keep_alive()

    # --- on the way of nearly every answer

    def _whole(self) -> Answer:
        self._check_begin()
        if (self._chunked or self._interim) and not self._head_known:
            self._find_head()
            self._check_head()
        body, self._body, self._head = self._body, b"", b""
        if self._head_known or self._interim or self._chunked:
            body = self._whole_body(body)
            self._forget()
        return Answer(self._status, body)

    def _check_begin(self) -> None:
        if not (self._head.startswith(_BEGIN) or _BEGIN.startswith(self._head)):
            raise BadAnswer(NOT_HTTP)

    # --- on the way of some

    def _forget(self) -> None:
        self._head = self._body = b""
        self._head_known = self._chunked = False
        self._interim = 0
        self._large_body = None

    def _whole_body(self, first_part: bytes) -> bytes:
        return first_part if self._large_body is None else self._large_body.getvalue()

    def _add(self, part: bytes) -> None:
        if self._large_body is None:
            self._large_body = BytesIO()
            self._large_body.write(self._body)
        self._large_body.write(part)

    def _count_interim(self, status: int) -> None:
        self._interim += 1
        if status < 100 or status == 101:
            raise BadAnswer(f"status {status}, which nothing asked for")
        if self._interim > MAX_INTERIM_ANSWERS:
            raise BadAnswer(f"more than {MAX_INTERIM_ANSWERS} interim answers")

    def _check_limit(self, part: bytes) -> None:
        status = self._parser.get_status_code()
        if not 200 <= status < 300:
            self._add(part)
            raise _Cut
        if self._size > self.limit:
            self._find_head()
            raise Oversized(status, self._content_length())

    def _interrupted(self, reason: BaseException | None) -> Answer:
        """A callback has raised: the parser can go on no more, nor can the connection."""
        self.keep_alive = False
        if isinstance(reason, _Cut):
            return Answer(self._parser.get_status_code(), self._whole_body(self._body)[: self._cap])
        assert reason is not None
        raise reason

    def _check_progress(self, received: int) -> None:
        """Hold an answer that is not whole yet to the limits, as soon as they are known to be passed."""
        self._received += received
        if not self._head_known:
            self._check_begin()
            found = self._find_head()
            if len(self._head) > MAX_HEAD_BYTES:
                raise BadAnswer(f"a head of more than {MAX_HEAD_BYTES} bytes")
            if found:
                self._check_head()
        if self._received - self._size > MAX_HEAD_BYTES + MAX_FRAMING_RATIO * self._size:
            raise BadAnswer("a body that is mostly framing")

    def _find_head(self) -> bool:
        """Leave only the head of the answer itself in `_head`, if it is there; llhttp takes no other line ends."""
        if not self._head_known:
            heads = self._head.split(b"\r\n\r\n", self._interim + 1)
            if len(heads) < self._interim + 2:
                return False
            if not all(head.startswith(_BEGIN) for head in heads[:-1]):
                raise BadAnswer(NOT_HTTP)
            if any(map(_TRANSFER_ENCODING.search, heads[:-2])):
                raise BadAnswer("an interim answer with a Transfer-Encoding")
            self._head, self._head_known = heads[-2], True
        return True

    def _check_head(self) -> None:
        self._check_encoding()
        # The parser may be at what follows the answer, and know but one digit of its status.
        status, size = self._status or self._parser.get_status_code(), self._content_length()
        if status < 100:
            raise BadAnswer(f"status {status}, which no answer has")
        if 200 <= status < 300 and size is not None and size > self.limit:
            raise Oversized(status, size)

    def _check_encoding(self) -> None:
        found = _TRANSFER_ENCODING.findall(self._head)
        self._chunked = bool(found)
        if found and (len(found) > 1 or found[0].strip().lower() != b"chunked"):
            raise BadAnswer("a Transfer-Encoding other than chunked")

    def _content_length(self) -> int | None:
        found = _CONTENT_LENGTH.search(self._head)
        return int(found[1]) if found else None
