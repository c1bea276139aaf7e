"""A real kube-apiserver with etcd, as in envtest, with RBAC and an audit log; it leaves nothing behind."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from devcluster import binaries
from devcluster.ports import free_ports
from devcluster.progress import Progress
from devcluster.spawning import end, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

__all__ = ["ESTABLISHED", "OPERATOR_ACCOUNT", "ControlPlane", "ControlPlaneError", "free_ports"]

READY_SECONDS = 90.0
ESTABLISHED = '--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True'
"""For `kubectl wait`: `condition=Established` fails for a CRD that was made this moment and has no conditions yet."""
OPERATOR_ACCOUNT = ("queueworker-system", "queueworker-operator")

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlaneError(Exception):
    """The control plane did not start. The message ends with its log."""


class ControlPlane:
    """etcd and kube-apiserver on free ports of the loopback, with tokens for the service accounts in `accounts`.

    There is no controller-manager: no garbage collection, and no EndpointSlices but those that a test creates. It can
    be started once; `stop` deletes everything. All methods block, and may be called from any thread.
    """

    def __init__(self, accounts: Sequence[tuple[str, str]] = (OPERATOR_ACCOUNT,)) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="control-plane-")
        self.folder = Path(self._folder.name)
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self._tokens = {"admin": secrets.token_urlsafe(24)}
        for namespace, name in accounts:
            self._tokens[_user(namespace, name)] = secrets.token_urlsafe(24)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The server's self-signed certificate."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def admin_kubeconfig(self) -> str:
        return self._kubeconfig("admin", "default")

    def kubeconfig_for(self, namespace: str, name: str) -> str:
        """A kubeconfig for one of `accounts`. Raises KeyError for any other service account."""
        return self._kubeconfig(_user(namespace, name), namespace)

    def token_for(self, namespace: str, name: str) -> str:
        """The bearer token of one of `accounts`. Raises KeyError for any other service account."""
        return self._tokens[_user(namespace, name)]

    def rotate_token(self, namespace: str, name: str) -> None:
        """Give the service account another token; the API server takes it from its next start on."""
        self._tokens[_user(namespace, name)] = secrets.token_urlsafe(24)
        self._write_tokens()

    def start(self) -> Self:
        """Return when the server is ready. Raises `ControlPlaneError`, or `BinaryError` if a binary is missing."""
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
        """Start the API server. After `stop_apiserver` it has the same port and the same objects."""
        key = str(self.folder / "certs" / "apiserver.key")  # the server creates it before it reads it
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
                *("--service-cluster-ip-range", "10.0.0.0/24,fd00:10::/112", "--endpoint-reconciler-type", "none"),
                *("--disable-admission-plugins", "ServiceAccount"),
                *("--enable-admission-plugins", "OwnerReferencesPermissionEnforcement"),  # as OpenShift has it
                *("--audit-policy-file", str(self.folder / "audit-policy.yaml")),
                *("--audit-log-path", str(self.audit_log)),
            ],
        )
        self._await_ready()

    def stop_apiserver(self) -> None:
        """Stop the API server; etcd keeps the objects."""
        self._end("kube-apiserver")

    def compact(self) -> None:
        """Have etcd forget what was before now, as it is told by an API server every five minutes."""
        url = f"http://127.0.0.1:{self._etcd_port}/v3/kv"
        found = httpx.post(f"{url}/range", json={"key": "AA=="}, trust_env=False).raise_for_status()
        revision = found.json()["header"]["revision"]
        told = {"revision": revision, "physical": True}
        httpx.post(f"{url}/compaction", json=told, trust_env=False).raise_for_status()

    def stop(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            self._end(name)
        self._folder.cleanup()

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """The calls answered so far, as `audit.k8s.io/v1` Events."""
        for line in self.audit_log.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the last line may be incomplete
                continue

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_files(self) -> None:
        (self.folder / "certs").mkdir()
        (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY))
        self._write_tokens()

    def _write_tokens(self) -> None:
        lines = []
        for user, token in self._tokens.items():
            groups = ["system:masters"] if user == "admin" else _account_groups(user)
            lines.append(f'{token},{user},{user},"{",".join(groups)}"\n')
        (self.folder / "tokens.csv").write_text("".join(lines))

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
            self._processes[name] = spawn(command, log)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            end(process)

    def _await_ready(self) -> None:
        with Progress("waiting for kube-apiserver to be ready") as progress:
            while progress.seconds < READY_SECONDS:
                for name, process in self._processes.items():
                    if process.poll() is not None:
                        said = f"{name} ended with {process.returncode}. Its log:\n{self._tail(name)}"
                        raise ControlPlaneError(said)
                if self.ca_file.exists() and self._is_ready():
                    return
                progress.tick()
                time.sleep(0.1)
        raise ControlPlaneError(f"kube-apiserver was not ready in time. Its log:\n{self._tail('kube-apiserver')}")

    def _is_ready(self) -> bool:
        try:
            trust = ssl.create_default_context(cafile=str(self.ca_file))
            headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
            url = f"{self.url}/readyz"
            return httpx.get(url, verify=trust, headers=headers, timeout=2, trust_env=False).status_code == 200
        except (httpx.HTTPError, OSError):
            return False

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]


def _user(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def _account_groups(user: str) -> list[str]:
    namespace = user.split(":")[2]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
