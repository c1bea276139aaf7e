"""The state of the machine: taken before the node is made, restored after it, and compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.node import processes

if TYPE_CHECKING:
    from devcluster.node.layout import Layout

CGROUPS = Path("/sys/fs/cgroup")
# What containerd, kubelet and kube-proxy set.
SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/ipv4/vs/conntrack",
    "net/ipv6/conf/all/forwarding",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
# Folders whose place cannot be chosen, and those that such folders are made in.
FOLDERS = (
    *("/etc", "/etc/cni", "/run", "/run/containerd", "/run/containerd/s", "/run/netns", "/usr/libexec"),
    *("/var/lib", "/var/lib/cni", "/var/lib/kubelet", "/var/log", "/var/log/containers", "/var/log/pods"),
)
# Of what is in them, only this is ours: packages may be installed meanwhile.
_NAMES = re.compile(r"cni|kube|contain|netns|pods")
# `tools.container_engine`'s may come and go meanwhile; it looks itself for what it left.
_ENGINE = re.compile(r"qw-docker-|/docker/|^docker$|^containerd$|/run/docker")

Traces = dict[str, list[str]]


def capture(layout: Layout) -> Traces:
    """By kind, such as `mounts`, what there is."""
    found = {
        "interfaces": [path.name for path in Path("/sys/class/net").iterdir()],
        "mounts": mounts(),
        "cgroups": [str(path) for path in cgroups()],
        "rules": rules(),
        "tables": output("nft", "list", "tables").splitlines(),
        "sysctls": [f"{name}={value}" for name, value in sysctls().items()],
        "files": [str(path) for name in FOLDERS for path in _inside(name) if _is_ours(path, layout)],
        "processes": processes.about(str(layout.folder)),
    }
    return {kind: sorted(item for item in items if not _ENGINE.search(item)) for kind, items in found.items()}


def differences(before: Traces, after: Traces) -> list[str]:
    """A line for each thing that is new, and for each that is missing."""
    return [
        f"{kind}: {text} {item}"
        for kind in sorted(before.keys() | after.keys())
        for text, one, other in (("left", after, before), ("missing", before, after))
        for item in sorted(set(one.get(kind, ())) - set(other.get(kind, ())))
    ]


def save(layout: Layout, traces: Traces) -> None:
    layout.traces.write_text(json.dumps(traces, indent=1))


def load(layout: Layout) -> Traces | None:
    """None if there is no node, or one whose start failed before it was saved."""
    try:
        traces: Traces = json.loads(layout.traces.read_text())
    except (OSError, ValueError):
        return None
    return traces


def mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1].replace("\\040", " ") for line in lines]


def cgroups() -> list[Path]:
    """The groups of the first level: below /sys/fs/cgroup itself, or below each controller there."""
    tops = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else _inside(str(CGROUPS))
    return [path for top in tops for path in _inside(str(top)) if path.is_dir()]


def rules() -> list[str]:
    """Chains and rules of iptables, without counters and without the kernel's own chains."""
    return [
        f"{tool}: {line.split(' [')[0]}"
        for tool in ("iptables-save", "ip6tables-save")
        for line in output(tool).splitlines()
        if line.startswith("-A ") or re.match(r":\S+ -", line)
    ]


def sysctls() -> dict[str, str]:
    found = {}
    for name in SYSCTLS:
        path = Path("/proc/sys") / name
        if path.exists():
            found[name] = path.read_text().strip()
    return found


def output(*command: str, text: str | None = None) -> str:
    """A command's output; empty if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else ""


def _is_ours(path: Path, layout: Layout) -> bool:
    return _NAMES.search(str(path)) is not None and path != layout.folder


def _inside(folder: str) -> list[Path]:
    path = Path(folder)
    return list(path.iterdir()) if path.is_dir() else []
