"""How the demo on pods ends where it cannot begin."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from demo.on_pods import start_on_pods
from demo.processes import DemoError
from demo.starting import Options
from tools.clusters import NoCluster, Nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def no_node() -> Iterator[Nodes]:
    raise NoCluster("a node needs root")
    yield


def test_a_machine_that_cannot_be_a_node_says_why_and_how_to_use_a_cluster(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(DemoError) as caught:
        start_on_pods(stack, tmp_path, Options(pods=True), Console(file=StringIO()), no_node)
    reason, own_cluster, without = str(caught.value).splitlines()
    assert reason.endswith("a node needs root")
    assert "DEMO_CONTEXT=" in own_cluster
    assert without.endswith("make demo")
