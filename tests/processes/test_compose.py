"""compose.yaml: it follows the Compose specification, and its commands work together, here as processes."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
import yaml

from demo.services.storage_worker import summarize
from devcluster.redis_server import RedisServer
from tests.support.demo_processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
START_SECONDS = 60
ENTRYPOINT = [str(Path(sys.executable).with_name("queueworker"))]
"""That of our image (Dockerfile)."""


def schema() -> dict[str, Any]:
    """The Compose specification's own schema, as check-jsonschema brings it."""
    folder = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    found: dict[str, Any] = json.loads((folder / "compose-spec.json").read_text())
    return found


def test_the_compose_file_follows_the_specification() -> None:
    jsonschema.validate(COMPOSE, schema())


def test_the_schema_finds_a_key_that_does_not_exist() -> None:
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        jsonschema.validate({"services": {"redis": {"imagee": "redis"}}}, schema())


def test_every_host_name_is_a_service() -> None:
    assert {"queue", "redis", "executor-1", "executor-2", "executor-3", "worker"} <= COMPOSE["services"].keys()
    assert COMPOSE["services"]["worker"]["environment"]["EXECUTOR_COUNT"] == "3"


class Machine:
    """One machine in place of the containers: each service has a loopback address of its own, so ports stay."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._folder = folder
        self._network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self._names = {
            "redis://redis:6379": redis_url,
            "http://queue": f"http://{self.address('queue')}",
            "http://executor": f"http://{self._network}.{{n}}:8083",
            "/tmp/": f"{folder}/",
        }

    def address(self, service: str) -> str:
        kind, _, number = service.partition("-")
        return f"{self._network}.{number if kind == 'executor' else {'queue': 101, 'worker': 102}.get(kind, 103)}"

    def here(self, text: str) -> str:
        """The text with what is reachable here in place of the names of services."""
        for name, found in self._names.items():
            text = text.replace(name, found)
        return text

    @contextmanager
    def run(self, name: str, service: dict[str, Any], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """The command of a service, as its container would run it."""
        entry = [{"python": sys.executable}.get(part, part) for part in service.get("entrypoint", ENTRYPOINT)]
        arguments = [self.here(part).replace("0.0.0.0", self.address(name)) for part in service["command"]]
        environ = {key: self.here(value) for key, value in service.get("environment", {}).items()}
        process = subprocess.Popen(
            [*entry, *arguments],
            cwd=ROOT,
            env={**os.environ, "HOST": self.address(name), **environ},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def test_its_commands_route_tasks(tmp_path: Path) -> None:
    database = tmp_path / "evaluations.db"
    with RedisServer() as redis, (tmp_path / "log").open("wb") as log, ExitStack() as stack:
        machine = Machine(redis.url, tmp_path)
        ours = {name: service for name, service in COMPOSE["services"].items() if name != "redis"}
        processes = {name: stack.enter_context(machine.run(name, service, log)) for name, service in ours.items()}

        def stored() -> int:
            ended = {name: p.returncode for name, p in processes.items() if p.poll() is not None}
            assert not ended, (tmp_path / "log").read_text()
            try:
                return summarize(database).completed
            except (FileNotFoundError, sqlite3.OperationalError):
                return 0

        wait_until(lambda: stored() >= 10, "ten tasks are stored", START_SECONDS)
        status = httpx.get(f"http://{machine.address('worker')}:8084/status", timeout=10, trust_env=False).json()
        assert status["executors"]["healthy"] == 3
