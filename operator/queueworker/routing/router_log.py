"""What one router tells the people who read its log: links and executors that change, tasks that fail, a summary.

Lines are bounded: a flapping executor or link logs once in `QUIET_SECONDS`, and above `MAX_FAILURES_PER_SECOND` failed
tasks are counted, not named.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from queueworker.routing.snapshot import ExecutorSnapshot, Link, Transition
from queueworker.routing.wire.reading import last_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queueworker.routing.counters import Counters
    from queueworker.routing.in_flight import InFlightTask

log = logging.getLogger(__name__)

QUIET_SECONDS = 10.0
SUMMARY_SECONDS = 60.0
MAX_FAILURES_PER_SECOND = 10
MAX_LINE_CHARS = 300
MAX_TRANSITIONS = 50
"""Transitions that are kept for the HTTP API."""


class _Subject:
    """One thing that is well or not, and when its last line was logged."""

    __slots__ = ("logged_at", "logged_well", "well")

    def __init__(self) -> None:
        self.well = self.logged_well = True
        self.logged_at = float("-inf")


class RouterLog:
    """Times are seconds on the router's monotonic clock."""

    def __init__(self, group: str) -> None:
        self.transitions: deque[Transition] = deque(maxlen=MAX_TRANSITIONS)
        """The newest changes of links and executors that were logged, the newest first."""
        self._group = group
        self._subjects: dict[str, _Subject] = {}
        self._failures = 0
        self._second = float("-inf")
        self._summary_at = float("-inf")
        self._summary_of = (0, 0, 0)

    # --- tasks

    def completed(self, flight: InFlightTask, seconds: float) -> None:
        log.debug("%s: task %s completed on %s, attempt %d, %d ms", self._group, *_shown(flight, seconds))

    def failed(self, flight: InFlightTask, error: str, seconds: float, now: float) -> None:
        if now - self._second >= 1:
            self._tell_unnamed()
            self._second = now
        self._failures += 1
        if self._failures <= MAX_FAILURES_PER_SECOND:
            shown, why = _shown(flight, seconds), last_line(error, MAX_LINE_CHARS)
            log.warning("%s: task %s failed on %s, attempt %d, %d ms: %s", self._group, *shown, why)

    def _tell_unnamed(self) -> None:
        unnamed, self._failures = self._failures - MAX_FAILURES_PER_SECOND, 0
        if unnamed > 0:
            log.warning("%s: %d more tasks failed within that second", self._group, unnamed)

    # --- links and executors

    def observe(self, links: dict[str, Link], executors: Iterable[ExecutorSnapshot], now: float) -> bool:
        """Log the changes since the last call. Returns whether one has to wait, because it follows another too soon."""
        for name, link in links.items():
            self._take(name, link.ok or not link.message, link.message, now)
        seen = set(links)
        for executor in executors:
            if executor.last_check is not None:
                name = f"executor {executor.name}"
                seen.add(name)
                self._take(name, executor.healthy, executor.reason, now)
        for name in self._subjects.keys() - seen:
            del self._subjects[name]
        return any(subject.well is not subject.logged_well for subject in self._subjects.values())

    def unserved(self, depth: int, *, fails: bool) -> None:
        """Tasks wait in the queue, and no executor is there (depth 0: one is there again, or the tasks are gone)."""
        if depth:
            note = " (whenUnavailable: Fail is about tasks that were pulled)" if fails else ""
            fate = f"they stay in the queue{note}"
            log.warning("%s: %d tasks wait and no executor is healthy: nothing is pulled; %s", self._group, depth, fate)
        else:
            log.warning("%s: no tasks wait for an executor any more", self._group)

    def stalled(self, why: str) -> None:
        """A stall has begun, or it is over (no reason)."""
        if why:
            log.error("%s: stalled: %s", self._group, why)
        else:
            log.warning("%s: tasks are pulled again", self._group)

    def _take(self, name: str, well: bool, message: str, now: float) -> None:
        subject = self._subjects.get(name)
        if subject is None:
            subject = self._subjects[name] = _Subject()
        subject.well = well
        if well is subject.logged_well or now - subject.logged_at < QUIET_SECONDS:
            return
        subject.logged_well, subject.logged_at = well, now
        text = "" if well else last_line(message, MAX_LINE_CHARS)
        self.transitions.appendleft(Transition(time.time(), name, well, text))
        if well:
            log.warning("%s: %s is well again", self._group, name)
        else:
            log.warning("%s: %s: %s", self._group, name, text)

    # --- once a minute

    def summarize(self, counters: Counters, in_flight: int, depth: int | None, now: float) -> None:
        """Log a summary of the last minute, unless nothing happened in it."""
        if now - self._second >= 1:
            self._tell_unnamed()
        if now - self._summary_at < SUMMARY_SECONDS:
            return
        before, after = self._summary_of, (counters.completed, counters.failed, counters.retried)
        first, self._summary_at, self._summary_of = self._summary_at == float("-inf"), now, after
        if first or (before == after and not in_flight):
            return
        completed, failed, retried = (new - old for new, old in zip(after, before, strict=True))
        waiting = "an unknown number of" if depth is None else depth
        ended = f"{completed} tasks completed, {failed} failed, {retried} attempts retried"
        log.info("%s: in the last minute %s; %d in flight, %s tasks wait", self._group, ended, in_flight, waiting)


def _shown(flight: InFlightTask, seconds: float) -> tuple[str, str, int, float]:
    return flight.eval_id, flight.executor or "no executor", flight.attempt, seconds * 1000
