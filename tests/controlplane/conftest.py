"""A real kube-apiserver for a whole test run (one a worker under xdist), and a namespace for each test."""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING, Protocol

import pytest

from devcluster import binaries
from devcluster.server import ControlPlane
from tests.support.demo_processes import DemoProcess, demo_process
from tests.support.operating import eventually, install, is_ready, operator
from tests.support.redis_fixtures import redis_url, shared_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.operating import Operator

__all__ = ["redis_url", "shared_redis"]


class Kubectl(Protocol):
    """Runs kubectl as the cluster's admin."""

    def __call__(
        self, *args: str, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return kubectl_of(control_plane)


def kubectl_of(control_plane: ControlPlane) -> Kubectl:
    binary, config = binaries.kubectl(), control_plane.admin_kubeconfig

    def run(*args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [binary, "--kubeconfig", config, *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)} failed: {done.stderr}{done.stdout}")
        return done

    return run


@pytest.fixture
def namespace(kubectl: Kubectl) -> str:
    """A namespace of the test's own. There is no garbage collection here: it goes with the server."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operators")


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    """One operator for the tests that do not end it."""
    install(kubectl)
    with operator(control_plane, folder) as started:
        eventually(lambda: is_ready(started))
        yield started


@pytest.fixture(scope="module")
def executor() -> Iterator[DemoProcess]:
    with demo_process("executor", "--port", "0", "--fast", "--delay-ms", "5", "--max-concurrent", "64") as process:
        yield process


@pytest.fixture(scope="module")
def slow_executor() -> Iterator[DemoProcess]:
    with demo_process("executor", "--port", "0", "--fast", "--delay-ms", "2000", "--max-concurrent", "64") as process:
        yield process


@pytest.fixture
def queue() -> Iterator[DemoProcess]:
    with demo_process("queue", "--port", "0") as process:
        yield process
