"""`queueworker uninstall`: what stands in the way of the operator's removal."""

# ruff: noqa: PLC0415 -- every command imports this module, so it imports its dependencies late
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.controller.cluster import Cluster
    from queueworker.controller.options import OperatorOptions

HELP = """Say what stands in the way of the operator's removal.

A QueueWorker is deleted only after the operator has drained it. Once the operator is gone, its deletion
hangs, and with it that of its namespace and of the CRD. So run this before `kubectl delete -k` or
`helm uninstall`. It names the QueueWorkers that the operator holds, with exit status 1; delete them while
the operator runs, or release them.

\b
Examples:
  queueworker uninstall
  kubectl delete queueworkers --all --all-namespaces && queueworker uninstall
  queueworker uninstall --release
"""
ADVICE = (
    "delete them while the operator runs (kubectl delete queueworkers --all --all-namespaces), or run "
    "`queueworker uninstall --release`: they stay as they are, and what is in flight stays in the journals"
)


async def uninstall(options: OperatorOptions, *, release: bool) -> int:
    """Returns the exit status. Raises ConfigException if there is no access to a cluster."""
    from queueworker.controller.cluster import FAILED, Cluster, reason_of
    from queueworker.controller.uninstall import ListRefused

    async with Cluster(lambda: None) as cluster:
        try:
            return await _uninstall(cluster, options, release=release)
        except ListRefused as refusal:
            print(refusal, file=sys.stderr)
            return 1
        except FAILED as error:
            print(f"the API server refuses, or cannot be reached: {reason_of(error)}", file=sys.stderr)
            return 1


async def _uninstall(cluster: Cluster, options: OperatorOptions, *, release: bool) -> int:
    from queueworker.controller import uninstall as steps
    from queueworker.controller.watches import key_of

    if release:
        left = await steps.release(cluster, options.namespaces, options.lease_namespace, options.lease_name)
    else:
        left = await steps.held(cluster, options.namespaces)
    if not left:
        print(f"no QueueWorker is held{': the operator can be removed within two minutes' if release else ''}")
        return 0
    print("QueueWorkers that the operator holds:", file=sys.stderr)
    for body in left:
        print("  " + "/".join(key_of(body)), file=sys.stderr)
    print(ADVICE, file=sys.stderr)
    return 1
