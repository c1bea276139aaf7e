"""Where binaries come from, and that a build that was interrupted or doubled leaves nothing wrong. Go is a stand-in."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from demo.control_plane import binaries

ROOT = Path(__file__).parent.parent.parent
FAKE_GO = """\
    #!{python}
    import os, pathlib, sys, time
    if sys.argv[1] == "version":
        print("go version go1.99.0 linux/amd64"); sys.exit()
    out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    with open(os.environ["BUILDS"], "a") as log: log.write("build\\n")
    out.write_text("half")
    time.sleep(float(os.environ.get("SLEEP", "0")))
    if os.environ.get("FAIL"): print("no such module"); sys.exit(1)
    out.write_text("whole"); out.chmod(0o755)
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def go(tmp_path: Path) -> dict[str, str]:
    """An environment with a stand-in for Go, an empty cache and a count of the builds."""
    script(tmp_path / "bin" / "go", FAKE_GO.format(python=sys.executable))
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BUILDS": str(tmp_path / "builds"),
    }


def find(environment: dict[str, str]) -> subprocess.Popen[str]:
    code = "from demo.control_plane import binaries as b\nprint(b.find(b.ETCD))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "KUBEBUILDER_ASSETS"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_assets_come_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert binaries.find(binaries.ETCD) == tmp_path / "etcd"


def test_a_binary_is_built_once_and_then_taken_from_the_cache(go: dict[str, str]) -> None:
    paths = [Path(find(go).communicate()[0].strip()) for _ in range(2)]
    assert paths[0] == paths[1]
    assert paths[0].read_text() == "whole"
    assert Path(go["BUILDS"]).read_text() == "build\n"


def test_two_builds_at_once_build_once(go: dict[str, str]) -> None:
    both = [find(go | {"SLEEP": "1"}) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert outputs[0][0] == outputs[1][0]
    assert Path(go["BUILDS"]).read_text() == "build\n"
    assert any("another process is building etcd" in err for _, err in outputs)


def test_a_build_that_was_killed_is_taken_up_again(go: dict[str, str]) -> None:
    killed = find(go | {"SLEEP": "60"})
    while not Path(go["BUILDS"]).exists():
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    path = Path(find(go).communicate()[0].strip())
    assert path.read_text() == "whole"


def test_a_failed_build_says_what_failed_and_the_way_out(go: dict[str, str]) -> None:
    _, err = find(go | {"FAIL": "1"}).communicate()
    assert "no such module" in err
    assert "KUBEBUILDER_ASSETS" in err


def test_a_kubectl_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin" / "kubectl", """#!/bin/sh\necho '{"clientVersion": {"minor": "30"}}'\n""")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert binaries.kubectl() != str(tmp_path / "bin" / "kubectl")
    script(tmp_path / "bin" / "kubectl", """#!/bin/sh\necho '{"clientVersion": {"minor": "36+"}}'\n""")
    assert binaries.kubectl() == str(tmp_path / "bin" / "kubectl")
