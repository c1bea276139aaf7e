"""Why no answer came. `transport.py` has the tree, and what each error promises."""

from __future__ import annotations

import os
import socket
import ssl


class TransportError(Exception):
    """No answer came. The message begins with the peer's URL and ends with the cause in the system's words."""


class NotSent(TransportError):
    """The peer never saw the request: no byte of it was given to a socket."""


class Broken(TransportError):
    """The request may have been seen: the exchange ended before a whole answer came."""


class TimedOut(Broken):
    """The request may have been seen: no whole answer came within the timeout."""


class TooLarge(Broken):
    """The peer answered, but the body is larger than the caller's limit."""

    def __init__(self, message: str, status: int, size: int | None, limit: int) -> None:
        super().__init__(message)
        self.status = status
        self.size = size
        """Bytes, from Content-Length; None if the answer has no such header."""
        self.limit = limit


def cause(error: BaseException | None) -> str:
    """The error in the system's words, without addresses and class names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error.strerror or error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if error is None or not str(error):
        return "the connection was closed"
    return str(error)
