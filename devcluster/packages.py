"""Debian packages that tests and tools need, installed where apt-get can."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from devcluster.progress import say

if TYPE_CHECKING:
    from collections.abc import Mapping

# Commands that tests skip without, with their packages.
TEST_PACKAGES = {"faketime": "faketime", "openssl": "openssl"}
_LOCK_SECONDS = 300  # another apt-get may run


class PackagesMissing(Exception):
    """Packages are missing and cannot be installed. The message names them."""


def need(commands: Mapping[str, str], *packages: str) -> None:
    """Install `packages`, and those of `commands` (command: its package) whose command is not on PATH.

    Raises `PackagesMissing`.
    """
    missing = sorted({package for command, package in commands.items() if not shutil.which(command)} | set(packages))
    if not missing:
        return
    names = " and ".join(missing)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise PackagesMissing(f"{names} must be installed: apt-get install {' '.join(missing)} (as root, on Debian)")
    say(f"installing {names} with apt-get")
    wait = ("-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}")
    for command in (
        ["apt-get", *wait, "update"],
        ["apt-get", *wait, "install", "--yes", "--no-install-recommends", *missing],
    ):
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode != 0:
            raise PackagesMissing(f"apt-get cannot install {names}: {(done.stderr + done.stdout).strip()[-500:]}")
