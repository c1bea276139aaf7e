"""What is worth a warning in an environment, though a process can start with it."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

ALIKE = 0.75
"""How much of two names must be the same (difflib's ratio) for one to be a misspelling of the other."""
MIN_NAME_CHARS = 6
"""Shorter names are too often like each other."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# Kubernetes sets these for each Service of the namespace.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


def is_service_link(value: str) -> bool:
    """Kubernetes set the value for a Service: <SERVICE>_PORT=tcp://…; one named `executor` sets EXECUTOR_PORT."""
    return _LINK_VALUE.match(value) is not None


def misspelt(environ: Mapping[str, str], names: Collection[str]) -> Iterable[str]:
    """A warning for each variable that is not read, and whose name is nearly one of these."""
    long_names = [name for name in names if len(name) >= MIN_NAME_CHARS]
    for given in sorted(environ.keys() - set(names)):
        if len(given) < MIN_NAME_CHARS or _SERVICE_LINK.search(given) or is_service_link(environ[given]):
            continue
        near = get_close_matches(given.upper(), long_names, n=1, cutoff=ALIKE)
        if near:
            yield f"{given} is not read: is {near[0]} meant?"


def ignored_proxies(environ: Mapping[str, str]) -> Iterable[str]:
    """A warning if proxies are configured: none of our clients uses them."""
    found = [name for name in environ if name.upper() in _PROXIES and environ[name].strip()]
    if found:
        yield (
            f"{', '.join(sorted(found))} is set and not used: the API server, queues, executors and Redis are "
            "reached directly"
        )
