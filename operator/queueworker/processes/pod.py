"""Whether this process runs in a pod, and in which namespace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_namespace(file: Path = NAMESPACE_FILE) -> str:
    """The namespace of the pod's service account; empty outside a pod."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def runs_in_pod(environ: Mapping[str, str], file: Path = NAMESPACE_FILE) -> bool:
    """Kubernetes sets KUBERNETES_SERVICE_HOST in every pod; a pod without it may have a service account."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST")) or bool(own_namespace(file))
