"""`python -m tools.release_notes VERSION`: print what the CHANGELOG says of a version, for the page of its release."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from queueworker import __version__

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(changelog: str, version: str) -> str:
    """The text below the heading of the version, to the next one. Raises ValueError if there is none."""
    found = re.search(
        rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if found is None or not found[1].strip():
        raise ValueError(f"{CHANGELOG.name} says nothing of {version}: name it there in a heading `## {version}`")
    return found[1].strip()


def main(version: str) -> None:
    """Ends the process with a message if it is not the version of this checkout, or has no notes."""
    if version != __version__:
        sys.exit(f"error: this checkout is {__version__}, and not {version}")
    try:
        print(notes(CHANGELOG.read_text(), version))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
