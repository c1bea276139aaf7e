"""The acts: what is broken, how it is noticed, and when it counts as healed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from demo.show.facts import Facts

ACT_SECONDS = 30.0
"""After this time, what an act broke is brought back even if it has not healed, and the next act may begin."""
POD_SECONDS = 90.0
"""The same where pods come and go: a pod that starts, and one that ends its tasks, take up to half a minute each."""
READY_SECONDS = 5.0
FEW_TASKS = 2
"""As many tasks have to be executing when something is killed, so that there is something to lose."""
TAKEOVER_SECONDS = 10.0
"""After this time a dead router's journal was taken over, even if nothing was in it (its lease expires after 6 s, and
the operator's Lease after 8 s)."""


class Kind(Enum):
    """The kinds of commands to the platform. KILL_EXECUTOR and SCALE have a number."""

    KILL_EXECUTOR = auto()
    START_EXECUTORS = auto()
    KILL_ROUTER = auto()
    START_ROUTER = auto()
    STOP_REDIS = auto()
    START_REDIS = auto()
    STOP_QUEUE = auto()
    START_QUEUE = auto()
    SCALE = auto()


@dataclass(frozen=True, slots=True)
class Command:
    kind: Kind
    number: int = 0
    """Of the executor that is killed; or how many executors the pool gets."""


Done = Callable[[Facts, Facts], bool]
"""Gets the facts from before the act, and those of now."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and the condition that ends the step; then `hold` seconds pass before the next step."""

    command: Callable[[Facts], Command]
    done: Done
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Act:
    """Its first step breaks something. It has healed when its last step is done."""

    key: str
    name: str
    title: str
    steps: tuple[Step, ...]
    note: Callable[[Facts, Facts], str] = lambda _before, _now: ""
    seconds: float = ACT_SECONDS
    """Time that it has to heal."""
    ready: Callable[[Facts], bool] = lambda _facts: True
    """True at a good moment for it to begin; `READY_SECONDS` later it begins anyway."""


def _always(kind: Kind, number: int = 0) -> Callable[[Facts], Command]:
    return lambda _facts: Command(kind, number)


def _tasks_are_executing(facts: Facts) -> bool:
    return facts.executing >= FEW_TASKS


def _calm(_before: Facts, now: Facts) -> bool:
    return now.calm


def _busiest(facts: Facts) -> Command:
    """Kill the executor that runs the most tasks: there is most to lose."""
    pool = facts.router.pool if facts.router else ()
    chosen = max(pool, key=lambda e: (e.healthy, e.in_flight), default=None)
    return Command(Kind.KILL_EXECUTOR, chosen.number if chosen else 1)


def _executor_is_sick(_before: Facts, now: Facts) -> bool:
    return now.router is not None and not all(e.healthy for e in now.router.pool)


def _executor_is_missing(before: Facts, now: Facts) -> bool:
    return _executor_is_sick(before, now) or _executors(now) < _executors(before)


def _pool_is_whole(before: Facts, now: Facts) -> bool:
    return now.calm and _executors(now) >= _executors(before)


def _executors(facts: Facts) -> int:
    return len(facts.router.pool) if facts.router else 0


def _router_is_gone(before: Facts, now: Facts) -> bool:
    """No router answers, or another one: on a machine under load two of them may lead for a moment."""
    return now.router is None or (before.router is not None and now.router.url != before.router.url)


def _taken_over(before: Facts, now: Facts) -> bool:
    return now.calm and (_recovered(before, now) > 0 or now.at - before.at > TAKEOVER_SECONDS)


def _recovered(before: Facts, now: Facts) -> int:
    if now.router is None:
        return 0
    return max(0, now.router.recovered - (before.router.recovered if before.router else 0))


def _redis_is_away(_before: Facts, now: Facts) -> bool:
    return now.router is not None and now.router.redis is False


def _queue_is_away(_before: Facts, now: Facts) -> bool:
    return now.router is not None and now.router.queue is False


def _pool_is(count: int) -> Done:
    def done(_before: Facts, now: Facts) -> bool:
        return now.router is not None and now.calm and len(now.router.executors) == count

    return done


def _ran_on_it(before: Facts, now: Facts) -> str:
    failed = (now.stored.failed - now.stored.on_purpose) - (before.stored.failed - before.stored.on_purpose)
    return f"{failed} of its tasks failed" if failed > 0 else "no task failed"


def _from_the_journal(before: Facts, now: Facts) -> str:
    found = _recovered(before, now)
    return f"{found} taken from the journal" if found else "its journal was empty"


def scaling(count: int) -> Act:
    """The act of the keys + and -."""
    step = Step(_always(Kind.SCALE, count), _pool_is(count))
    title = f"The pool moves to {count} executors, while tasks run"
    return Act("", f"pool to {count}", title, (step,), seconds=POD_SECONDS)


EXECUTOR = Act(
    "e",
    "executor killed",
    "An executor is killed with its tasks; the others go on",
    (
        Step(_busiest, _executor_is_sick, hold=2),
        Step(_always(Kind.START_EXECUTORS), _calm),
    ),
    _ran_on_it,
    ready=_tasks_are_executing,
)
ROUTER = Act(
    "r",
    "router killed",
    "The router is killed; another finds its tasks in the journal",
    (
        Step(_always(Kind.KILL_ROUTER), _router_is_gone, hold=1),
        Step(_always(Kind.START_ROUTER), _taken_over),
    ),
    _from_the_journal,
    ready=_tasks_are_executing,
)
REDIS = Act(
    "d",
    "Redis stopped",
    "Redis is stopped: events wait in memory, tasks go on",
    (
        Step(_always(Kind.STOP_REDIS), _redis_is_away, hold=4),
        Step(_always(Kind.START_REDIS), _calm),
    ),
)
QUEUE = Act(
    "u",
    "queue stopped",
    "The queue is stopped: results wait until it is back",
    (
        Step(_always(Kind.STOP_QUEUE), _queue_is_away, hold=1.5),
        Step(_always(Kind.START_QUEUE), _calm),
    ),
)
POOL = Act(
    "p",
    "pool 3 > 5 > 2",
    "The pool moves from 3 to 5 to 2 executors while tasks run",
    (
        Step(_always(Kind.SCALE, 5), _pool_is(5), hold=2),
        Step(_always(Kind.SCALE, 2), _pool_is(2), hold=2),
        Step(_always(Kind.SCALE, 3), _pool_is(3)),
    ),
)
ACTS = (EXECUTOR, ROUTER, REDIS, QUEUE, POOL)
"""The programme on this machine."""

EXECUTOR_POD = Act(
    "e",
    "pod killed",
    "An executor's pod is deleted by force; the pool makes it again",
    (
        Step(_busiest, _executor_is_missing),
        Step(_always(Kind.START_EXECUTORS), _pool_is_whole),
    ),
    _ran_on_it,
    POD_SECONDS,
    _tasks_are_executing,
)
LEADER_POD = Act(
    "r",
    "leader killed",
    "The leader's pod is deleted by force; the other replica goes on",
    ROUTER.steps,
    _from_the_journal,
    POD_SECONDS,
    _tasks_are_executing,
)
POD_ACTS = (replace(POOL, seconds=2 * POD_SECONDS), EXECUTOR_POD, LEADER_POD)
"""The programme on a cluster, where Kubernetes itself brings back what is killed."""
