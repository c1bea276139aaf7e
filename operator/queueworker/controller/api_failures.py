"""Why calls to the API server fail, in classes that are counted."""

from __future__ import annotations

from kubernetes.aio.client.exceptions import ApiException

from queueworker.web.source import ApiFailure

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
