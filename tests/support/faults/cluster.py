"""Operators on a real API server, which route for a rig's queue and executors."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from devcluster.server import OPERATOR_ACCOUNT
from queueworker.resource.names import SERVICE_NAME_LABEL
from tests.support.faults.proxy import Proxy
from tests.support.operating import operator, worker
from tests.support.worker_processes import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl
    from tests.support.faults.rig import Rig, Site

START_SECONDS = 90
"""Upper bound for a state that an operator is to reach."""


class Cluster:
    """The API server for one case: a namespace of its own, and a proxy that can be cut."""

    def __init__(self, rig: Rig, plane: ControlPlane, kubectl: Kubectl, namespace: str, folder: Path) -> None:
        self.rig = rig
        self.plane = plane
        self.kubectl = kubectl
        self.namespace = namespace
        self.folder = folder

    def way(self) -> Proxy:
        """A proxy to the API server, whose certificate is for 127.0.0.1."""
        proxy = Proxy(("127.0.0.1", int(self.plane.url.rpartition(":")[2])))
        proxy.host = "127.0.0.1"
        return proxy

    def apply(self, **more: Any) -> None:
        """The object, for the rig's queue, executors and Redis. A field in `more` that is None is left out."""
        spec = {
            "queue": {"url": self.rig.queue.proxy.url},
            "events": {"redisURL": self.rig.environ["REDIS_URL"]},
            "executors": {"endpoints": [site.proxy.url for site in self.rig.executors], "concurrency": 2},
        }
        for name, value in more.items():
            spec[name] = {key: given for key, given in (spec.get(name, {}) | value).items() if given is not None}
        self.kubectl("apply", "-n", self.namespace, "-f", "-", input=worker("legacy", **spec))

    def apply_slice(self, site: Site, service: str = "executor") -> str:
        """An EndpointSlice of the Service, with a port `http` that leads to this executor. Returns its name.

        The API server takes no loopback address in one, but a name that is read as such an address.
        """
        first, _, rest = site.proxy.host.partition(".")
        name = f"{service}-{site.proxy.port}"
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {SERVICE_NAME_LABEL: service}},
            "addressType": "FQDN",
            "ports": [{"name": "http", "port": site.proxy.port}],
            "endpoints": [{"addresses": [f"{int(first):#x}.{rest}"], "conditions": {"ready": True}}],
        }
        self.kubectl("apply", "-n", self.namespace, "-f", "-", input=yaml.safe_dump(body))
        return name

    @asynccontextmanager
    async def operator(
        self, way: Proxy | None = None, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[WorkerProcess]:
        """An operator for this namespace alone, as a process with a log and metrics."""
        config = Path(self.plane.kubeconfig_for(*OPERATOR_ACCOUNT))
        if way is not None:
            config = self.folder / f"kubeconfig-{way.port}"
            direct = Path(self.plane.kubeconfig_for(*OPERATOR_ACCOUNT)).read_text()
            config.write_text(direct.replace(self.plane.url, f"https://{way.netloc}"))
        started = operator(
            self.plane,
            self.folder,
            *("--lease-name", f"lease-{self.namespace}", "--namespace", self.namespace),
            environment={"KUBECONFIG": str(config), **(environ or {})},
        )
        running = await asyncio.to_thread(started.__enter__)
        try:
            with running.log.open("rb") as log:
                process = WorkerProcess(running.process, log, running.url)
                await self.says(process, "")
                yield process
        finally:
            if running.process.poll() is None:
                running.process.kill()
            await asyncio.to_thread(started.__exit__, None, None, None)

    async def says(self, process: WorkerProcess, text: str) -> None:
        """Return when the operator's `/readyz` contains the text."""
        said = ""
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < deadline:
                try:
                    said = (await client.get(f"{process.url}/readyz")).text
                except httpx.HTTPError:
                    assert process.process.poll() is None, process.log()
                else:
                    if text in said:
                        return
                await asyncio.sleep(0.1)
        raise AssertionError(f"an operator did not say {text!r}, but {said!r}\n{process.log()[-6000:]}")

    async def pulls(self, process: WorkerProcess) -> None:
        """Return when a router of this operator has pulled a task."""
        async with asyncio.timeout(60):
            while not (await self.rig.metrics(process)).get("queueworker_tasks_pulled_total"):
                await asyncio.sleep(0.1)

    async def clock_of(self, process: WorkerProcess) -> float:
        """The operator's wall clock: Unix time in whole seconds."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return parsedate_to_datetime((await client.get(f"{process.url}/livez")).headers["date"]).timestamp()

    def take_lease(self, holder: str) -> None:
        """Write another holder into the Lease; a patch without a resource version, which no renewal can refuse."""
        patch = json.dumps({"spec": {"holderIdentity": holder}})
        lease = ("lease", f"lease-{self.namespace}", "-n", OPERATOR_ACCOUNT[0])
        self.kubectl("patch", *lease, "--type=merge", "--patch", patch)
