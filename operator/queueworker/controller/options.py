"""The options of the operator."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Empty `namespaces` means all namespaces. `identity` is unique for each replica.

    `in_pod`: the operator runs in the cluster, and short host names are looked up in the namespace of their object.
    """

    namespaces: tuple[str, ...] = ()
    lease_name: str = "queueworker-operator"
    lease_namespace: str = "queueworker-system"
    in_pod: bool = False
    memory_budget_mebibytes: int | None = None
    """For what all routers hold in memory. None: it follows from the container's memory limit."""
    address: str = ""
    """The base URL at which other replicas reach our HTTP API; empty if it is not known."""
    managed_pools: bool = False
    """Whether it runs pods for objects with `executors.template`."""
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid4().hex[:8]}")
