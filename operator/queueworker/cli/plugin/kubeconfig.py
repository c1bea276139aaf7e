"""Finds address, credentials and namespace as kubectl does: a kubeconfig, or the service account of the pod."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from queueworker.cli.plugin.problems import Problem
from queueworker.processes.pod import own_namespace, runs_in_pod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queueworker.cli.plugin.access import Access

DEFAULT = "~/.kube/config"


async def load(configuration: Any, access: Access) -> str:
    """Fills the client's configuration, and returns the namespace. Raises Problem."""
    from kubernetes.aio import config  # noqa: PLC0415 -- takes half a second

    files, given = _files(access)
    if not files:
        if runs_in_pod(os.environ) and not access.kubeconfig and not access.context:
            try:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except config.ConfigException as error:
                raise Problem("the pod has no service account token: set automountServiceAccountToken") from error
            return access.namespace or own_namespace() or "default"
        raise Problem(f"there is no kubeconfig at {given}: set --kubeconfig or KUBECONFIG")
    shown = os.pathsep.join(map(str, files))
    current, contexts = _contexts(files, shown)
    name = access.context or current
    if name not in contexts:
        problem = f"has no context {name}" if name else "has no current context"
        known = ", ".join(sorted(contexts)) or "none"
        raise Problem(f"the kubeconfig {shown} {problem}: set --context; it has: {known}")
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=shown, context=name, client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        advice = f"`kubectl --context {name} version` says why"
        raise Problem(f"the context {name} of the kubeconfig {shown} cannot be used: {advice}") from error
    return access.namespace or str(contexts[name].get("namespace") or "default")


def _files(access: Access) -> tuple[list[Path], str]:
    """The kubeconfig files that exist, and what was given."""
    given = access.kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT
    names = [given] if access.kubeconfig else [name for name in given.split(os.pathsep) if name]
    return [path for name in names if (path := _expanded(name)).is_file()], given


def _expanded(name: str) -> Path:
    """With the person's home, if there is one: the user of a pod may have none."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 -- never raises


def _contexts(files: Sequence[Path], shown: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The name of the current context, and all contexts by name. The first file that has one wins."""
    current = ""
    found: dict[str, dict[str, Any]] = {}
    try:
        for path in files:
            content = yaml.safe_load(path.read_text()) or {}
            current = current or str(content.get("current-context") or "")
            for item in content.get("contexts") or []:
                found.setdefault(str(item["name"]), item.get("context") or {})
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise Problem(f"the kubeconfig {shown} cannot be read: it must be a YAML file of kind Config") from error
    return current, found
