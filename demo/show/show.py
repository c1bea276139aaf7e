"""The course of the show: which act is on, what comes next, what the keys do. It decides, and does nothing itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from demo.services.gateway import MAX_EXECUTORS
from demo.show.acts import ACT_SECONDS, ACTS, READY_SECONDS, Act, Command, scaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.show.facts import Facts

CALM_SECONDS = 2.0
"""Time of calm before an act begins, so that a person sees that all is well."""
START_SECONDS = 60.0
MAX_WAITING = 5
"""Acts that a person asked for and that have not begun."""


class Outcome(Enum):
    RUNNING = auto()
    HEALED = auto()
    GIVEN_UP = auto()


@dataclass(slots=True)
class Performance:
    """One performance of an act; times are in seconds since it began."""

    act: Act
    before: Facts
    outcome: Outcome = Outcome.RUNNING
    noticed: float | None = None
    ended: float | None = None
    note: str = ""
    step: int = 0
    step_done_at: float | None = None


class Show:
    """Call `step` with each new observation and carry out what it returns.

    Time counts from the first calm, which is waited for `START_SECONDS` at most. After `last_start` seconds no act
    begins any more; the one that is on is brought to its end.
    """

    def __init__(self, acts: Sequence[Act] = ACTS, last_start: float = float("inf")) -> None:
        self.acts = tuple(acts)
        self.performances: list[Performance] = []
        self.paused = False
        self.ending = False
        self._waiting: deque[Act] = deque()
        self._programme = deque(acts)
        self._last_start = last_start
        self._first_at: float | None = None
        self._began: float | None = None
        self._calm_since: float | None = None
        self._unready_since: float | None = None
        """Since when the next act has waited for a good moment."""

    @property
    def now_on(self) -> Performance | None:
        last = self.performances[-1] if self.performances else None
        return last if last is not None and last.outcome is Outcome.RUNNING else None

    @property
    def to_come(self) -> tuple[Act, ...]:
        """Acts that have not begun: those that a person asked for, then those of the programme."""
        return () if self.ending else (*self._waiting, *self._programme)

    @property
    def programme_is_over(self) -> bool:
        return not self._programme and self.now_on is None

    @property
    def over(self) -> bool:
        return self.ending and self.now_on is None

    @property
    def has_begun(self) -> bool:
        return self._began is not None

    def seconds(self, now: float) -> float:
        return 0.0 if self._began is None else now - self._began

    def end(self) -> None:
        """Begin no further act."""
        self.ending = True

    def press(self, key: str, facts: Facts) -> None:
        """A key of a person; others than ours are ignored."""
        if key == "q":
            self.end()
        elif key == " ":
            self.paused = not self.paused
        elif key in "+-" and facts.router is not None:
            wanted = len(facts.router.pool) + (1 if key == "+" else -1)
            self._ask(scaling(min(max(wanted, 1), MAX_EXECUTORS)))
        else:
            for act in self.acts:
                if act.key == key:
                    self._ask(act)

    def step(self, facts: Facts) -> list[Command]:
        """Returns the commands to carry out now."""
        if self._first_at is None:
            self._first_at = facts.at
        if self._began is None and (facts.calm or facts.at - self._first_at >= START_SECONDS):
            self._began = facts.at
        if not facts.calm:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = facts.at
        if self.seconds(facts.at) >= self._last_start:
            self.end()
        performance = self.now_on
        if performance is not None:
            return self._go_on(performance, facts)
        return self._begin(facts)

    def _ask(self, act: Act) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(act)

    def _begin(self, facts: Facts) -> list[Command]:
        if self.ending:
            return []
        if self._waiting:
            acts = self._waiting
        elif self._programme and not self.paused and self._is_time(facts.at):
            acts = self._programme
        else:
            return []
        if not self._is_good_moment(acts[0], facts):
            return []
        act = acts.popleft()
        self.performances.append(Performance(act, facts))
        return [act.steps[0].command(facts)]

    def _is_time(self, now: float) -> bool:
        """All is well; or it has not been for as long as an act may take, since the last one."""
        if self._calm_since is not None:
            return now - self._calm_since >= CALM_SECONDS
        last = self.performances[-1].before.at if self.performances else self._began
        return last is not None and now - last >= 2 * ACT_SECONDS

    def _is_good_moment(self, act: Act, facts: Facts) -> bool:
        """It is; or none has come for `READY_SECONDS`."""
        if self._unready_since is None:
            self._unready_since = facts.at
        if not act.ready(facts) and facts.at - self._unready_since < READY_SECONDS:
            return False
        self._unready_since = None
        return True

    def _go_on(self, performance: Performance, facts: Facts) -> list[Command]:
        act, since = performance.act, facts.at - performance.before.at
        if since >= act.seconds:
            return self._give_up(performance, facts, since)
        step = act.steps[performance.step]
        if performance.step_done_at is None:
            if not step.done(performance.before, facts):
                return []
            performance.step_done_at = since
            if performance.step == 0:
                performance.noticed = since
        if performance.step == len(act.steps) - 1:
            self._close(performance, facts, Outcome.HEALED, since)
            return []
        if since < performance.step_done_at + step.hold:
            return []
        performance.step += 1
        performance.step_done_at = None
        return [act.steps[performance.step].command(facts)]

    def _give_up(self, performance: Performance, facts: Facts, since: float) -> list[Command]:
        """Bring back what is not back yet."""
        self._close(performance, facts, Outcome.GIVEN_UP, since)
        return [step.command(facts) for step in performance.act.steps[performance.step + 1 :]]

    def _close(self, performance: Performance, facts: Facts, outcome: Outcome, since: float) -> None:
        performance.outcome, performance.ended = outcome, since
        performance.note = performance.act.note(performance.before, facts)
        self._calm_since = facts.at if facts.calm else None
