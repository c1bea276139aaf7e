"""A standby answers with what the leader says. The leader's address is in the Lease (`controller/leadership`)."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import HTTPException

from queueworker.routing.http.transport import HttpTransport, TransportError
from queueworker.routing.wire.reading import describe, read_object
from queueworker.web.shared import Body

if TYPE_CHECKING:
    from queueworker.routing.http.transport import Answer
    from queueworker.web.source import OperatorView

RELAY_SECONDS = 3.0
"""Less than the time after which the page gives up."""
POST_SECONDS = 55.0
"""A retry may wait twice for Redis and twice for the queue. Less than the time after which the page gives up."""
MAX_RELAY_BYTES = 16 * 1024 * 1024
DIRECT = "direct"
"""The query parameter of a relayed request: whoever gets it answers by itself, so that no request runs in a circle."""
_ERRORS = frozenset({401, 403, 404, 503})
"""Statuses with which an operator answers such a request, in words."""
_NO_ROUTE = "Not Found"
"""The words of an operator that does not know the path."""


async def get(path: str, view: OperatorView) -> Body:
    """Raises HTTPException: 503 in words if no leader answers, or the leader's own error."""
    transport = HttpTransport()
    try:
        raw = _body(await transport.get(_url(path, view), RELAY_SECONDS, limit=MAX_RELAY_BYTES), "boot", view)
    except TransportError as error:
        raise _no_answer(path, view, error) from error
    finally:
        await transport.close()
    return Body.made(raw, hashlib.blake2b(raw, digest_size=12).hexdigest())


async def post(path: str, token: str, view: OperatorView) -> bytes:
    """As `get`. The leader checks the token."""
    transport = HttpTransport()
    try:
        answer = await transport.post(_url(path, view), b"", POST_SECONDS, token, limit=MAX_RELAY_BYTES)
        return _body(answer, "sent", view)
    except TransportError as error:
        raise _no_answer(path, view, error) from error
    finally:
        await transport.close()


def _url(path: str, view: OperatorView) -> str:
    if not view.leader:
        outlook = view.unready or "a standby takes over within seconds"
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{view.identity} stands by, and nobody leads: {outlook}")
    if not view.address:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{view.identity} stands by; ask {view.leader}, which leads: its address is not known here (set POD_IP)",
        )
    return f"{view.address}{path}{'&' if '?' in path else '?'}{DIRECT}=true"


def _body(answer: Answer, field: str, view: OperatorView) -> bytes:
    """The body of a 200, an object with that field. Raises HTTPException otherwise, with the leader's status and words.

    The address may be another pod's by now, or lead to a proxy. Only what an operator says is passed on: another one's
    404 would tell that there is no such object, and its 401 that the token is wrong.
    """
    said = read_object(answer.body) or {}
    if answer.status == HTTPStatus.OK and field in said:
        return answer.body
    words = said.get("detail")
    if answer.status in _ERRORS and isinstance(words, str) and words != _NO_ROUTE:
        raise HTTPException(answer.status, words)
    text = f"what answers at the address of {view.leader}, which leads, is no operator that has this page"
    raise HTTPException(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{view.identity} stands by, and {text}: it answered {answer.status} ({describe(answer.body)})",
    )


def _no_answer(path: str, view: OperatorView, error: TransportError) -> HTTPException:
    cause = str(error).removeprefix(f"{_url(path, view)}: ")
    text = f"{view.identity} stands by, and {view.leader}, which holds the Lease, does not answer ({cause})"
    outlook = view.unready or "if it is gone, a standby takes over within 10 s"
    return HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{text}: {outlook}")
