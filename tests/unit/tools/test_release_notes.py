"""What a release says of itself comes from the CHANGELOG."""

from __future__ import annotations

import pytest

from tools.release_notes import notes

CHANGELOG = """# Changelog

## Unreleased

* Something new.

## 0.2.0 (2026-01-01)

### Added

* A thing.

## 0.1.0

The first version.
"""


@pytest.mark.parametrize(("version", "text"), [("0.2.0", "### Added\n\n* A thing."), ("0.1.0", "The first version.")])
def test_the_notes_are_what_stands_below_the_heading(version: str, text: str) -> None:
    assert notes(CHANGELOG, version) == text


def test_a_version_without_a_heading_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"name it there in a heading `## 0\.3\.0`"):
        notes(CHANGELOG, "0.3.0")
