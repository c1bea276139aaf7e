"""`queueworker healthcheck`: what the image's HEALTHCHECK runs. It needs the standard library only."""

from __future__ import annotations

import http.client
from contextlib import closing

HELP = """Ask the worker or operator of this container whether it is alive. The exit status is 0 if it is, else 1.

This is what the image's HEALTHCHECK runs. HOST and PORT are the worker's own variables; for an operator on
another port, use --port.
"""
TIMEOUT_SECONDS = 5.0
ALL_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
MAX_SHOWN = 200
"""Bytes of an answer that are shown."""


def healthcheck(host: str, port: int, path: str = "/livez") -> tuple[bool, str]:
    """Whether the process answers with 200, and what it said. `::` and `0.0.0.0` are asked on this machine."""
    try:
        with closing(_connection(host, port)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            said = answer.read(MAX_SHOWN).decode("utf-8", "replace").strip()
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no host has such a name
        return False, f"no answer from {host}:{port}: {error}"
    return answer.status == http.client.OK, f"{answer.status} {said}"


def _connection(host: str, port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(ALL_ADDRESSES.get(host, host), port, timeout=TIMEOUT_SECONDS)
