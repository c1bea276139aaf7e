"""URLs in a spec: what the operator and the worker refuse. tests/controlplane asks a real API server the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from queueworker.resource.spec import QueueWorkerSpec
from tests.support.bad_urls import GOOD, refused


@pytest.mark.parametrize(("spec", "words"), refused(new=False), ids=lambda value: json.dumps(value)[:60])
def test_a_url_that_cannot_work_is_refused_in_a_sentence(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        QueueWorkerSpec.model_validate(spec)
    (error,) = caught.value.errors()
    assert words in error["msg"]


@pytest.mark.parametrize("spec", GOOD, ids=json.dumps)
def test_a_url_that_can_work_is_taken(spec: dict[str, Any]) -> None:
    QueueWorkerSpec.model_validate(spec)


@pytest.mark.parametrize(("spec", "words"), refused(new=True), ids=lambda value: json.dumps(value)[:60])
def test_an_object_with_credentials_that_was_once_taken_goes_on_to_work(spec: dict[str, Any], words: str) -> None:
    assert words
    QueueWorkerSpec.model_validate(spec)


def test_a_redis_url_whose_options_have_unusable_values_is_refused_by_the_operator() -> None:
    with pytest.raises(ValidationError, match="the option ssl_cert_reqs is for TLS: write rediss://"):
        QueueWorkerSpec.model_validate({"events": {"redisURL": "redis://redis?ssl_cert_reqs=none"}})
