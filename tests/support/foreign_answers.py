"""What stands in front of a peer (ingress, gateway, login page, API framework) and answers by itself.

One table for the model's world and for the processes of the fault tests: each status with each kind of body.
"""

from __future__ import annotations

from typing import NamedTuple


class ForeignAnswer(NamedTuple):
    """An answer that is not the peer's."""

    status: int
    body: bytes
    content_type: str


STATUSES = (200, 302, 401, 403, 404, 502, 503, 504)
BODIES = {
    "html": (b"<html><body><h1>Sign in</h1></body></html>", "text/html"),
    "text": (b"404 page not found", "text/plain"),
    "json": (b'{"message": "no Route matched with those values"}', "application/json"),
    "detail": (b'{"detail": "Not Found"}', "application/json"),
    "empty": (b"", "text/plain"),
}
FOREIGN = {f"{status}-{kind}": ForeignAnswer(status, *body) for status in STATUSES for kind, body in BODIES.items()}
BEHIND = {name: answer for name, answer in FOREIGN.items() if answer.status in {502, 504}}
"""What a gateway may also answer after the peer has acted."""
