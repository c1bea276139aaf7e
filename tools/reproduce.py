"""`python -m tools.reproduce`: build the image twice, the second time without cache, and compare the layers."""

from __future__ import annotations

import json
import sys

from tools.image import Engine, EngineUnavailable, ImageError, build, default_tag, engine


def layers(engine: Engine, tag: str) -> list[str]:
    """The digests of the image's layers, the base's first."""
    found: list[str] = json.loads(engine.run("image", "inspect", tag).stdout)[0]["RootFS"]["Layers"]
    return found


def main() -> None:
    """Print the digests. Ends the process with status 1 if the same input made other layers."""
    with engine() as found:
        build(found, default_tag())
        once = layers(found, default_tag())
        build(found, default_tag(), cache=False)
        again = layers(found, default_tag())
    if once != again:
        raise ImageError(f"the same input made other layers: {once} and {again}")
    print("\n".join(again))


if __name__ == "__main__":
    try:
        main()
    except (EngineUnavailable, ImageError) as error:
        sys.exit(f"error: {error}")
