"""`queueworker selftest`: what `helm test` runs."""

# ruff: noqa: PLC0415 -- every command imports this module, so it imports its dependencies late
from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueworker.processes.selftest import SelfTestOptions

HELP = """Route some tasks through the operator of this cluster, from a queue of our own to an executor of our own.

Both are in this process, and a QueueWorker between them is made for the test and deleted after it. `helm test` runs
this in a pod.
"""


async def selftest(options: SelfTestOptions) -> int:
    """Returns the exit status. The object is deleted also after SIGTERM. Raises CannotListen."""
    from queueworker.controller.cluster import FAILED, reason_of
    from queueworker.processes.selftest import SelfTestError, self_test

    testing = asyncio.create_task(self_test(options))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, testing.cancel)
    try:
        await testing
    except SelfTestError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except FAILED as error:
        print(f"failed: the API server refuses, or cannot be reached: {reason_of(error)}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("failed: ended by SIGTERM", file=sys.stderr)
        return 1
    return 0
