"""The router: pulls tasks, gives each to an executor, reports and publishes the outcome, and loses none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queueworker.routing.config import Endpoint, RouterConfig
    from queueworker.routing.snapshot import Snapshot


class Router:
    """One queue, one pool of executors, one journal.

    `run()` returns once `stop()` has drained it. `on_transition` is called (synchronously, in the
    loop) whenever something changed that a condition in status depends on.
    """

    def __init__(
        self,
        config: RouterConfig,
        endpoints: Sequence[Endpoint],
        *,
        worker_id: str,
        on_transition: Callable[[], None] = lambda: None,
    ) -> None: ...

    async def run(self) -> None: ...

    def apply(self, config: RouterConfig) -> None: ...

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None: ...

    def snapshot(self) -> Snapshot: ...

    async def stop(self) -> None: ...
