"""The classes in which failed calls to the API server are counted."""

from __future__ import annotations

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from queueworker.controller.api_failures import answer_of, failure_of
from queueworker.controller.cluster import FAILED


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


async def test_a_token_that_cannot_be_read_is_a_failed_call_as_any_other() -> None:
    """The client reads it once a minute, in the middle of a call."""

    async def call() -> None:
        raise ConfigException("Token file exists but empty.")

    with pytest.raises(FAILED, match="Token file"):
        await answer_of(call())
