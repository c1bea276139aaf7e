"""What must hold of the repository itself. Each check is a function of a folder, so that a bad folder shows it fail."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Where packages come from is the machine's business: a lock that names an index works on no other one.
INDEX_OPTION = re.compile(r"^\s*(?:-i\b|--(?:extra-)?index-url|--find-links|--trusted-host|-f\b)", re.MULTILINE)
URL_REQUIREMENT = re.compile(r"^[^#\n]*(?:@\s*\w+://|\w+://)", re.MULTILINE)
FOREIGN_LOCKS = {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "pdm.lock"}
# A folder beside the project, or a place on somebody's machine.
OUTSIDE = re.compile(r"\.\./shared\b|(?<![\w./-])/(?:root|home/\w+)/[\w.]")
PRODUCT = ROOT / "operator" / "queueworker"
MAX_FILE_LINES = 350
MAX_CLASS_LINES = 250
MAX_ATTRIBUTES = 15
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


def long_files(folder: Path) -> list[str]:
    lengths = {path: len(path.read_text().splitlines()) for path in sorted(folder.rglob("*.py"))}
    return [f"{path.relative_to(folder)}: {n} lines" for path, n in lengths.items() if n > MAX_FILE_LINES]


@cache
def classes(folder: Path) -> list[tuple[str, ast.ClassDef]]:
    """Every class below the folder, with its file and name. Read once."""
    return [
        (f"{path.relative_to(folder)}: {node.name}", node)
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]


def long_classes(folder: Path) -> list[str]:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in classes(folder)}
    return [f"{name} has {n} lines" for name, n in lengths.items() if n > MAX_CLASS_LINES]


def attributes(node: ast.ClassDef) -> set[str]:
    """The names that methods assign on `self`, and the fields of a dataclass."""
    names = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
        names |= {target.id for target in fields if isinstance(target, ast.Name)}
    return names


def wide_classes(folder: Path) -> list[str]:
    """Classes with many attributes, except those whose docstring gives a reason."""
    found = {
        name: len(attributes(node))
        for name, node in classes(folder)
        if f"More than {MAX_ATTRIBUTES} attributes:" not in (ast.get_docstring(node) or "")
    }
    return [f"{name} has {n} attributes" for name, n in found.items() if n > MAX_ATTRIBUTES]


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


BAD_IMPORTS = {
    "Imports run downward only": ("routing/config.py", "import queueworker.web"),
    "The data plane knows no Kubernetes and no web framework": ("resource/spec.py", "import kopf"),
    "The parts of the data plane import downward only": (
        "routing/journal/journal.py",
        "import queueworker.routing.runs",
    ),
    "The product imports neither demo nor tools nor tests": ("web/app.py", "import demo"),
}


def test_every_contract_has_a_bad_import_below() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert [contract["name"] for contract in contracts] == list(BAD_IMPORTS)


def test_an_import_that_breaks_a_contract_is_found(tmp_path: Path) -> None:
    """On a copy of the product, in which four files have one import more."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(PRODUCT, tmp_path / "operator" / "queueworker", ignore=shutil.ignore_patterns("__pycache__"))
    for path, line in BAD_IMPORTS.values():
        with (tmp_path / "operator" / "queueworker" / path).open("a") as file:
            file.write(f"{line}\n")
    said = lint_imports(tmp_path, tmp_path / "cache")
    assert said.returncode == 1, said.stdout + said.stderr
    for contract, (path, line) in BAD_IMPORTS.items():
        assert f"{contract} BROKEN" in said.stdout
        importing = f"queueworker/{path}".removesuffix(".py").replace("/", ".")
        assert f"{importing} -> {line.removeprefix('import ')}" in said.stdout, contract


LARGE = {
    "long_file.py": "x = 1\n" * 351,
    "long_class.py": "class Long:\n" + "    x = 1\n" * 250,
    "wide_class.py": "class Wide:\n    def __init__(self):\n" + "".join(f"        self.a{i} = 0\n" for i in range(16)),
    "wide_record.py": "@dataclass\nclass Record:\n" + "".join(f"    a{i}: int\n" for i in range(16)),
    "explained.py": 'class Explained:\n    """More than 15 attributes: for a reason."""\n    def f(self):\n'
    + "".join(f"        self.a{i}: int = 0\n" for i in range(16)),
    "small.py": "class Small:\n    def __init__(self):\n" + "        self.a = 0\n" * 16,
}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A folder with a file, a class and records that are too large, and some that are not."""
    for name, text in LARGE.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_no_file_of_the_product_is_too_long(large: Path) -> None:
    assert long_files(PRODUCT) == []
    assert long_files(large) == ["long_file.py: 351 lines"]


def test_no_class_of_the_product_is_too_long(large: Path) -> None:
    assert long_classes(PRODUCT) == []
    assert long_classes(large) == ["long_class.py: Long has 251 lines"]


def test_no_class_of_the_product_has_too_many_attributes(large: Path) -> None:
    assert wide_classes(PRODUCT) == []
    assert wide_classes(large) == ["wide_class.py: Wide has 16 attributes", "wide_record.py: Record has 16 attributes"]


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
