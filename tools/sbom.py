"""`python -m tools.sbom`: write an SBOM of the image's Python packages, with their hashes, as CycloneDX.

requirements.txt is for every system and every Python from 3.11. What its markers keep out of the image is left out. The
tool comes from the environment `.venv-audit` (`make sbom`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TOOL = ROOT / ".venv-audit" / "bin" / "cyclonedx-py"
SBOM = Path("dist") / "queueworker-operator.cdx.json"
LINUX = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}
PROCESSORS = ("x86_64", "aarch64")
"""The image is built for both: a package is in the SBOM if one of the images has it."""
# A requirement begins at the start of a line; its hashes and comments are indented.
_REQUIREMENT = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)


def image_python() -> str:
    """The version of Python in the image, such as 3.12."""
    found = re.search(r"^ARG BASE_IMAGE=python:(\d+\.\d+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def in_the_image(lock: str, python: str) -> str:
    """The requirements of a lock that Linux with that version of Python has."""
    environments = [
        LINUX | {"python_version": python, "python_full_version": f"{python}.99", "platform_machine": processor}
        for processor in PROCESSORS
    ]

    def has(requirement: str) -> bool:
        marker = Requirement(requirement.partition("\\")[0].strip()).marker
        return marker is None or any(marker.evaluate(environment) for environment in environments)

    head, *requirements = _REQUIREMENT.split(lock)
    return head + "".join(requirement for requirement in requirements if has(requirement))


def main() -> None:
    (ROOT / SBOM).parent.mkdir(exist_ok=True)
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--output-format", "JSON")
    done = subprocess.run(
        [str(TOOL), "requirements", *options, "--output-file", str(SBOM), "-"],
        input=in_the_image((ROOT / "requirements.txt").read_text(), image_python()),
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode != 0:
        sys.exit(f"error: {TOOL.name} failed with {done.returncode}")
    print(SBOM)


if __name__ == "__main__":
    main()
