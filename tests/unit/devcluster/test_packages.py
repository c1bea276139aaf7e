"""Debian packages are installed by root, after any other apt-get, and named to others. apt-get is a stand-in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from devcluster.packages import TEST_PACKAGES, PackagesMissing, need
from tests.support.operating import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOCKED = """\
if [ ! -e "$0.freed" ]; then
    : > "$0.freed"
    echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100
fi"""
FAILS = 'echo "E: Unable to locate package browser"; exit 100'
WANTED = {"no-browser-here": "browser fonts", "sh": "dash"}


@pytest.fixture
def apt_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Puts an apt-get on PATH that does as the script says. Returns what it was called with so far."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    calls = tmp_path / "calls"

    def called(script: str = "") -> list[str]:
        if not calls.exists():
            calls.touch()
            (tmp_path / "apt-get").write_text(f'#!/bin/sh\n{script}\necho "$*" >> {calls}\n')
            (tmp_path / "apt-get").chmod(0o755)
        return calls.read_text().splitlines()

    return called


def test_root_gets_what_is_missing_and_no_more(apt_get: Callable[..., list[str]]) -> None:
    apt_get()
    need({"sh": "dash"}, user=0)
    assert apt_get() == []
    need(WANTED, "plugins", user=0)
    assert apt_get() == ["update", "install --yes --no-install-recommends browser fonts plugins"]


def test_an_apt_get_that_runs_elsewhere_is_waited_for(apt_get: Callable[..., list[str]]) -> None:
    apt_get(LOCKED)
    need(WANTED, user=0)
    assert [call.split()[0] for call in apt_get()] == ["update", "install"]


def test_a_package_that_apt_get_cannot_install_is_named_with_its_reason(apt_get: Callable[..., list[str]]) -> None:
    apt_get(FAILS)
    with pytest.raises(PackagesMissing, match=r"cannot install browser and fonts: E: Unable to locate"):
        need(WANTED, user=0)


def test_others_than_root_are_told_what_is_missing(apt_get: Callable[..., list[str]]) -> None:
    apt_get()
    with pytest.raises(PackagesMissing, match=r"^browser and fonts must be installed: apt-get install browser fonts"):
        need(WANTED, user=1000)
    assert apt_get() == []


def test_targets_of_make_install_what_their_own_tests_need() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipes = re.findall(r"^([a-z0-9-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    found = {target: " ".join(re.findall(r"\(call packages,(.*)\)", recipe)) for target, recipe in recipes}
    needed = {target: command for target, command in found.items() if command}
    assert needed == {
        **dict.fromkeys(("test-fast", "test-controlplane", "test-e2e", "e2e", "e2e-kind"), "openssl"),
        **dict.fromkeys(("test-browser", "screenshots"), "chromium"),
        **dict.fromkeys(("test-faults", "reliability"), "faketime"),
        "test-monitoring": "promtool",
    }
    assert set(needed.values()) == TEST_PACKAGES.keys()
