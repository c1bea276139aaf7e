"""The account at the end of every case: the router's promises, compared with the platform's records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.faults.ledger import TAKEN

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tests.support.faults.ledger import Events, Ledger


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What a case makes unavoidable, by id. Anything else is a defect."""

    lost: Collection[str] = ()
    """The queue handed them out into an answer that never arrived: all of these, and only these, are lost."""
    unjournaled: Collection[str] = ()
    """In no journal yet when their router died: all of these, and only these, are lost; they may have run."""
    forgotten: Collection[str] = ()
    """The queue had lost its memory of these by the time of their report: it is made, and answered `unknown`."""
    told_again: Collection[str] = ()
    """Reported again after the queue took the report: its answer was lost, or it handed the id out again."""
    may_run_twice: Collection[str] = ()
    """May be executed more than once; their case says why."""
    published_elsewhere: Collection[str] = ()
    """Their events went to a Redis that lost them before anybody received them."""
    published_by_executors: Collection[str] = ()
    """Asynchronous executors published their outcomes: a timeout as completed, and perhaps before `running`."""


@dataclass(slots=True)
class Findings:
    """What does not add up, in sentences; empty when everything does."""

    problems: list[str] = field(default_factory=list)

    def check(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)


def findings(ledger: Ledger, events: Events, given: Exceptions) -> list[str]:
    """Sentences about everything that does not add up, of the ids that the queue handed out."""
    handed_out = ledger.ids("handed-out")
    taken = ledger.by_id(*TAKEN)
    unknown = ledger.by_id("unknown")
    started = ledger.by_id("started")
    published = events.by_id()
    found = Findings()
    strangers = (taken.keys() | unknown.keys() | started.keys() | published.keys()) - handed_out
    found.check(not strangers, f"never handed out, and yet seen: {sorted(strangers)}")
    for eval_id in sorted(handed_out):
        kinds = [act.what for act in taken[eval_id]] if eval_id in taken else []
        runs = len(started.get(eval_id, ()))
        heard = published.get(eval_id, [])
        if eval_id in given.lost:
            found.check(not kinds and not runs and not heard, f"{eval_id} is declared lost, and is not")
            continue
        if eval_id in given.unjournaled:
            found.check(not kinds and not heard and runs < 2, f"{eval_id} is declared lost with its router, and is not")
            continue
        found.check(len(kinds) == (eval_id not in given.forgotten), f"{eval_id}: reports that the queue took: {kinds}")
        again = len(unknown.get(eval_id, ()))
        if eval_id in given.forgotten:
            found.check(again == 1, f"{eval_id}: {again} reports after the queue forgot it")
        else:
            found.check(not again or eval_id in given.told_again, f"{eval_id} was reported {again} times too often")
        found.check(runs < 2 or eval_id in given.may_run_twice, f"{eval_id} ran {runs} times")
        found.check(runs > 0 or "completed" not in kinds, f"{eval_id} completed and never ran")
        if eval_id in given.published_by_executors:
            found.check(bool(set(heard) - {"running"}), f"{eval_id}: no outcome was published")
        elif eval_id not in given.published_elsewhere:
            _check_events(found, eval_id, heard, kinds)
    return found.problems


def _check_events(found: Findings, eval_id: str, heard: list[str], kinds: list[str]) -> None:
    outcomes = Counter(channel for channel in heard if channel != "running")
    found.check(bool(outcomes), f"{eval_id}: no outcome was published")
    found.check(len(outcomes) < 2, f"{eval_id}: published as {dict(outcomes)}")
    if kinds and outcomes:
        found.check(set(outcomes) == set(kinds), f"{eval_id}: reported {kinds}, published {dict(outcomes)}")
    first = next((i for i, channel in enumerate(heard) if channel != "running"), len(heard))
    found.check("running" not in heard[first:], f"{eval_id}: `running` after its outcome: {heard}")


def unsettled(ledger: Ledger, events: Events, given: Exceptions, in_flight: Mapping[str, float]) -> list[str]:
    """What the end of the case still waits for."""
    handed_out = ledger.ids("handed-out") - {*given.lost, *given.unjournaled}
    reported = ledger.ids(*TAKEN, "unknown")
    heard = {eval_id for channel, eval_id in events.seen if channel != "running"} | set(given.published_elsewhere)
    waits = []
    if missing := handed_out - reported:
        waits.append(f"not reported: {sorted(missing)}")
    if missing := handed_out - heard:
        waits.append(f"not published: {sorted(missing)}")
    if busy := {name: value for name, value in in_flight.items() if value}:
        waits.append(f"slots not back at zero: {busy}")
    return waits
