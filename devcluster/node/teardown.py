"""Takes the node down and puts the machine back as it was. Each step may be repeated, and none needs the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.node import processes, traces
from devcluster.node.layout import BRIDGE
from devcluster.progress import say

if TYPE_CHECKING:
    from devcluster.node.layout import Layout
    from devcluster.node.traces import Traces

# In the order in which they are ended.
_PROGRAMS = (
    *("kubelet", "kube-scheduler", "kube-controller-manager", "coredns", "kube-proxy", "containerd"),
    *("kube-apiserver", "etcd"),
)
_OURS = ("KUBE-", "CNI-", "10.213.", "fd00:10:213:", BRIDGE)


def down(layout: Layout) -> list[str]:
    """Remove the node. Returns what is different from before it was made; empty if nothing is, or there is no node."""
    if not layout.folder.exists():
        return []
    before = traces.load(layout)
    _end_programs(layout)
    sockets = _shim_sockets(layout)
    processes.kill(processes.shims(layout))
    _remove_rules()
    if before is not None:
        _remove_network(before)
    _unmount(layout)
    for socket in sockets:
        socket.unlink(missing_ok=True)
    if before is not None:
        _remove_tables(before)
        _remove_cgroups(before)
        _remove_files(before)
        _restore_sysctls(before)
    left = _mounted(layout)
    if left:
        return [f"mounts: left {mount}" for mount in left]  # what is mounted must not be deleted
    shutil.rmtree(layout.folder)
    return [] if before is None else traces.differences(before, traces.capture(layout))


def _end_programs(layout: Layout) -> None:
    for name in _PROGRAMS:
        processes.end(layout, name)
    processes.kill(processes.strays(layout, _PROGRAMS))


def _shim_sockets(layout: Layout) -> list[Path]:
    """Each container's shim listens below /run/containerd/s; its folder has the address."""
    addresses = (layout.folder / "containerd" / "state").glob("io.containerd.runtime.v2.task/*/*/address")
    return [Path(address.read_text().removeprefix("unix://")) for address in addresses]


def _remove_rules() -> None:
    """Put all rules of iptables back but those of the node."""
    for tool in ("iptables", "ip6tables"):
        lines = traces.output(f"{tool}-save").splitlines(keepends=True)
        rest = [line for line in lines if not any(word in line for word in _OURS)]
        if rest != lines:
            traces.output(f"{tool}-restore", text="".join(rest))


def _remove_tables(before: Traces) -> None:
    """Tables that iptables made in nftables are left empty. Without `nft` they stay; they have no effect."""
    new = set(traces.output("nft", "list", "tables").splitlines()) - set(before["tables"])
    if traces.rules():
        return
    for line in new:
        _, family, name = line.split()
        if name in {"filter", "mangle", "nat", "raw"}:
            traces.output("nft", "delete", "table", family, name)


def _remove_network(before: Traces) -> None:
    for name in {path.name for path in Path("/sys/class/net").iterdir()} - set(before["interfaces"]):
        if name == BRIDGE or _is_on_bridge(name):
            traces.output("ip", "link", "delete", name)
    for path in _new_files(before, "/run/netns"):
        if path.name.startswith("cni-"):
            traces.output("ip", "netns", "delete", path.name)


def _is_on_bridge(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/master").resolve().name == BRIDGE


def _mounted(layout: Layout) -> list[str]:
    """Mount points in the node's folder, the innermost first."""
    within = [mount for mount in traces.mounts() if Path(mount).is_relative_to(layout.folder)]
    return sorted(within, key=len, reverse=True)


def _unmount(layout: Layout) -> None:
    for mount in _mounted(layout):
        if subprocess.run(["umount", mount], check=False, capture_output=True).returncode != 0:
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def _remove_cgroups(before: Traces) -> None:
    for group in {str(path) for path in traces.cgroups()} - set(before["cgroups"]):
        if Path(group).name in {"k8s.io", "kubepods"}:
            for inner, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(inner)


def _remove_files(before: Traces) -> None:
    """Folders whose place cannot be chosen, unless they were there before."""
    for link in (path for path in _new_files(before, "/var/log/containers") if path.is_symlink()):
        link.unlink()
    for folder in (
        "/var/lib/cni",
        "/var/lib/kubelet",
        "/var/log/containers",
        "/var/log/pods",
        "/run/netns",
        "/etc/cni",
    ):
        if folder not in before["files"]:
            shutil.rmtree(folder, ignore_errors=True)
    for path in (*_new_files(before, "/var/lib/cni"), *_new_files(before, "/var/lib/kubelet")):
        shutil.rmtree(path, ignore_errors=True)
    for folder in ("/run/containerd/s", "/run/containerd"):  # a container engine that came later may use them
        if folder not in before["files"]:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _new_files(before: Traces, folder: str) -> list[Path]:
    path = Path(folder)
    return [inner for inner in path.iterdir() if str(inner) not in before["files"]] if path.is_dir() else []


def _restore_sysctls(before: Traces) -> None:
    now = traces.sysctls()
    for line in before["sysctls"]:
        name, _, value = line.partition("=")
        if now.get(name) != value:
            try:
                (Path("/proc/sys") / name).write_text(value)
            except OSError as error:
                say(f"cannot set the sysctl {name} back to {value}: {error.strerror}")
