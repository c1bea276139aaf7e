"""`queueworker healthcheck`: what the image's HEALTHCHECK runs. It needs the standard library only."""

from __future__ import annotations

import http.client

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
    connection = http.client.HTTPConnection(ALL_ADDRESSES.get(host, host), port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(MAX_SHOWN).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()
    return answer.status == http.client.OK, f"{answer.status} {said}"
