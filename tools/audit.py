"""`python -m tools.audit`: check chart, manifests, Dockerfile and workflows with the usual tools.

Each set of values in the folder `ci` of the chart is linted, rendered for the oldest and the newest Kubernetes, and
compared with the schemas of both. Trivy and hadolint must have no finding of medium weight or more that has no written
reason in .trivyignore.yaml or .hadolint.yaml. The tools come from the environment `.venv-audit` (`make audit`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from devcluster import binaries
from devcluster.go_build import Binary, required

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "queueworker-operator"
MANIFESTS = ROOT / "manifests"
TOOLS = ROOT / ".venv-audit" / "bin"
WORKFLOWS = ROOT / ".github" / "workflows"
ACTIONLINT = Binary(
    "actionlint",
    required("actionlint", "github.com/rhysd/actionlint"),
    "actionlint",
    "github.com/rhysd/actionlint/cmd/actionlint",
    about="a few seconds",
)
TRIVY_SEVERITY = "MEDIUM,HIGH,CRITICAL"
FOREIGN = ("monitoring.coreos.com/", "crucible.dev/")
"""Groups of kinds that the schemas of Kubernetes do not have: the Prometheus operator's and our own."""
COMPONENTS = {"default": "managed-pools", "namespaced": "managed-pools-namespaced"}
"""Each kustomization, with the component that goes on top of it."""
COMMAND_SECONDS = 300.0
MAX_SAID = 6000
"""Characters of a tool's output that are shown, the last ones."""


class Finding(Exception):
    """A check failed. The message is the output of its tool."""


def run(*command: str | Path) -> str:
    """Run a command in the project's folder and return its output. Raises `Finding` if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=COMMAND_SECONDS,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-MAX_SAID:]
        raise Finding(f"{Path(command[0]).name} {command[1]} failed:\n{said}")
    return done.stdout


def oldest_kubernetes() -> str:
    """The oldest version that the chart allows, such as 1.29.0."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return re.sub(r"[^\d.]", "", str(about["kubeVersion"]).partition("-")[0])


def newest_kubernetes() -> str:
    """The newest version that kubernetes-validate has schemas of."""
    found = re.search(r"Defaults to\s+(\S+)", run(TOOLS / "kubernetes-validate", "--help"))
    assert found is not None
    return found[1]


def value_files() -> list[Path]:
    return sorted((CHART / "ci").glob("*-values.yaml"))


def rendered(kubernetes: str) -> Iterator[tuple[str, str]]:
    """Name and manifest of every set of values, of every kustomization, and of the samples."""
    for values in value_files():
        command = ("template", "release", CHART, "-n", "queueworker-system", "--kube-version", kubernetes)
        yield values.stem, run(binaries.helm(), *command, "--values", values)
    for folder, component in COMPONENTS.items():
        yield f"kustomize-{folder}", kustomized(folder)
        yield f"kustomize-{component}", kustomized(folder, component)
    for sample in sorted((MANIFESTS / "samples").glob("*.yaml")):
        yield f"sample-{sample.stem}", sample.read_text()


def kustomized(folder: str, *components: str) -> str:
    """A folder of manifests/, with folders of manifests/components on top of it."""
    with tempfile.TemporaryDirectory() as place:
        manifests = os.path.relpath(MANIFESTS.resolve(), Path(place).resolve())  # kustomize takes no absolute paths
        parts = {
            "resources": [f"{manifests}/{folder}"],
            "components": [f"{manifests}/components/{component}" for component in components],
        }
        (Path(place) / "kustomization.yaml").write_text(yaml.safe_dump(parts))
        return run(binaries.kubectl(), "kustomize", place)


def without(text: str, *groups: str) -> str:
    """The manifest less the objects of some API groups; empty if nothing is left."""
    documents = re.split(r"^---$", text, flags=re.MULTILINE)
    rest = [
        document
        for document in documents
        if re.search(r"^apiVersion: ", document, re.MULTILINE)
        and not any(f"apiVersion: {group}" in document for group in groups)
    ]
    return "---".join(rest)


def write(folder: Path, manifests: Iterator[tuple[str, str]]) -> list[Path]:
    """Write each manifest that is not empty to a file of its own, and return the files."""
    files = []
    for name, text in manifests:
        if not text:
            continue
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(text)
    return files


def lint_chart() -> None:
    for values in value_files():
        run(binaries.helm(), "lint", "--strict", CHART, "--values", values)


def validate_manifests() -> None:
    """Compare with the schemas; unknown fields are errors."""
    for version in (oldest_kubernetes(), newest_kubernetes()):
        with tempfile.TemporaryDirectory() as folder:
            manifests = ((name, without(text, *FOREIGN)) for name, text in rendered(version))
            files = write(Path(folder), manifests)
            run(TOOLS / "kubernetes-validate", "--kubernetes-version", version, "--strict", "--quiet", *files)


def scan_configuration() -> None:
    """Trivy's built-in checks: it downloads nothing."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rendered(newest_kubernetes()))
        (Path(folder) / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
        options = ("--skip-check-update", "--severity", TRIVY_SEVERITY, "--exit-code", "1")
        run(TOOLS / "trivy", "config", *options, "--ignorefile", ROOT / ".trivyignore.yaml", folder)


def lint_dockerfile() -> None:
    run(
        TOOLS / "hadolint",
        "--config",
        ROOT / ".hadolint.yaml",
        ROOT / "Dockerfile",
        ROOT / "tools" / "platform.Dockerfile",
    )


def lint_workflows() -> None:
    """Both tools, without asking GitHub."""
    run(binaries.find(ACTIONLINT), "-shellcheck=", "-pyflakes=")
    run(
        TOOLS / "zizmor",
        "--offline",
        "--strict-collection",
        "--min-severity",
        "medium",
        "--persona",
        "pedantic",
        WORKFLOWS,
    )


CHECKS = {
    "the chart, by helm lint": lint_chart,
    "chart and manifests, by the schemas of Kubernetes": validate_manifests,
    "chart, manifests and Dockerfile, by Trivy": scan_configuration,
    "the Dockerfiles, by hadolint": lint_dockerfile,
    "the workflows, by actionlint and zizmor": lint_workflows,
}


def main() -> int:
    failed = 0
    for title, check in CHECKS.items():
        try:
            check()
        except Finding as finding:
            failed += 1
            print(f"FAILED  {title}\n{finding}")
        else:
            print(f"ok      {title}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
