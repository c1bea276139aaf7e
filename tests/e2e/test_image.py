"""The image, built and run by a real container engine, against the demo's queue and executor.

Skipped, with the reason, where no engine answers and none can be started.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
import yaml

from devcluster import binaries
from devcluster.redis_server import RedisServer
from devcluster.server import OPERATOR_ACCOUNT, ControlPlane, free_ports
from queueworker import __version__
from tests.support.accounts import check_account
from tests.support.demo_processes import demo_process, wait_until
from tools.container_engine import Engine, EngineUnavailable, engine
from tools.image import build, default_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
KEY = "a-key"
TASKS = [f"task-{number}" for number in range(30)]
DRAIN_SECONDS = 40
# What `restricted` pod security gives a container, and `readOnlyRootFilesystem`.
CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


@pytest.fixture(scope="module")
def container_engine() -> Iterator[Engine]:
    try:
        with engine() as found:
            yield found
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def image(container_engine: Engine) -> str:
    build(container_engine, default_tag())
    return default_tag()


class Container:
    def __init__(self, engine: Engine, name: str, port: int) -> None:
        self._engine, self._name, self.port = engine, name, port

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10, trust_env=False)

    def answers(self, path: str) -> bool:
        """Whether it answers 200. Raises AssertionError with its log when it has ended."""
        assert self.state()["Running"], f"the container ended: {self.log()}"
        try:
            return self.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._engine.run("inspect", self._name).stdout)[0]["State"]
        return state

    def log(self) -> str:
        done = self._engine.run("logs", self._name)
        return done.stdout + done.stderr

    def stop(self) -> int:
        """SIGTERM, as Kubernetes and `docker stop` do it; the exit status, 137 for one that had to be killed."""
        self._engine.run("stop", "--time", str(DRAIN_SECONDS), self._name)
        status: int = self.state()["ExitCode"]
        return status


@contextmanager
def container(
    engine: Engine, image: str, port: int, *options: str, command: tuple[str, ...] = ()
) -> Iterator[Container]:
    """On the host's network, so that `port` is the host's; gone after the block, and its log shown when that fails."""
    name = f"qw-test-{uuid4().hex[:8]}"
    engine.run("run", "--detach", "--name", name, "--network", "host", *CONFINED, *options, image, *command)
    running = Container(engine, name, port)
    try:
        yield running
    except BaseException:
        print(running.log()[-5000:])
        raise
    finally:
        engine.run("rm", "--force", name, check=False)


def service_account(plane: ControlPlane, folder: Path) -> Path:
    """What the kubelet puts into a pod of the operator's account."""
    config = yaml.safe_load(Path(plane.kubeconfig_for(*OPERATOR_ACCOUNT)).read_text())
    account = folder / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(config["users"][0]["user"]["token"])
    (account / "ca.crt").write_bytes(plane.ca_file.read_bytes())
    (account / "namespace").write_text(OPERATOR_ACCOUNT[0])
    for path in (*account.iterdir(), account):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))  # the image's user is not ours
    return account


def test_with_the_legacy_environment_it_routes_every_task_once_and_ends_cleanly(
    container_engine: Engine, image: str
) -> None:
    port = free_ports(1)[0]
    with (
        RedisServer() as redis,
        demo_process("queue", "--port", "0", "--api-key", KEY) as queue,
        demo_process("executor", "--port", "0") as executor,
        queue.client(headers={"X-API-Key": KEY}) as client,
    ):
        for eval_id in TASKS:
            client.post("/tasks", json={"eval_id": eval_id, "code": "print(6 * 7)"}).raise_for_status()
        environment = {
            "QUEUE_SERVICE_URL": queue.url,
            "QUEUE_API_KEY": KEY,
            "REDIS_URL": redis.url,
            "EXECUTOR_COUNT": "1",
            "EXECUTOR_BASE_URL": "http://executor",
            "EXECUTOR_PORT": executor.url.rpartition(":")[2],
            "HOSTNAME": "worker-7",
            "PORT": str(port),
        }
        options = [part for item in environment.items() for part in ("--env", "=".join(item))]
        with container(container_engine, image, port, "--add-host", "executor-1:127.0.0.1", *options) as worker:
            wait_until(lambda: worker.answers("/readyz"), "the worker is ready", 30)
            wait_until(lambda: client.get("/account").json()["completed"] == len(TASKS), "all tasks completed", 60)
            process = Path(f"/proc/{worker.state()['Pid']}/status").read_text() if container_engine.private else ""
            status, health, docs = worker.get("/status").json(), worker.get("/health").json(), worker.get("/docs")
            assert worker.stop() == 0
            assert f"{len(TASKS)} tasks were routed" in worker.log()
        account = client.get("/account").json()
    check_account(account, handed_out=len(TASKS), reported_twice=0, failed=0)
    assert (status["worker_id"], status["tasks_routed"]) == ("worker-7", len(TASKS))
    assert status["executors"]["health"] == {f"http://executor-1:{environment['EXECUTOR_PORT']}": True}
    assert (health["status"], health["service"]) == ("healthy", "queue-worker")
    assert docs.status_code == 200
    if process:
        fields = dict(line.split(":\t", 1) for line in process.splitlines())
        assert Counter(fields["Uid"].split()) == {"65532": 4}
        assert int(fields["CapEff"], 16) == 0


