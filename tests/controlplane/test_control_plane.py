"""The local control plane itself: real, with RBAC and an audit log, and able to go away and come back."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from demo.control_plane import binaries
from demo.control_plane.server import OPERATOR_ACCOUNT, ControlPlane

if TYPE_CHECKING:
    from tests.controlplane.conftest import Kubectl


def test_the_server_is_the_version_that_was_built(kubectl: Kubectl) -> None:
    assert f"Server Version: v{binaries.KUBERNETES_VERSION}" in kubectl("version").stdout


def test_a_service_account_has_no_rights_that_nobody_gave_it(control_plane: ControlPlane) -> None:
    config = control_plane.kubeconfig_for(*OPERATOR_ACCOUNT)
    done = subprocess.run(
        [binaries.kubectl(), "--kubeconfig", config, "get", "secrets", "-A"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "is forbidden" in done.stderr
    refused = [e for e in control_plane.audit_events() if e["responseStatus"]["code"] == 403]
    assert any(e["user"]["username"].endswith(":queueworker-operator") for e in refused)


def test_what_was_written_is_there_after_an_outage() -> None:
    with ControlPlane() as plane:

        def kubectl(*args: str) -> subprocess.CompletedProcess[str]:
            command = [binaries.kubectl(), "--kubeconfig", plane.admin_kubeconfig, "--request-timeout=2s", *args]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        assert kubectl("create", "namespace", "kept").returncode == 0
        plane.stop_apiserver()
        assert kubectl("get", "namespace", "kept").returncode != 0
        plane.start_apiserver()
        assert kubectl("get", "namespace", "kept").returncode == 0
