"""`queueworker selftest`, which `helm test` runs in a pod, with the rights that the chart gives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devcluster import binaries
from devcluster.server import ControlPlane
from tests.support.charts import NAME, documents, template
from tests.support.operating import eventually, install, is_ready, operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.redis_server import RedisServer

NAMESPACE = "selftest"
ACCOUNT = (NAMESPACE, f"{NAME}-test")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of this file's own, where the account of the test has the rights of the chart's hook."""
    with ControlPlane(accounts=(("queueworker-system", NAME), ACCOUNT)) as plane:
        yield plane


@pytest.fixture(scope="module")
def rights(plane: ControlPlane) -> None:
    def kubectl(*args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [binaries.kubectl(), "--kubeconfig", plane.admin_kubeconfig, *args]
        return subprocess.run(command, input=input, capture_output=True, text=True, check=check)

    install(kubectl)
    kubectl("create", "namespace", NAMESPACE)
    role = next(
        item for item in documents(template()) if item["metadata"]["name"] == f"{NAME}-test" and "rules" in item
    )
    resource, verbs = role["rules"][0]["resources"][0], ",".join(role["rules"][0]["verbs"])
    kubectl("create", "role", "test", "-n", NAMESPACE, f"--verb={verbs}", f"--resource={resource}.crucible.dev")
    kubectl("create", "rolebinding", "test", "-n", NAMESPACE, "--role=test", f"--serviceaccount={':'.join(ACCOUNT)}")


def start(plane: ControlPlane, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "queueworker.cli.main", "selftest", "--namespace", NAMESPACE, "--port", "0"]
    environment = os.environ | {"KUBECONFIG": plane.kubeconfig_for(*ACCOUNT)}
    return subprocess.Popen(
        [*command, *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.usefixtures("rights")
@pytest.mark.parametrize("with_redis", [False, True], ids=["without a Redis", "with a Redis"])
def test_the_tasks_are_routed_and_the_object_is_gone_at_the_end(
    with_redis: bool, plane: ControlPlane, shared_redis: RedisServer, tmp_path: Path
) -> None:
    more = ("--redis-url", shared_redis.url) if with_redis else ()
    with operator(plane, tmp_path) as running:
        eventually(lambda: is_ready(running))
        status, out, err = ended(start(plane, "--tasks", "12", *more))
    assert (status, err) == (0, "")
    assert "ok: 12 tasks were executed and reported once" in out
    assert out.splitlines()[-2].endswith("is deleted")


@pytest.mark.usefixtures("rights")
def test_without_an_operator_it_says_so_and_leaves_nothing(plane: ControlPlane) -> None:
    status, out, err = ended(start(plane, "--timeout", "2"))
    assert status == 1
    assert "0 of 20 tasks were reported within 2 s" in err
    assert "no operator has taken it up" in err
    assert "is deleted" in out


@pytest.mark.usefixtures("rights")
def test_ended_early_it_takes_its_object_away(plane: ControlPlane) -> None:
    process = start(plane)
    assert process.stdout is not None
    assert "is to route 20 tasks" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert (status, err) == (1, "failed: ended by SIGTERM\n")
    assert "is deleted" in out
