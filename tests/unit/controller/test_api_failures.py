"""The classes in which failed calls to the API server are counted."""

from __future__ import annotations

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.api_failures import failure_of


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ApiException(status=401), "unauthorized"),
        (ApiException(status=403), "forbidden"),
        (ApiException(status=404), "not_found"),
        (ApiException(status=409), "conflict"),
        (ApiException(status=422), "rejected"),
        (ApiException(status=429), "throttled"),
        (ApiException(status=500), "server_error"),
        (ApiException(status=503), "server_error"),
        (TimeoutError(), "timeout"),
        (aiohttp.ServerTimeoutError(), "timeout"),
        (aiohttp.ServerDisconnectedError(), "connection"),
        (ConnectionRefusedError(), "connection"),
    ],
)
def test_a_failed_call_is_counted_by_its_reason(error: Exception, failure: str) -> None:
    assert failure_of(error) == failure