def test_the_operator_runs_in_it_as_the_deployment_says(container_engine: Engine, image: str, tmp_path: Path) -> None:
    """With the manifests' arguments and rights, and a read-only root: it comes to lead, and says that it is ready."""
    deployment = yaml.safe_load((ROOT / "manifests" / "operator" / "deployment.yaml").read_text())
    declared = deployment["spec"]["template"]["spec"]["containers"][0]
    assert declared["image"] == image
    port = free_ports(1)[0]
    with ControlPlane() as plane:
        apply = (
            binaries.kubectl(),
            "--kubeconfig",
            plane.admin_kubeconfig,
            "apply",
            "--server-side",
            "-k",
            "manifests/default",
        )
        subprocess.run(apply, cwd=ROOT, check=True, capture_output=True)
        account = service_account(plane, tmp_path)
        host, _, api_port = plane.url.removeprefix("https://").partition(":")
        with container(
            container_engine,
            image,
            port,
            *("--volume", f"{account}:/var/run/secrets/kubernetes.io/serviceaccount:ro"),
            *("--env", f"KUBERNETES_SERVICE_HOST={host}", "--env", f"KUBERNETES_SERVICE_PORT={api_port}"),
            command=(*declared["args"], "--port", str(port)),
        ) as operator:
            wait_until(
                lambda: operator.answers("/readyz") and "leading" in operator.get("/readyz").text, "it leads", 30
            )
            for probe in ("livenessProbe", "readinessProbe"):
                assert operator.get(declared[probe]["httpGet"]["path"]).status_code == 200
            assert operator.stop() == 0
        refused = [event for event in plane.audit_events() if event["responseStatus"]["code"] == 403]
    assert refused == []


def test_a_bad_variable_ends_it_with_a_line_that_names_it(container_engine: Engine, image: str) -> None:
    done = container_engine.run("run", "--rm", "--env", "EXECUTOR_COUNT=many", image, check=False)
    assert done.returncode == 2
    assert "EXECUTOR_COUNT" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_says_what_it_is(container_engine: Engine, image: str) -> None:
    config = json.loads(container_engine.run("image", "inspect", image).stdout)[0]["Config"]
    assert config["User"] == "65532:65532", "numeric: runAsNonRoot is checked without reading /etc/passwd"
    assert config["Cmd"] == ["worker"]
    assert config["ExposedPorts"] == {"8084/tcp": {}}
    assert config["Healthcheck"]["Test"] == ["CMD", "queueworker", "healthcheck"]
    kept = ("--entrypoint", "python", image, "-c", "import httpx")  # a health check of the legacy container
    assert container_engine.run("run", "--rm", *kept, check=False).returncode == 0
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert container_engine.run("run", "--rm", image, "version").stdout.strip() == __version__


def test_it_has_no_pip_and_no_tests_of_other_projects(container_engine: Engine, image: str) -> None:
    program = "import pathlib; print(*(path.name for path in pathlib.Path('/opt').rglob('*') if path.is_dir()))"
    folders = container_engine.run("run", "--rm", "--entrypoint", "python", image, "-c", program).stdout.split()
    assert "site-packages" in folders
    assert {"pip", "tests"} & set(folders) == set()


_TIMES = """
import pathlib
paths = [*pathlib.Path("/opt").rglob("*"), pathlib.Path("/opt")]
print(*(path for path in paths if path.lstat().st_mtime))
print(*(path for path in paths if path.suffix == ".pyc" and not path.read_bytes()[4]))
"""


def test_no_file_of_ours_holds_a_time_so_the_same_input_makes_the_same_layer(
    container_engine: Engine, image: str
) -> None:
    """`make reproduce` compares two builds, which takes longer. Byte 4 of a .pyc is 0 if it holds a time (PEP 552)."""
    done = container_engine.run("run", "--rm", "--entrypoint", "python", image, "-c", _TIMES)
    assert done.stdout.split() == []


def test_the_wheel_is_built_with_what_the_developers_have() -> None:
    """requirements-build.txt is part of requirements-dev.txt, hash for hash."""
    build_lines, dev_lines = (
        {line.strip() for line in (ROOT / name).read_text().splitlines() if line.strip() and "#" not in line}
        for name in ("requirements-build.txt", "requirements-dev.txt")
    )
    assert any(line.startswith("hatchling==") for line in build_lines)
    assert build_lines <= dev_lines, "make it again, as its first lines say"
