"""Writes docs/environment.md from the table of variables; with `--check`, fails if the page is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from queueworker.processes.environment_table import FURTHER, LEGACY
from queueworker.processes.tracing_settings import FIELDS, PREFIX, TRACES_PREFIX, may_be
from queueworker.resource.generate import renew

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.processes.environment_table import Variable

PATH = Path(__file__).parents[3] / "docs" / "environment.md"

_HEAD = """<!-- Made by `make generate` from operator/queueworker/processes; do not edit. -->
# The worker's environment

`queueworker worker` reads these variables. An empty variable counts as not set; other variables are ignored, with a
warning if a name is nearly one of these. Names of choices may be written in upper or lower case. If a variable cannot
be used, the worker exits at once with status 2 and writes one line for each such variable to standard error, with its
name and the permitted values.

Proxies are not used: neither worker nor operator reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` or `NO_PROXY`, and both
log a warning when a proxy is set. Queue, executors, Redis and the API server are reached directly.
"""


_TRACING = f"""## Tracing

[Tracing](tracing.md) is configured by OpenTelemetry's own variables, which `queueworker operator` reads too. If one of
them cannot be used, a warning says so, tracing is off, and tasks are routed.

A variable whose name begins with `{TRACES_PREFIX}` counts before the one with `{PREFIX}`;
`{TRACES_PREFIX}ENDPOINT` is the whole URL. `OTEL_SERVICE_NAME` (default `queueworker` or `queueworker-operator`) and
`OTEL_RESOURCE_ATTRIBUTES` say who exports. `OTEL_SDK_DISABLED=true` and `OTEL_TRACES_EXPORTER=none` turn tracing off.
The SDK's own settings, such as `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`, apply; those of the batches (`OTEL_BSP_…`) and of
timeouts are fixed.
"""


def reference() -> str:
    """The text of docs/environment.md."""
    return "\n".join(
        [
            _HEAD,
            "## Variables of the legacy worker",
            "",
            *_table(LEGACY),
            "",
            "## Further variables",
            "",
            *_table(FURTHER),
            "",
            _TRACING,
            *_tracing_table(),
            "",
        ]
    )


def _table(variables: Iterable[Variable]) -> list[str]:
    rows = ["| variable | default | permitted values | meaning |", "|---|---|---|---|"]
    for v in variables:
        default = f"`{v.default}`" if v.default else ""
        rows.append(f"| `{v.name}` | {default} | {v.may_be} | {v.meaning} |")
    return rows


def _tracing_table() -> list[str]:
    rows = ["| variable | default | permitted values | meaning |", "|---|---|---|---|"]
    for field in FIELDS.values():
        default = "" if field.default in (None, "", {}) else f"`{field.default}`"
        rows.append(f"| `{field.alias}` | {default} | {may_be(str(field.alias))} | {field.description} |")
    return rows


def run(path: Path = PATH, *, check: bool) -> int:
    """Returns the exit status."""
    return int(renew(path, f"docs/{path.name}", reference(), check=check) and check)


if __name__ == "__main__":
    sys.exit(run(check="--check" in sys.argv[1:]))
