"""The runners of one term: one for each object that exists, for as long as it exists."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from queueworker.controller.finalizer import is_deleted, is_held
from queueworker.controller.watches import key_of
from queueworker.routing.aio import happens, uncancel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from queueworker.controller.registry import Registry
    from queueworker.controller.runner import ObjectRunner
    from queueworker.controller.watches import Body, Key

log = logging.getLogger(__name__)

MAX_RELEASED = 1000
RESTART_SECONDS = 5.0
"""From the end of a runner that failed to its successor."""


class Objects:
    """Follows the QueueWorkers. Runners end with their objects, or with the term. One that fails is started again, once
    its router has drained: two routers of an object in one process would not know of each other.

    An object that was deleted while nobody led still has our finalizer: its runner reports what is in its journal.
    """

    def __init__(
        self,
        registry: Registry,
        make: Callable[[Body], ObjectRunner],
        *,
        restart_seconds: float = RESTART_SECONDS,
    ) -> None:
        self._registry = registry
        self._make = make
        self._running: set[asyncio.Task[None]] = set()
        self._successors: dict[Key, Body] = {}
        """Objects whose predecessor of the same name is still ending."""
        self._released: deque[str | None] = deque(maxlen=MAX_RELEASED)
        """The uids of deleted objects whose end is done: a late event must not begin it again."""
        self._closing = asyncio.Event()
        self._restart_seconds = restart_seconds

    # --- what the watch tells

    def changed(self, event: str | None, body: Body) -> None:
        key = key_of(body)
        runner = self._registry.runners.get(key)
        if event == "DELETED":
            self._forget(key, body["metadata"].get("uid"))
        elif runner is None:
            self._start(body)
        elif runner.uid == body["metadata"].get("uid"):
            runner.observe(body)
        else:
            self._successors[key] = body
            runner.gone()

    def listed(self, namespace: str, bodies: Sequence[Body], newer: Collection[Key]) -> None:
        """What is not in the list any more is gone, also if the watch did not say so."""
        found = {key_of(body): body for body in bodies}
        for key in list(self._registry.present):
            if namespace in {"", key[0]} and key not in found and key not in newer:
                self._forget(key, None)
        for key, body in found.items():
            if key not in newer:
                self.changed(None, body)

    def watch_changed(self, namespace: str, problem: str) -> None:
        """Nothing: the runners go on with the objects that they know."""

    # --- the end of the term

    async def close(self) -> None:
        """Drain all routers; what is not done by then stays in the journals for the next leader."""
        self._closing.set()
        runners = list(self._registry.runners.values())
        await asyncio.gather(*(runner.stop() for runner in runners))
        if self._running:
            await asyncio.wait(self._running)

    # --- runners

    def _start(self, body: Body) -> None:
        ended = is_deleted(body) and (not is_held(body) or body["metadata"].get("uid") in self._released)
        if self._closing.is_set() or ended:
            self._registry.present.discard(key_of(body))
            return
        runner = self._make(body)
        self._registry.present.add(key_of(body))
        self._registry.runners[key_of(body)] = runner
        task = asyncio.create_task(self._run(runner), name=f"runner of {runner.namespace}/{runner.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, runner: ObjectRunner) -> None:
        key = (runner.namespace, runner.name)
        try:
            await runner.run()
            self._registry.present.discard(key)
            if is_deleted(runner.body):
                self._released.append(runner.uid)
        except (Exception, asyncio.CancelledError):  # nobody cancels it, but a library may leave a cancellation behind
            log.exception("%s/%s: the runner failed; another one follows when its router has drained", *key)
            uncancel()
            await runner.stop()
            await happens(self._closing, self._restart_seconds)
        del self._registry.runners[key]
        same = dict(runner.body) if key in self._registry.present else None
        following = self._successors.pop(key, same)
        if following is not None:
            self._start(following)

    def _forget(self, key: Key, uid: str | None) -> None:
        """The object of that uid (None: whatever its uid is) does not exist any more."""
        successor = self._successors.get(key)
        if successor is not None and uid in {None, successor["metadata"].get("uid")}:
            del self._successors[key]
        runner = self._registry.runners.get(key)
        if runner is None or uid in {None, runner.uid}:
            self._registry.present.discard(key)
            if runner is not None:
                runner.gone()
