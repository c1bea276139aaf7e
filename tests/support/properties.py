"""How many examples a property test tries."""

from __future__ import annotations

import os

SEARCHING = "PROPERTY_EXAMPLES" in os.environ
"""Whether this is `make test-properties`, which looks for new examples and makes what it finds small."""


def examples(few: int) -> int:
    """So many in the fast run; PROPERTY_EXAMPLES in a search."""
    return int(os.environ.get("PROPERTY_EXAMPLES", few))
