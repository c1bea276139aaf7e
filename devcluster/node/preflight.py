"""Checks that this machine can be a node; the error says why it cannot, in one sentence."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.node import traces
from devcluster.node.layout import POD_CIDR, SERVICE_CIDR
from devcluster.packages import PackagesMissing, need

if TYPE_CHECKING:
    from devcluster.node.layout import Layout

# Commands that the node needs, with Debian's packages.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "mount": "mount",
}
_PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
MIN_FREE_BYTES = 4 * 2**30
_PROBE = "qw-probe"


class CannotBeNode(Exception):
    """The machine cannot be a node. The message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The parts of the machine that the node needs to know."""

    plugins: Path  # the folder of the CNI plugins
    dual_stack: bool  # whether pods and Services have IPv6 addresses too


def check(layout: Layout, user: int | None = None) -> Machine:
    """Install missing packages where apt-get can. `user` is by default that of this process. Raises `CannotBeNode`."""
    if sys.platform != "linux":
        raise CannotBeNode("a node needs Linux")
    if (os.geteuid() if user is None else user) != 0:
        raise CannotBeNode("a node needs root: it makes network interfaces, mounts and cgroups")
    try:
        need(PACKAGES)
        plugins = _plugins() or _install_plugins()
    except PackagesMissing as error:
        raise CannotBeNode(str(error)) from error
    for obstacle in (_no_mounts(), _no_cgroups(), _no_bridges(), _no_iptables(), _no_overlay(), _is_node(layout)):
        if obstacle:
            raise CannotBeNode(obstacle)
    free = shutil.disk_usage(layout.folder.parent).free
    if free < MIN_FREE_BYTES:
        raise CannotBeNode(f"a node needs 4 GiB of disk below {layout.folder.parent}; {free / 2**30:.1f} GiB are free")
    return Machine(plugins, _has_ipv6())


def _has_ipv6() -> bool:
    """True if pods can have IPv6 addresses too.

    False where routers announce this machine's default route: a node forwards, and a machine that forwards forgets it.
    """
    settings = Path("/proc/sys/net/ipv6/conf")
    return (
        socket.has_dualstack_ipv6()
        and (settings / "default" / "disable_ipv6").read_text().strip() == "0"
        and os.access(settings / "all" / "forwarding", os.W_OK)
        and "proto ra" not in traces.output("ip", "-6", "route", "show", "default")
        and _run("unshare", "--net", "ip6tables", "--table", "nat", "--list-rules")
    )


def _plugins() -> Path | None:
    return next((path for path in _PLUGIN_FOLDERS if all((path / name).exists() for name in _PLUGINS)), None)


def _install_plugins() -> Path:
    need({}, "containernetworking-plugins")
    found = _plugins()
    if found is None:
        raise CannotBeNode(f"no folder has the CNI plugins {', '.join(_PLUGINS)}: install containernetworking-plugins")
    return found


def _no_mounts() -> str:
    done = _run("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt")
    return "" if done else "a node needs the right to mount (CAP_SYS_ADMIN), which this machine does not give"


def _no_cgroups() -> str:
    """Make one where runc makes those of containers."""
    top = traces.CGROUPS
    group = (top if (top / "cgroup.controllers").exists() else top / "memory") / _PROBE
    try:
        group.mkdir()
    except OSError as error:
        return f"a node needs cgroups, and {group} cannot be made: {error.strerror}"
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
    return ""


def _no_bridges() -> str:
    if not _can_add_link("type", "bridge"):
        return "a node needs network bridges, and `ip link add … type bridge` fails"
    if not _can_add_link("type", "veth", "peer", "name", f"{_PROBE}-2"):
        return "a node needs pairs of network interfaces, and `ip link add … type veth` fails"
    return ""


def _can_add_link(*kind: str) -> bool:
    try:
        return _run("ip", "link", "add", _PROBE, *kind)
    finally:
        _run("ip", "link", "delete", _PROBE)


def _no_iptables() -> str:
    """In a network namespace of its own, because to list a table makes it."""
    done = _run("unshare", "--net", "iptables", "--table", "nat", "--list-rules")
    return "" if done else "a node needs iptables with NAT, and `iptables -t nat -S` fails"


def _no_overlay() -> str:
    known = "overlay" in Path("/proc/filesystems").read_text()
    return (
        "" if known or _run("modprobe", "overlay") else "a node needs overlay mounts, which this kernel does not have"
    )


def _is_node(layout: Layout) -> str:
    if any("KUBE-" in rule for rule in traces.rules()):
        return "this machine is a node of a cluster already: iptables has chains named KUBE-"
    for cidr in (POD_CIDR, SERVICE_CIDR):
        prefix = ".".join(cidr.split(".")[:2])
        if f"{prefix}." in traces.output("ip", "-4", "route", "show", "table", "all"):
            return f"a node needs the network {cidr}, which this machine has a route to"
    if any(Path(group).name == "k8s.io" for group in traces.cgroups()):
        return "this machine has containers of Kubernetes already: there is a cgroup k8s.io"
    return f"{layout.folder} is there already: run `make node-down`" if layout.folder.exists() else ""


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
