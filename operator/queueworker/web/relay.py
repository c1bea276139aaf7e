"""A standby answers with what the leader says. The leader's address is in the Lease (`controller/leadership`)."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
from fastapi import HTTPException

from queueworker.routing.http.transport import HttpTransport, TransportError
from queueworker.web.shared import Body

if TYPE_CHECKING:
    from queueworker.routing.http.transport import Answer
    from queueworker.web.source import OperatorView

RELAY_SECONDS = 3.0
"""Less than the time after which the page gives up."""
POST_SECONDS = 30.0
"""A retry asks Redis and the queue."""
MAX_RELAY_BYTES = 16 * 1024 * 1024
DIRECT = "direct"
"""The query parameter of a relayed request: whoever gets it answers by itself, so that no request runs in a circle."""


async def get(path: str, view: OperatorView) -> Body:
    """Raises HTTPException: 503 in words if no leader answers, or the leader's own error."""
    transport = HttpTransport()
    try:
        raw = _body(await transport.get(_url(path, view), RELAY_SECONDS, limit=MAX_RELAY_BYTES))
    except TransportError as error:
        raise _no_answer(view, error) from error
    finally:
        await transport.close()
    return Body.made(raw, hashlib.blake2b(raw, digest_size=12).hexdigest())


async def post(path: str, token: str, view: OperatorView) -> bytes:
    """As `get`. The leader checks the token."""
    transport = HttpTransport()
    try:
        return _body(await transport.post(_url(path, view), b"", POST_SECONDS, token, limit=MAX_RELAY_BYTES))
    except TransportError as error:
        raise _no_answer(view, error) from error
    finally:
        await transport.close()


def _url(path: str, view: OperatorView) -> str:
    if not view.leader:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE, "Nobody leads at present; a standby takes over within some seconds"
        )
    if not view.address:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{view.identity} stands by; ask {view.leader}, which leads: its address is not known here (set POD_IP)",
        )
    return f"{view.address}{path}{'&' if '?' in path else '?'}{DIRECT}=true"


def _body(answer: Answer) -> bytes:
    """The body of a 200. Raises HTTPException with the leader's status and words otherwise."""
    if answer.status == HTTPStatus.OK:
        return answer.body
    try:
        said = str(orjson.loads(answer.body)["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        said = f"the leader answered {answer.status}"
    raise HTTPException(answer.status, said)


def _no_answer(view: OperatorView, error: TransportError) -> HTTPException:
    text = f"{view.identity} stands by, and {view.leader}, which leads, does not answer: {error}"
    return HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, text)
