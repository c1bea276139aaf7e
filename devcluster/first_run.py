"""`python -m devcluster.first_run [--node]`: say what the demo builds on this machine first, and how long that takes.

`make demo` runs it before it downloads anything, so it needs nothing but Python's standard library.
"""

from __future__ import annotations

import sys

from devcluster import binaries
from devcluster.progress import say


def announce(*, node: bool) -> None:
    """With `node`, also what a node needs: more programs, Helm and the images."""
    if node and not any((binaries.cache_folder() / "images").glob("*.tar")):
        say("to be built, once: the base of the images, and the images (3 to 4.5 minutes)")
    binaries.announce(*binaries.needed(node=node))


if __name__ == "__main__":
    announce(node="--node" in sys.argv[1:])
