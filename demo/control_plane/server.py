"""A real kube-apiserver with its etcd, as envtest runs them: RBAC on, every call audited, nothing left behind."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from demo.children import die_with_parent
from demo.control_plane import binaries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

READY_SECONDS = 90.0
OPERATOR_ACCOUNT = ("queueworker-system", "queueworker-operator")

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlaneError(Exception):
    """The control plane did not come up. The message ends with what it said last."""


class ControlPlane:
    """etcd and kube-apiserver on free ports of the loopback, in a folder of their own, with the tokens of `accounts`.

    There is no controller-manager, so no garbage collection and no endpoint slices but those that a test writes.
    """

    def __init__(self, accounts: Sequence[tuple[str, str]] = (OPERATOR_ACCOUNT,)) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="control-plane-")
        self.folder = Path(self._folder.name)
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self._tokens = {"admin": secrets.token_urlsafe(24)}
        for namespace, name in accounts:
            self._tokens[f"system:serviceaccount:{namespace}:{name}"] = secrets.token_urlsafe(24)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The certificate that the server made for itself: it is its own authority."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def admin_kubeconfig(self) -> str:
        return self._kubeconfig("admin", "default")

    def kubeconfig_for(self, namespace: str, name: str) -> str:
        """A kubeconfig of that service account, one of `accounts`."""
        return self._kubeconfig(f"system:serviceaccount:{namespace}:{name}", namespace)

    def start(self) -> Self:
        """Return when the server is ready. Raises `ControlPlaneError`, or `BinaryError` when a binary cannot be had."""
        self._write_files()
        etcd_url = f"http://127.0.0.1:{self._etcd_port}"
        peer_url = f"http://127.0.0.1:{self._peer_port}"
        try:
            self._run(
                "etcd",
                [
                    str(binaries.find(binaries.ETCD)),
                    *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
                    *("--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url),
                    *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
                    *("--initial-cluster", f"default={peer_url}"),
                ],
            )
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise
        return self

    def start_apiserver(self) -> None:
        """Start the API server; after `stop_apiserver`, on the same port and with the same objects."""
        key = str(self.folder / "sa.key")
        self._run(
            "kube-apiserver",
            [
                str(binaries.find(binaries.KUBE_APISERVER)),
                *("--etcd-servers", f"http://127.0.0.1:{self._etcd_port}"),
                *("--bind-address", "127.0.0.1", "--secure-port", str(self._port)),
                *("--cert-dir", str(self.folder / "certs")),
                *("--service-account-key-file", key, "--service-account-signing-key-file", key),
                *("--service-account-issuer", "https://kubernetes.default.svc"),
                *("--token-auth-file", str(self.folder / "tokens.csv"), "--authorization-mode", "RBAC"),
                *("--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none"),
                *("--disable-admission-plugins", "ServiceAccount"),
                *("--audit-policy-file", str(self.folder / "audit-policy.yaml")),
                *("--audit-log-path", str(self.audit_log)),
            ],
        )
        self._await_ready()

    def stop_apiserver(self) -> None:
        """Take the API server away; etcd keeps what it knows."""
        self._end("kube-apiserver")

    def stop(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            self._end(name)
        self._folder.cleanup()

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """The calls that were answered so far, as `audit.k8s.io/v1` Events."""
        for line in self.audit_log.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the line that is being written
                continue

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_files(self) -> None:
        (self.folder / "certs").mkdir()
        (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY))
        lines = []
        for user, token in self._tokens.items():
            groups = ["system:masters"] if user == "admin" else _account_groups(user)
            lines.append(f'{token},{user},{user},"{",".join(groups)}"\n')
        (self.folder / "tokens.csv").write_text("".join(lines))
        subprocess.run(
            ["openssl", "genrsa", "-out", str(self.folder / "sa.key"), "2048"], check=True, capture_output=True
        )

    def _kubeconfig(self, user: str, namespace: str) -> str:
        path = self.folder / f"kubeconfig-{user.replace(':', '-')}"
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(self.ca_file.read_bytes()).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "queueworker",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [
                {"name": "queueworker", "context": {"cluster": "local", "user": user, "namespace": namespace}}
            ],
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return str(path)

    def _run(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for us: we end it in our order
                preexec_fn=die_with_parent,
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise ControlPlaneError(f"{name} ended with {process.returncode}. It said:\n{self._tail(name)}")
            if self.ca_file.exists() and self._is_ready():
                return
            time.sleep(0.1)
        raise ControlPlaneError(f"kube-apiserver was not ready in time. It said:\n{self._tail('kube-apiserver')}")

    def _is_ready(self) -> bool:
        try:
            trust = ssl.create_default_context(cafile=str(self.ca_file))
            headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
            return httpx.get(f"{self.url}/readyz", verify=trust, headers=headers, timeout=2).status_code == 200
        except (httpx.HTTPError, OSError):
            return False

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]


def _account_groups(user: str) -> list[str]:
    namespace = user.split(":")[2]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def free_ports(count: int) -> list[int]:
    """Distinct ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
