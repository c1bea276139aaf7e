"""How a process knows that it runs in a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueworker.processes.pod import own_namespace, runs_in_pod

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pod_is_known_by_its_variable_or_by_its_service_account(tmp_path: Path) -> None:
    absent, file = tmp_path / "absent", tmp_path / "namespace"
    file.write_text("team\n")
    assert not runs_in_pod({"KUBERNETES_PORT": "x"}, absent)
    assert runs_in_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, absent)
    assert runs_in_pod({}, file)
    assert (own_namespace(file), own_namespace(absent)) == ("team", "")
