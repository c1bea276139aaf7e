"""The rig of every case, the order that they start in, and the page that is made of them when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.controlplane import conftest as shared
from tests.support.faults.cluster import Cluster
from tests.support.faults.reliability import PROPERTY, Row, page
from tests.support.faults.rig import Rig
from tests.support.operating import install

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from devcluster.server import ControlPlane
    from tests.controlplane.conftest import Kubectl

control_plane, kubectl, namespace = shared.control_plane, shared.kubectl, shared.namespace

_PASSED = pytest.StashKey[bool]()
_rows: list[Row] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", type=Path, help="write the table of the cases to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "minute: a case that takes a minute or more, and is started first")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases of a minute first, each with a short one after it: xdist gives out two at a time."""
    slow = [item for item in items if item.get_closest_marker("minute")]
    quick = [item for item in items if not item.get_closest_marker("minute")]
    dealt = [item for pair in zip(slow, quick, strict=False) for item in pair]
    items[:] = dealt + slow[len(dealt) // 2 :] + quick[len(dealt) // 2 :]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """The platform of one case, ended whatever happens. A case that passed without its account fails here."""
    async with Rig(tmp_path) as made:
        yield made
        if request.node.stash.get(_PASSED, False):
            assert made.result is not None, "the case ended without `await rig.account(…)`"
            path, line, name = request.node.location
            case = name.removeprefix("test_").replace("_", " ").replace("[", " (").replace("]", ")")
            request.node.user_properties.append((PROPERTY, ((path, line, name), case, *made.result)))


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane, kubectl: Kubectl) -> ControlPlane:
    install(kubectl)
    return control_plane


@pytest.fixture
async def cluster(
    rig: Rig,
    installed: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
) -> Cluster:
    return Cluster(rig, installed, kubectl, namespace, tmp_path)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the process that controls the run, whichever process ran the case."""
    if report.when == "teardown" and report.passed:
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, list | tuple):
                place, *cells = value
                _rows.append(Row(tuple(place), *cells))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    target: Path | None = session.config.getoption("--reliability", None)
    if target is not None and not hasattr(session.config, "workerinput"):
        if exitstatus == pytest.ExitCode.OK:
            target.write_text(page(_rows))
        else:
            print(f"\n{target} is left as it was: not every case passed")
