"""`make bench`: measures, prints the results, and writes docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from bench import page
from bench.measure import bench
from bench.sections import choice, comparison, executors, half_load, idle, memory, objects, profile, viewers

if TYPE_CHECKING:
    from types import ModuleType

SECTIONS: dict[str, ModuleType] = {
    "comparison": comparison,
    "half-load": half_load,
    "choice": choice,
    "executors": executors,
    "idle": idle,
    "memory": memory,
    "viewers": viewers,
    "objects": objects,
    "profile": profile,
}
APART = {"objects", "profile"}
"""Sections that run only on request, because they need the control plane or py-spy."""


def main(
    sections: Annotated[list[str] | None, typer.Argument(help=f"Sections to measure: {', '.join(SECTIONS)}.")] = None,
    seconds: Annotated[float, typer.Option(help="Seconds of each measurement.")] = 6,
    rounds: Annotated[int, typer.Option(help="Measurements of each contender.")] = 3,
    smoke: Annotated[
        bool, typer.Option(help="Measure each once, for a second, to check that all work; write nothing.")
    ] = False,
) -> None:
    """Measure, print the results, and write docs/performance.md."""
    chosen = sections or [name for name in SECTIONS if name not in APART]
    measured: dict[str, str] = {}
    console = Console(width=140)
    with bench(1 if smoke else seconds, 1 if smoke else rounds, full=not smoke) as running:
        for name in chosen:
            section = SECTIONS[name]
            text = measured[section.TITLE] = section.run(running)
            console.print(Markdown(f"## {section.TITLE}\n\n{text}"))
            if not smoke:
                page.write([s.TITLE for s in SECTIONS.values()], measured)


if __name__ == "__main__":
    typer.run(main)
