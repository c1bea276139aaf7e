"""What must hold of the repository itself. Each check is a function of a folder, so that a bad folder shows it fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Where packages come from is the machine's business: a lock that names an index works on no other one.
INDEX_OPTION = re.compile(r"^\s*(?:-i\b|--(?:extra-)?index-url|--find-links|--trusted-host|-f\b)", re.MULTILINE)
URL_REQUIREMENT = re.compile(r"^[^#\n]*(?:@\s*\w+://|\w+://)", re.MULTILINE)
FOREIGN_LOCKS = {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "pdm.lock"}
# A folder beside the project, or a place on somebody's machine.
OUTSIDE = re.compile(r"\.\./shared\b|(?<![\w./-])/(?:root|home/\w+)/[\w.]")
# This file spells what it forbids.
SPELLED_HERE = Path("tests/unit/test_layout.py")


def committed(root: Path) -> list[Path]:
    """The files that git knows, or would commit; of a copy without git, all but what tools leave behind."""
    if shutil.which("git") is None or not (root / ".git").exists():
        left = re.compile(r"/(?:\.(?!ci/|dockerignore|gitignore)[^/]*|__pycache__|dist|build|[^/]*\.egg-info)(?:/|$)")
        paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file() or path.is_symlink())
        return [path for path in paths if not left.search(f"/{path.as_posix()}")]
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [Path(name) for name in names.split("\0") if name and (root / name).is_file()]


def found(root: Path, pattern: re.Pattern[str]) -> list[str]:
    hits = []
    for path in committed(root):
        if path == SPELLED_HERE:
            continue
        text = (root / path).read_text("utf-8", "replace")
        hits += [f"{path}: {match.group()}" for match in pattern.finditer(text)]
    return hits


def packages_that_hide_python(root: Path) -> list[str]:
    """`operator/` is a source root: as a package it would hide Python's own module of that name."""
    return [name for name in ("operator/__init__.py", "operator/__init__.pyi", "operator.py") if (root / name).exists()]


def bad_requirements(root: Path) -> list[str]:
    """Locks of other tools, and pins that say where to download from."""
    bad = [str(path) for path in committed(root) if path.name in FOREIGN_LOCKS]
    for path in sorted(root.glob("requirements*.txt")):
        text = path.read_text()
        bad += [f"{path.name}: {m.group().strip()}" for p in (INDEX_OPTION, URL_REQUIREMENT) for m in p.finditer(text)]
        pins = re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==\S+(?:[^\\\n]*\\\n(?:.*\\\n)*.*)?", text, re.MULTILINE)
        bad += [f"{path.name}: {pin.split()[0]} has no hash" for pin in pins if "--hash=sha256:" not in pin]
        if not pins:
            bad.append(f"{path.name}: pins nothing")
    return bad


def links_that_leave(root: Path) -> list[str]:
    """Symbolic links out of the project."""
    inside = root.resolve()
    return [
        str(path)
        for path in committed(root)
        if (root / path).is_symlink() and not (root / path).resolve().is_relative_to(inside)
    ]


def lint_imports(root: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """import-linter's own command on that folder, with nothing cached."""
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--config", root / "pyproject.toml", "--cache-dir", tmp_path],
        cwd=root,
        env={"PYTHONPATH": str(root / "operator"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(params=["git", "copy"])
def bad(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A project that does everything wrong."""
    if request.param == "git":
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    files = {
        "operator/__init__.py": "",
        "requirements.txt": "--index-url https://index.test/simple\na==1\nb @ https://x.test/b.whl\n",
        "requirements-dev.txt": "",
        "uv.lock": "",
        "README.md": "as ../shared/wire.md and /root/notes say",
        ".venv/notes": "/root/things, which are no business of ours",
        ".gitignore": ".venv/",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "link").symlink_to("/etc/hostname")
    return tmp_path


def test_operator_is_no_package_and_hides_nothing(bad: Path) -> None:
    assert packages_that_hide_python(ROOT) == []
    assert packages_that_hide_python(bad) == ["operator/__init__.py"]


@pytest.mark.parametrize("path", ["", "operator"])
def test_pythons_operator_module_is_importable_from_the_repositorys_root(path: str) -> None:
    code = "import operator, queueworker; print(operator.itemgetter(1)((1, 2)), queueworker.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}" if path else str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.split() == ["2", str(ROOT / "operator/queueworker/__init__.py")], said.stderr


def test_the_wheel_and_the_tools_know_operator_as_a_source_root() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert config["hatch"]["build"]["targets"]["wheel"]["packages"] == ["operator/queueworker"]
    assert config["hatch"]["build"]["dev-mode-dirs"] == ["operator"]
    assert config["mypy"]["mypy_path"] == ["operator"]


def test_imports_run_downward_only(tmp_path: Path) -> None:
    said = lint_imports(ROOT, tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", said.stdout)


def test_an_import_that_runs_upward_is_found(tmp_path: Path) -> None:
    """The contract as it stands, on a made-up package of the same layers whose router knows the web."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    package = tmp_path / "operator" / "queueworker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for layer in config["layers"]:
        for name in re.findall(r"queueworker\.(\w+)", layer):
            (package / f"{name}.py").touch()
    (package / "routing.py").write_text("import queueworker.web\n")
    layers = "".join(f'  "{layer}",\n' for layer in config["layers"])
    (tmp_path / "pyproject.toml").write_text(
        textwrap.dedent("""\
            [tool.importlinter]
            root_packages = ["queueworker"]
            [[tool.importlinter.contracts]]
            name = "down"
            type = "layers"
            layers = [
            """)
        + f"{layers}]\n"
    )
    said = lint_imports(tmp_path, tmp_path / "cache")
    assert said.returncode == 1, said.stdout + said.stderr
    assert "queueworker.routing is not allowed to import queueworker.web" in said.stdout


def test_pins_have_hashes_and_say_nothing_of_where_they_come_from(bad: Path) -> None:
    assert bad_requirements(ROOT) == []
    assert bad_requirements(bad) == [
        "uv.lock",
        "requirements-dev.txt: pins nothing",
        "requirements.txt: --index-url",
        "requirements.txt: --index-url https://",
        "requirements.txt: b @ https://",
        "requirements.txt: a==1 has no hash",
    ]


def test_nothing_refers_outside_the_project(bad: Path) -> None:
    assert found(ROOT, OUTSIDE) == []
    assert links_that_leave(ROOT) == []
    assert found(bad, OUTSIDE) == ["README.md: ../shared", "README.md: /root/n"]
    assert links_that_leave(bad) == ["link"]
