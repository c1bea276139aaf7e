"""Certificates that are their own authority."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def make_certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """The files of a certificate, which is valid for a day, and of its key. Names are like `DNS:localhost`.

    Skips the test if there is no openssl.
    """
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl: apt-get install openssl")
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
    whose = f"-days 1 -subj /CN=queue -addext subjectAltName={','.join(names)}"
    subprocess.run(["openssl", *make.split(), *whose.split()], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"
