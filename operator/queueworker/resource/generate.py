"""Writes the files that are made from the models; with `--check`, fails if one of them is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from queueworker.resource.crd import crd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[3]
_HEADER = "# Made by `make generate` from operator/queueworker/resource; do not edit.\n"


class _Plain(yaml.SafeDumper):
    """Without anchors and aliases, which some readers of YAML do not take."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def crd_yaml() -> str:
    return _HEADER + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def reference() -> str:
    """The text of docs/reference.md: all fields of spec and status."""
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    lines = [
        "<!-- Made by `make generate` from operator/queueworker/resource; do not edit. -->",
        "# QueueWorker reference",
        "",
        "`crucible.dev/v1alpha1`, kind `QueueWorker`, short name `qw`. `kubectl explain` shows the same descriptions.",
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", "| field | type | default | bounds | meaning |", "|---|---|---|---|---|"]
        for path, node in _fields(schema[part], part):
            default = node.get("default")
            shown = (
                "" if default in (None, {}) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
            )
            lines.append(f"| `{path}` | {_type(node)} | {shown} | {_bounds(node)} | {node.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        where = f"{path}.{name}"
        yield where, child
        inner = child["items"] if _type(child) == "array" else child
        yield from _fields(inner, f"{where}[]" if _type(child) == "array" else where)


def _type(node: dict[str, Any]) -> str:
    return str(node.get("type", "integer or string"))


def _bounds(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None:
        return f"{low} to {high}" if high is not None else f"at least {low}"
    max_items = node.get("maxItems")
    return f"at most {max_items}" if max_items else ""


TARGETS: dict[str, Callable[[], str]] = {
    "manifests/crd/queueworkers.crucible.dev.yaml": crd_yaml,
    "charts/queueworker-operator/files/crd.yaml": crd_yaml,
    "docs/reference.md": reference,
}


def run(targets: dict[str, Callable[[], str]], *, check: bool) -> int:
    """Writes the targets, or only compares them. Returns the number of targets that were out of date."""
    return sum(renew(ROOT / name, name, make(), check=check) for name, make in targets.items())


def renew(path: Path, name: str, text: str, *, check: bool) -> bool:
    """Writes the file, or only compares it. Returns whether it was out of date. `name` is for people."""
    if path.exists() and path.read_text() == text:
        return False
    if check:
        print(f"{name} is out of date: run `make generate` and commit what it writes", file=sys.stderr)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {name}")
    return True


def main(targets: dict[str, Callable[[], str]], arguments: Sequence[str]) -> int:
    """Writes the targets; with `--check`, only compares them. Returns the exit status."""
    checking = "--check" in arguments
    return int(run(targets, check=checking) > 0 and checking)


if __name__ == "__main__":
    sys.exit(main(TARGETS, sys.argv[1:]))
