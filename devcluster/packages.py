"""Debian packages that tests and tools need, installed where apt-get can."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from devcluster.progress import say

if TYPE_CHECKING:
    from collections.abc import Mapping

# Commands without which tests are skipped, each with its packages.
TEST_PACKAGES = {
    "chromium": "chromium fonts-dejavu-core",
    "faketime": "faketime",
    "openssl": "openssl",
    "promtool": "prometheus",
}
_LOCK_SECONDS = 300.0  # another apt-get may run
_LOCKED = "Could not get lock"


class PackagesMissing(Exception):
    """Packages are missing and cannot be installed. The message names them."""


def need(commands: Mapping[str, str], *packages: str, user: int | None = None) -> None:
    """Install `packages`, and those of `commands` (command: its packages) whose command is not on PATH.

    `user` is by default that of this process. Raises `PackagesMissing`.
    """
    lacking = [names.split() for command, names in commands.items() if not shutil.which(command)]
    missing = sorted({name for names in lacking for name in names} | set(packages))
    if not missing:
        return
    names = " and ".join(missing)
    if not shutil.which("apt-get") or (os.geteuid() if user is None else user) != 0:
        raise PackagesMissing(f"{names} must be installed: apt-get install {' '.join(missing)} (as root, on Debian)")
    say(f"installing {names} with apt-get")
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        if error := _apt_get(arguments):
            raise PackagesMissing(f"apt-get cannot install {names}: {error[-500:]}")


def _apt_get(arguments: list[str]) -> str:
    """Run apt-get, after others that run now. Returns what it says if it fails; empty if it does not.

    Its own option for that, DPkg::Lock::Timeout, does not hold for `update`.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        done = subprocess.run(
            ["apt-get", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        )
        if done.returncode == 0:
            return ""
        said = (done.stderr + done.stdout).strip()
        if _LOCKED not in said or time.monotonic() > deadline:
            return said or f"exit status {done.returncode}"
        time.sleep(0.5)
