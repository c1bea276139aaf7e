"""`python -m tools.chart_readme`: write the chart's README from Chart.yaml and values.yaml; `--check` only compares.

A value's description is the comment above it. The values of a map are listed one by one, unless the map is one that
users fill in (`resources`, `nodeSelector` and the like), which is listed whole.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import yaml

from queueworker.resource.generate import ROOT, main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHART = ROOT / "charts" / "queueworker-operator"
# Maps with a default that users replace as a whole.
WHOLE = {"resources", "podSecurityContext", "securityContext", "updateStrategy", "nodeSelector", "dashboard.labels"}

HEAD = """\
<!-- Made by `make generate` from values.yaml and tools/chart_readme.py; do not edit. -->
# queueworker-operator

{description}. Version {version}, for Kubernetes {kubernetes} or newer, and Helm 3.17 or newer
(Helm 4 too).

<!-- run by: tests/controlplane/test_docs_installing.py -->
```sh
helm install queueworker-operator charts/queueworker-operator -n queueworker-system --create-namespace \\
  --set image.repository=registry.example/queueworker-operator
```

`helm test queueworker-operator -n queueworker-system` routes twenty tasks of its own.
`image.repository` is required, because there is no public registry with the image: build it with
`docker build -t registry.example/queueworker-operator:{version} .` and push it, or load it into the nodes
(`kind load docker-image`, `minikube image load`).
[docs/install.md]({install}) has the rest:

| you | read |
|---|---|
| have no Helm | [Kustomize]({install}#kustomize): `kubectl apply --server-side -k manifests/default` |
| do not want it to see the whole cluster | [Some namespaces only]({install}#some-namespaces-only): `watchNamespaces` |
| are on OpenShift | [OpenShift]({install}#openshift) |
| have certificates of your own | [A private authority]({install}#a-private-authority): `extraVolumes`, `extraEnv` |
| have Secrets with API keys | [Existing Secrets]({install}#existing-secrets): `rbac.secrets` for those it may read |
| use Argo CD or Flux | [GitOps]({install}#gitops) |
| use IPv6 | [IPv6]({install}#ipv6): nothing to do; `service.ipFamilyPolicy` for both families |
| have Prometheus and Grafana | [Monitoring]({install}#monitoring): `podMonitor`, `prometheusRule`, `dashboard` |
| have another version | [Upgrade]({install}#upgrade), [Rollback]({install}#rollback) |
| drain nodes | [Drained nodes]({install}#drained-nodes) |
| do not want it any more | [Removal]({install}#removal): delete the QueueWorkers first |
| have many QueueWorkers | [Sizes]({install}#sizes): `resources` |

## Values

| value | default | meaning |
|---|---|---|
"""


def readme() -> str:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    head = HEAD.format(
        install="../../docs/install.md",
        description=about["description"],
        version=about["version"],
        kubernetes=str(about["kubeVersion"]).removeprefix(">=").removesuffix(".0-0"),
    )
    return head + "".join(map(_row, rows()))


def _row(row: tuple[str, str, str]) -> str:
    path, default, text = row
    return f"| `{path}` | {f'`{default}`' if default else ''} | {text} |\n"


def rows() -> Iterator[tuple[str, str, str]]:
    """Path, default as JSON, and description of every value."""
    text = (CHART / "values.yaml").read_text()
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    yield from _rows(node, text.splitlines(), yaml.safe_load(text), "")


def _rows(node: yaml.MappingNode, lines: Sequence[str], values: dict[str, Any], prefix: str) -> Iterator[Any]:
    for key, value in node.value:
        path, default = f"{prefix}{key.value}", values[key.value]
        text = _comment(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and default and path not in WHOLE:
            if text:
                yield path, "", text
            yield from _rows(value, lines, default, f"{path}.")
        else:
            yield path, json.dumps(default, ensure_ascii=False), text


def _comment(lines: Sequence[str], line: int) -> str:
    """The comment that ends directly above the line."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(found).replace("|", "\\|")


TARGETS = {"charts/queueworker-operator/README.md": readme}


if __name__ == "__main__":
    sys.exit(main(TARGETS, sys.argv[1:]))
