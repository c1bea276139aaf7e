"""What `kubectl queueworker failed` says about an object whose Redis cannot be reached."""

from __future__ import annotations

import pytest

from queueworker.cli.plugin.failed import unreachable_advice


@pytest.mark.parametrize(
    ("url", "forwarded"),
    [
        (
            "redis://redis:6379/0",
            "`kubectl port-forward -n team svc/redis 6379` and --redis-url redis://127.0.0.1:6379, or",
        ),
        ("redis://redis.data.svc.cluster.local", "`kubectl port-forward -n data svc/redis 6379`"),
        ("redis://10.0.0.7:6379", ""),
        ("redis://[fd00::7]:6379", ""),
        ("redis://localhost:6379", ""),
        ("rediss://cache.example.com:6380", ""),
    ],
)
def test_only_a_service_is_said_to_be_one_that_can_be_forwarded(url: str, forwarded: str) -> None:
    advice = unreachable_advice(url, "team", "legacy", "list", given=False)
    assert forwarded in advice
    assert ("port-forward" in advice) is bool(forwarded)
    assert "`kubectl exec -n queueworker-system deploy/queueworker-operator -- " in advice
