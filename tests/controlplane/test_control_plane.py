"""The local control plane itself: real, with RBAC and an audit log, and able to go away and come back."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from devcluster import binaries
from devcluster.redis_server import RedisServer, RedisServerError
from devcluster.server import OPERATOR_ACCOUNT, ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_a_service_account_is_who_it_says_and_only_those_have_tokens(control_plane: ControlPlane) -> None:
    config = control_plane.kubeconfig_for(*OPERATOR_ACCOUNT)
    command = [binaries.kubectl(), "--kubeconfig", config, "auth", "whoami", "-o", "jsonpath={.status.userInfo}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "system:serviceaccount:queueworker-system:queueworker-operator" in said
    assert "system:serviceaccounts:queueworker-system" in said
    assert control_plane.token_for(*OPERATOR_ACCOUNT) in Path(config).read_text()
    with pytest.raises(KeyError):
        control_plane.token_for("default", "stranger")


def test_every_call_is_in_the_audit_log(control_plane: ControlPlane, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "configmap", "noted", "-n", namespace)
    calls = [e for e in control_plane.audit_events() if (e.get("objectRef") or {}).get("namespace") == namespace]
    assert ("create", "configmaps", 201) in [
        (e["verb"], e["objectRef"]["resource"], e["responseStatus"]["code"]) for e in calls
    ]


def test_no_client_has_to_skip_the_certificate(control_plane: ControlPlane) -> None:
    config = Path(control_plane.admin_kubeconfig)
    assert "insecure" not in config.read_text()
    assert config.stat().st_mode & 0o077 == 0


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


def test_it_outlives_the_thread_that_started_it() -> None:
    plane = ControlPlane()
    starter = threading.Thread(target=plane.start)
    try:
        starter.start()
        starter.join()
        time.sleep(1)
        command = [binaries.kubectl(), "--kubeconfig", plane.admin_kubeconfig, "--request-timeout=2s", "get", "ns"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    finally:
        plane.stop()


def test_up_ends_at_a_signal_and_leaves_nothing() -> None:
    with up() as (process, folder):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert running_in(folder) == []
        assert not folder.exists()


def test_no_server_outlives_an_owner_that_was_killed() -> None:
    with up() as (process, folder):
        assert len(running_in(folder)) == 2
        process.kill()
        process.wait()
        deadline = time.monotonic() + 5
        while running_in(folder):
            assert time.monotonic() < deadline, running_in(folder)
            time.sleep(0.05)


def test_a_server_that_does_not_start_shows_what_it_said() -> None:
    with RedisServer() as first:
        with pytest.raises(RedisServerError, match=r"(?i)address already in use"):
            RedisServer(first.port).start()
        assert Redis.from_url(first.url).ping()


def test_a_killed_redis_comes_back_empty_on_its_port() -> None:
    with RedisServer() as server:
        Redis.from_url(server.url).set("a", 1)
        server.kill()
        server.start()
        assert Redis.from_url(server.url).get("a") is None


def test_the_emptied_redis_of_a_test_is_a_real_one(redis_url: str) -> None:
    assert Redis.from_url(redis_url).dbsize() == 0


@contextmanager
def up() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`python -m devcluster up`, ready, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "devcluster", "up"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    folder: Path | None = None
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"export KUBECONFIG=(.+)\n", line)
        assert found, line
        folder = Path(found[1]).parent
        yield process, folder
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()
        if folder is not None:
            subprocess.run(["rm", "-rf", str(folder)], check=True)  # a killed owner cannot


def running_in(folder: Path) -> list[str]:
    """The processes, but zombies, that name the folder on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(folder) in line:
            found.append(line.replace("\0", " ")[:80])
    return found
