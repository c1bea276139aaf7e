"""Schemathesis drives the HTTP API by its own OpenAPI document: no 500, only what is documented, bounded bodies."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from queueworker.routing.snapshot import Phase as RouterPhase
from queueworker.web.app import Mode, create_app
from queueworker.web.source import OperatorView
from tests.support.properties import examples
from tests.support.web_source import DOWN, FakeSource, executor, snapshot

if TYPE_CHECKING:
    from schemathesis import Case as AnyCase
    from schemathesis.schemas import APIOperation

    Operation = APIOperation[Any, Any, Any, Any]
    Case = AnyCase[Any]

OPERATIONS = {"/health", "/status", "/status/{namespace}/{name}", "/livez", "/readyz", "/metrics"}
OPERATIONS |= {"/api/overview", "/api/sparklines", "/api/objects/{namespace}/{name}"}
OPERATIONS |= {"/api/objects/{namespace}/{name}/failures/{eval_id}/retry"}
OF_ONE_OBJECT = ("/status/{namespace}/{name}", "/api/objects/{namespace}/{name}")
MAX_BODY_BYTES = 32 * 1024
MAX_OBJECT_BYTES = 16 * 1024
"""In an answer about all objects."""
SOURCES = {
    "a worker": (Mode.WORKER, FakeSource([snapshot("worker/queue:8081")])),
    "a worker that starts and fails its probes": (
        Mode.WORKER,
        FakeSource(
            [snapshot("worker/q", phase=RouterPhase.STARTING, executors=(), queue=DOWN, queue_depth=None)],
            liveness=(False, "stalled"),
            readiness=(False, "starting"),
        ),
    ),
    "a leader": (
        Mode.OPERATOR,
        FakeSource([snapshot(f"team/w-{i}") for i in range(20)], view=OperatorView(leading=True, leader="pod-a")),
    ),
    "a leader without objects": (Mode.OPERATOR, FakeSource([], view=OperatorView(leading=True, leader="pod-a"))),
    "a standby": (
        Mode.OPERATOR,
        FakeSource([], readiness=(False, "the Lease cannot be read"), view=OperatorView(leading=False, leader="pod-a")),
    ),
    "a standby without a leader": (Mode.OPERATOR, FakeSource([], view=OperatorView(leading=False, leader=""))),
    "an operator of executors with strange names": (
        Mode.OPERATOR,
        FakeSource(
            [
                snapshot(
                    "team/\u00e9", executors=(executor(1, reason='"\\\n\ud83d'.encode("utf-8", "replace").decode()),)
                )
            ]
        ),
    ),
}


def operations(which: str) -> list[Operation]:
    mode, source = SOURCES[which]
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(source, mode))
    return [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]


def with_path(operation: Operation, parameters: dict[str, str]) -> Case:
    return operation.Case(path_parameters=parameters)


def limit(which: str) -> int:
    """Of a body, in bytes. It depends on what is routed, and on nothing in the request."""
    return MAX_BODY_BYTES + MAX_OBJECT_BYTES * len(SOURCES[which][1].shown)


def drive(strategy: st.SearchStrategy[Case], limit: int) -> None:
    """Send the strategy's requests, and hold each answer to the document."""

    @settings(
        max_examples=examples(5),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def send(case: Case) -> None:
        response = case.call()
        # A probe that fails answers 503, which the document says; it has no 500.
        case.validate_response(response, excluded_checks=[not_a_server_error])
        assert response.status_code != 500
        assert len(response.content) <= limit

    send()


@pytest.mark.parametrize("which", SOURCES)
def test_every_answer_is_the_one_that_the_document_promises(which: str) -> None:
    found = operations(which)
    assert {operation.path for operation in found} == OPERATIONS
    for operation in found:
        drive(operation.as_strategy(), limit(which))


def test_a_path_of_any_text_is_answered_as_documented() -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
    for which in ("a worker", "a leader", "a standby"):
        for operation in [o for o in operations(which) if o.path in OF_ONE_OBJECT]:
            pairs = st.fixed_dictionaries({"namespace": texts, "name": texts})
            drive(pairs.map(functools.partial(with_path, operation)), limit(which))
