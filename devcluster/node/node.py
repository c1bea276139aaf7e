"""Brings the node up, and takes it down whatever happens meanwhile."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from devcluster import binaries
from devcluster.interrupts import uninterrupted
from devcluster.node import images, preflight, processes, settings, teardown, traces
from devcluster.node.layout import (
    BRIDGE,
    GATEWAY,
    GATEWAY6,
    NODE_NAME,
    SERVICE_CIDR,
    SERVICE_CIDR6,
    Layout,
)
from devcluster.ports import free_ports
from devcluster.progress import Progress, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_SECONDS = 120.0
_PORTS = (
    *("etcd", "etcd_peer", "api", "controller_manager", "scheduler"),
    *("kubelet", "kubelet_health", "proxy_metrics", "proxy_health"),
)


class NodeError(Exception):
    """The node did not come up. The message ends with the log of the program that is the reason."""


class LeftBehind(Exception):
    """The machine is not as it was before the node. The message says what is different."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the node's programs are."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    scheduler: Path
    kubelet: Path
    proxy: Path
    kubectl: Path


def programs() -> Programs:
    """Find or build them: minutes the first time. Raises `BinaryError`."""
    binaries.announce(*binaries.NODE)
    found = Programs(
        etcd=binaries.find(binaries.ETCD),
        apiserver=binaries.find(binaries.KUBE_APISERVER),
        controller_manager=binaries.find(binaries.CONTROLLER_MANAGER),
        scheduler=binaries.find(binaries.SCHEDULER),
        kubelet=binaries.find(binaries.KUBELET),
        proxy=binaries.find(binaries.KUBE_PROXY),
        kubectl=Path(binaries.kubectl()),
    )
    binaries.find(binaries.COREDNS)
    binaries.find(binaries.PAUSE)
    return found


@contextmanager
def node(layout: Layout | None = None) -> Iterator[Layout]:
    """A node for the length of the block, and no trace of it afterwards.

    Raises `CannotBeNode`, `BinaryError`, `NodeError`; `LeftBehind` if the machine is not as it was.
    """
    layout = layout or Layout()
    machine = check(layout)  # a node that is to be kept is left alone
    try:
        yield up(layout, machine)
    finally:
        with uninterrupted():  # half a node would block the next one
            say("taking the node down; Ctrl-C has no effect until that is done")
            down(layout)


def down(layout: Layout) -> None:
    """Take down a node that is there, however it was started. Ctrl-C does not stop it. Raises `LeftBehind`."""
    if not layout.folder.exists():
        return
    started = time.monotonic()
    with uninterrupted():
        differences = teardown.down(layout)
    if differences:
        raise LeftBehind("the node is down, but this machine is not as it was:\n  " + "\n  ".join(differences))
    say(f"the node is down after {time.monotonic() - started:.0f} s, and this machine is as it was before")


def check(layout: Layout) -> preflight.Machine:
    """Remove a node that a killed run left behind. Raises `CannotBeNode` if this machine cannot be a node."""
    if processes.abandoned(layout):
        say("removing a node that an earlier run left behind")
        with uninterrupted():
            teardown.down(layout)
    return preflight.check(layout)


def up(layout: Layout, machine: preflight.Machine, *, keep: bool = False) -> Layout:
    """Return when the node is Ready. On failure what was started stays: `down` removes it.
    With `keep` the node is meant to outlive this process.

    `machine` is what `check` returned. Raises `BinaryError`, `NodeError`.
    """
    found = programs()
    started = time.monotonic()
    before = traces.capture(layout)
    for folder in (layout.logs, layout.pids, layout.certificates, layout.folder / "cni" / "net.d"):
        folder.mkdir(parents=True, mode=0o700)
    traces.save(layout, before)
    if not keep:
        processes.record_owner(layout)
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    _make_bridge(machine)
    _start_containerd(layout, machine)
    _start_apiserver(layout, found, ports, _services(machine))
    _start_controllers(layout, found, ports, _services(machine))
    _await("containerd answers", layout, layout.socket.exists)
    images.write_pause(layout.folder / "pause.tar")
    images.load(layout, layout.folder / "pause.tar")
    _start_node(layout, found, ports, machine)
    _await("the node is Ready", layout, lambda: _is_ready(layout, found))
    say(f"the node is Ready after {time.monotonic() - started:.0f} s")
    return layout


