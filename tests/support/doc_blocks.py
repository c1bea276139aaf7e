"""The fenced blocks of the repository's Markdown, what is said about running them, and how they are run.

A comment stands before a block of commands that does not simply run in the repository's folder:

    <!-- run by: tests/controlplane/test_docs_operating.py -->    that test runs it, among the things that it names
    <!-- not run: needs Docker -->                               nothing runs it
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from markdown_it import MarkdownIt

from devcluster import binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
COMMANDS = {"sh", "console"}
SECONDS = 60
PROMPT = "$ "
_MARK = re.compile(r"<!-- (?P<kind>not run|run by): (?P<said>\S[^>]*\S) -->")
_EXIT_STATUS = re.compile(r"exit status (\d+)$")
# What differs from run to run; the words stay.
_VARIES = (
    (re.compile(r"\b\w+://[^\s,;]*[^\s,;:.]"), "URL"),
    (re.compile(r"[▁▂▃▄▅▆▇█░]+"), "▒"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z"), "TIME"),
    (re.compile(r"\b(\d+[smhd])+\b"), "0s"),
    (re.compile(r"\d[\d,.]*"), "0"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Step:
    """Commands, and what the page shows as their output; empty if it shows none."""

    script: str
    output: str = ""

    @property
    def status(self) -> int:
        """The exit status that the output tells of."""
        found = _EXIT_STATUS.search(self.output.rstrip())
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    reason: str = ""
    """Why it is not run; empty if it is."""
    runner: str = ""
    """The test file that runs it; empty if it needs nothing beside the repository."""
    section: str = ""
    """The heading above it; empty before the first one."""

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def steps(self) -> list[Step]:
        """One script; in a `console` block each line with a prompt is a command, followed by its output."""
        if self.language != "console":
            return [Step(self.text)]
        commands = re.split(rf"^{re.escape(PROMPT)}", self.text, flags=re.MULTILINE)[1:]
        return [Step(*command.partition("\n")[::2]) for command in commands]


@dataclass(frozen=True)
class Place:
    """Where blocks are run: the repository's folder."""

    environ: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """What the pages name, and what it is called here."""
    folder: Path = ROOT
    path: tuple[str, ...] = ()
    """Folders with more commands."""
    installed: bool = True
    """Whether the commands of this environment are there, as after `pipx install .`."""

    @classmethod
    def on_cluster(
        cls,
        kubeconfig: str,
        folder: Path,
        namespace: str,
        names: Mapping[str, str],
        *programs: str,
        installed: bool = True,
    ) -> Place:
        """With kubectl, whose own namespace is that one, and other programs. `folder` takes a kubeconfig and links."""
        config = yaml.safe_load(Path(kubeconfig).read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        commands = folder / "bin"
        commands.mkdir()  # links, because what else is in the folders of the programs is not meant
        for program in (binaries.kubectl(), *programs):
            (commands / Path(program).name).symlink_to(program)
        environ = {"KUBECONFIG": str(folder / "kubeconfig")}
        return cls(environ, names, path=(str(commands),), installed=installed)

    def here(self, text: str) -> str:
        for name, found in self.names.items():
            text = text.replace(name, found)
        return text

    def start(self, script: str) -> subprocess.Popen[str]:
        """Begin to run it, in a process group of its own. Its output is one text, in `stdout`."""
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self.here(script)],
            cwd=self.folder,
            env={**os.environ, "NO_COLOR": "1", **self.environ, "PATH": self._path()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _path(self) -> str:
        ours = str(Path(sys.executable).parent)
        rest = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != ours]
        return os.pathsep.join([*([ours] if self.installed else []), *self.path, *rest])

    def run(self, step: Step, seconds: float = SECONDS) -> str:
        """All that it writes. Raises AssertionError if its exit status or its output is not as the page shows."""
        running = self.start(step.script)
        try:
            got, _ = running.communicate(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        assert running.returncode == step.status, f"{step.script}\nexit status {running.returncode}:\n{got}"
        missing = differences(self.here(step.output), got)
        assert not missing, f"{step.script}\nthe page shows lines that did not come: {missing}\nbut:\n{got}"
        return got

    def run_all(self, block: Block) -> None:
        for step in block.steps:
            self.run(step)


def differences(shown: str, got: str) -> list[str]:
    """The lines of `shown` that `got` does not have in this order.

    Numbers, times, addresses, sparklines and the width of columns may differ; `got` may have more lines.
    """
    rest = [_words(line) for line in got.splitlines()]
    missing = []
    for line in shown.splitlines():
        if (words := _words(line)) in rest:
            rest = rest[rest.index(words) + 1 :]
        else:
            missing.append(line)
    return missing


def _words(line: str) -> str:
    for pattern, instead in _VARIES:
        line = pattern.sub(instead, line)
    return line.strip()


def pages(root: Path = ROOT) -> list[Path]:
    folders = (root, root / "docs", root / "docs" / "runbooks", root / "tests", *(root / "charts").glob("*"))
    return [page for folder in folders for page in sorted(folder.glob("*.md"))]


def blocks(page: Path, root: Path = ROOT) -> list[Block]:
    found: list[Block] = []
    marked = {"not run": "", "run by": ""}
    section = before = ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block" and (mark := _MARK.fullmatch(token.content.strip())):
            marked[mark["kind"]] = mark["said"]
        elif token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            language = token.info.strip().split(" ")[0]
            name = page.relative_to(root).as_posix()
            found.append(Block(name, line, language, token.content, marked["not run"], marked["run by"], section))
            marked = dict.fromkeys(marked, "")
        elif token.nesting >= 0:
            marked = dict.fromkeys(marked, "")
            section = token.content if before == "heading_open" else section
        before = token.type
    return found


def command_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.language in COMMANDS]


def run_by(file: str) -> list[Block]:
    """The blocks that say that this test file, its `__file__`, runs them."""
    name = Path(file).relative_to(ROOT).as_posix()
    return [block for block in command_blocks() if block.runner == name]
