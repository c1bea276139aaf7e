"""Which metrics a PromQL expression names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import promql_parser

from queueworker.processes.metrics_reference import families

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_HISTOGRAMS = re.compile("_(bucket|count|sum)$")


def metrics_of(expression: str) -> set[str]:
    """The metrics that its selectors name. Raises ValueError if it is no PromQL."""
    found: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name or "")
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def unknown(expressions: Iterable[str]) -> set[str]:
    """The metrics that are named and that neither operator nor worker has."""
    known = families()
    named = {metric for expression in expressions for metric in metrics_of(expression)}
    return {metric for metric in named if metric not in known and not _is_of_histogram(metric)}


def _is_of_histogram(metric: str) -> bool:
    family = families().get(_OF_HISTOGRAMS.sub("", metric))
    return family is not None and family.type == "histogram"