def _services(machine: preflight.Machine) -> str:
    return settings.both(SERVICE_CIDR, SERVICE_CIDR6, dual_stack=machine.dual_stack)


def _make_bridge(machine: preflight.Machine) -> None:
    """It is made here and not by the first pod, because API server, kubelet and CoreDNS listen on its address."""
    address = ("ip", "address", "add")
    ipv6 = [(*address, f"{GATEWAY6}/64", "dev", BRIDGE, "nodad")] if machine.dual_stack else []
    for command in (
        ("ip", "link", "add", BRIDGE, "type", "bridge"),
        (*address, f"{GATEWAY}/16", "dev", BRIDGE),
        *ipv6,
        ("ip", "link", "set", BRIDGE, "up"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NodeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    if machine.dual_stack:
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def _start_containerd(layout: Layout, machine: preflight.Machine) -> None:
    layout.network.write_text(settings.network(layout, dual_stack=machine.dual_stack))
    config = layout.folder / "containerd.toml"
    config.write_text(settings.containerd(layout, machine.plugins))
    processes.start(layout, "containerd", ["containerd", "--config", str(config)])


def _start_apiserver(layout: Layout, found: Programs, ports: dict[str, int], services: str) -> None:
    token = secrets.token_urlsafe(24)
    layout.tokens.touch(mode=0o600)
    layout.tokens.write_text(f"{token},admin,admin,system:masters\n")
    policy = layout.folder / "audit-policy.yaml"
    policy.write_text(settings.AUDIT_POLICY)
    etcd, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['etcd_peer']}"
    processes.start(
        layout,
        "etcd",
        [
            str(found.etcd),
            *("--data-dir", str(layout.folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *(
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
                "--initial-cluster",
                f"default={peer}",
            ),
        ],
    )
    key = str(layout.certificates / "apiserver.key")  # the server creates it before it reads it
    processes.start(
        layout,
        "kube-apiserver",
        [
            str(found.apiserver),
            *("--etcd-servers", etcd, "--cert-dir", str(layout.certificates)),
            *("--bind-address", GATEWAY, "--advertise-address", GATEWAY, "--secure-port", str(ports["api"])),
            *("--service-account-key-file", key, "--service-account-signing-key-file", key),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--token-auth-file", str(layout.tokens), "--authorization-mode", "RBAC"),
            *("--service-cluster-ip-range", services, "--allow-privileged"),
            *("--kubelet-preferred-address-types", "InternalIP"),
            *("--enable-admission-plugins", "OwnerReferencesPermissionEnforcement"),  # as OpenShift has it
            *("--audit-policy-file", str(policy), "--audit-log-path", str(layout.logs / "audit.log")),
        ],
    )
    url = f"https://{GATEWAY}:{ports['api']}"
    _await("kube-apiserver is ready", layout, lambda: _answers(layout, url))
    layout.kubeconfig.touch(mode=0o600)
    layout.kubeconfig.write_text(settings.kubeconfig(url, token, layout.ca_file.read_bytes()))


def _start_controllers(layout: Layout, found: Programs, ports: dict[str, int], services: str) -> None:
    common = ("--kubeconfig", str(layout.kubeconfig), "--leader-elect=false")
    processes.start(
        layout,
        "kube-controller-manager",
        [
            *(str(found.controller_manager), *common, "--secure-port", str(ports["controller_manager"])),
            *("--cert-dir", str(layout.certificates / "controller-manager")),
            *("--service-account-private-key-file", str(layout.certificates / "apiserver.key")),
            *("--root-ca-file", str(layout.ca_file)),
            *("--flex-volume-plugin-dir", str(layout.folder / "volume-plugins")),
            *("--service-cluster-ip-range", services),
            *("--horizontal-pod-autoscaler-sync-period", "3s"),  # tests wait for it
        ],
    )
    processes.start(
        layout,
        "kube-scheduler",
        [
            *(str(found.scheduler), *common, "--secure-port", str(ports["scheduler"])),
            *("--cert-dir", str(layout.certificates / "scheduler")),
        ],
    )


def _start_node(layout: Layout, found: Programs, ports: dict[str, int], machine: preflight.Machine) -> None:
    dual_stack = machine.dual_stack
    files = {
        "kubelet.yaml": settings.kubelet(layout, ports["kubelet"], ports["kubelet_health"]),
        "kube-proxy.yaml": settings.kube_proxy(
            layout, ports["proxy_metrics"], ports["proxy_health"], dual_stack=dual_stack
        ),
        "Corefile": settings.corefile(layout),
    }
    for name, text in files.items():
        (layout.folder / name).write_text(text)
    processes.start(
        layout,
        "kubelet",
        [
            *(str(found.kubelet), "--config", str(layout.folder / "kubelet.yaml")),
            *("--kubeconfig", str(layout.kubeconfig), "--root-dir", str(layout.folder / "kubelet")),
            *("--cert-dir", str(layout.certificates / "kubelet")),
            *("--hostname-override", NODE_NAME, "--node-ip", settings.both(GATEWAY, GATEWAY6, dual_stack=dual_stack)),
        ],
    )
    processes.start(layout, "kube-proxy", [str(found.proxy), "--config", str(layout.folder / "kube-proxy.yaml")])
    start_dns(layout)


def start_dns(layout: Layout) -> None:
    command = [str(binaries.find(binaries.COREDNS)), "-conf", str(layout.folder / "Corefile")]
    processes.start(layout, "coredns", command)


def stop_dns(layout: Layout) -> None:
    """Names of the cluster cannot be looked up until `start_dns`."""
    processes.end(layout, "coredns")


def _answers(layout: Layout, url: str) -> bool:
    """True if the server is ready; `/readyz` may be read by anyone."""
    if not layout.ca_file.exists():
        return False
    try:
        trust = ssl.create_default_context(cafile=str(layout.ca_file))
        return httpx.get(f"{url}/readyz", verify=trust, timeout=2, trust_env=False).status_code == 200
    except (httpx.HTTPError, OSError):
        return False


def _is_ready(layout: Layout, found: Programs) -> bool:
    """The node, and the service account that every pod of the namespace `default` needs."""
    kubectl = (str(found.kubectl), "--kubeconfig", str(layout.kubeconfig), "--request-timeout=5s", "get", "-o", "json")
    answers = [
        subprocess.run([*kubectl, *what], capture_output=True, text=True, check=False)
        for what in (("node", NODE_NAME), ("serviceaccount", "default", "-n", "default"))
    ]
    if any(answer.returncode != 0 for answer in answers):
        return False
    conditions = json.loads(answers[0].stdout)["status"].get("conditions", [])
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def _await(what: str, layout: Layout, condition: Callable[[], bool]) -> None:
    """Raises `NodeError` if a program ends, or if the condition does not hold in time."""
    with Progress(f"waiting until {what}") as progress:
        while not condition():
            names = sorted(path.name for path in layout.pids.iterdir())
            ended = next((name for name in names if not processes.running(layout, name)), None)
            if ended is not None:
                raise NodeError(f"{ended} ended. Its log:\n{_tail(layout, ended)}")
            if progress.seconds > READY_SECONDS:
                logs = "\n".join(f"{name}:\n{_tail(layout, name)}" for name in names)
                raise NodeError(f"gave up waiting until {what}, after {READY_SECONDS:.0f} s. The logs:\n{logs}")
            progress.tick()
            time.sleep(0.1)


def _tail(layout: Layout, name: str) -> str:
    return (layout.logs / f"{name}.log").read_text(errors="replace")[-1500:]
