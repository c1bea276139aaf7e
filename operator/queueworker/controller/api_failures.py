"""Why calls to the API server fail, in classes that are counted; and whether it was the API server that answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from queueworker.web.source import ApiFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable

_STATUSES = {
    401: ApiFailure.UNAUTHORIZED,
    403: ApiFailure.FORBIDDEN,
    404: ApiFailure.NOT_FOUND,
    409: ApiFailure.CONFLICT,
    429: ApiFailure.THROTTLED,
}


def failure_of(error: BaseException) -> ApiFailure:
    """The class of an error of a call: one of `cluster.FAILED`."""
    if isinstance(error, ApiException):
        rest = ApiFailure.SERVER_ERROR if error.status >= 500 else ApiFailure.REJECTED
        return _STATUSES.get(error.status, rest)
    return ApiFailure.TIMEOUT if isinstance(error, TimeoutError) else ApiFailure.CONNECTION


class NotTheApiServer(ConnectionError):
    """Something in front of the API server has answered in its place: a gateway, or a login page."""

    def __init__(self) -> None:
        super().__init__("a gateway or a login page answered in place of the API server")


async def answer_of(call: Awaitable[Any]) -> Any:
    """What the API server answers to a call of the client. Raises what the call raises, `NotTheApiServer`, and
    ConnectionError if the client cannot read its token, which it does once a minute.

    Whatever the API server answers has a kind. A success of somebody else is text to the client, or an object that it
    cannot make its models of.
    """
    try:
        answer = await call
        kind = answer.get("kind") if isinstance(answer, dict) else answer.kind
    except ConfigException as error:
        raise ConnectionError(str(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise NotTheApiServer from error
    if not kind:
        raise NotTheApiServer
    return answer
