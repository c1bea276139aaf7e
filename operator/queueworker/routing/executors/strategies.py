"""Which executor gets the task. Every strategy chooses among executors that are healthy and have a free slot.

The pool keeps those in one list, so that a choice costs the same among three executors and among a thousand: no
strategy walks the whole list on the hot path.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from heapq import nlargest
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from zlib import crc32

from queueworker.resource.spec import RoutingSpec, StickyKey, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

    from queueworker.routing.executors.executor import Executor
    from queueworker.routing.executors.slots import Slots
    from queueworker.routing.in_flight import InFlightTask
    from queueworker.routing.wire.task import Task

FEW = 8
"""Up to this many executors LeastLoaded compares them all; above, two at random (Mitzenmacher, 2001)."""
STICKY_LOAD_BOUND = 1.25
"""An executor takes a sticky task while its load is at most this many times the mean (Mirrokni et al., 2016)."""
_BUCKETS = 1024
_RANKED = 8
_TRIES = 16
_TURNS = 64
_MASK = 0xFFFFFFFFFFFFFFFF


class Candidate(Protocol):
    """What a strategy sees of an executor."""

    @property
    def name(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def available(self) -> bool: ...


C = TypeVar("C", bound=Candidate)


class Chooser(Protocol[C]):
    """One strategy. `choose` gets the executors that may take a task (at least one) and returns one of them."""

    def set_members(self, members: Sequence[C]) -> None:
        """Take the pool's executors, available or not. Called after every change of the pool or of a capacity."""
        ...

    def choose(self, available: Sequence[C], task: Task) -> C: ...


class RandomChoice(Generic[C]):
    """As the legacy worker did."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random

    def set_members(self, members: Sequence[C]) -> None: ...

    def choose(self, available: Sequence[C], task: Task) -> C:  # noqa: ARG002
        return available[int(self._random() * len(available))]


class RoundRobin(Generic[C]):
    """Each executor in its turn; one that is busy or unhealthy misses its turn.

    When nearly all are busy the order means nothing any more, and a long search would only cost: after `_TURNS` tries
    a random available one is taken.
    """

    def __init__(self, rng: Random) -> None:
        self._turns: deque[C] = deque()
        self._otherwise = RandomChoice[C](rng)

    def set_members(self, members: Sequence[C]) -> None:
        stay = set(map(id, members))
        kept = [member for member in self._turns if id(member) in stay]
        known = set(map(id, kept))
        self._turns = deque(kept + [member for member in members if id(member) not in known])

    def choose(self, available: Sequence[C], task: Task) -> C:
        turns = self._turns
        for _ in range(min(len(turns), _TURNS)):
            candidate = turns[0]
            turns.rotate(-1)
            if candidate.available:
                return candidate
        return self._otherwise.choose(available, task)


class LeastLoaded(Generic[C]):
    """The smallest in-flight over capacity: of all executors up to `FEW`, of two drawn at random if there are more."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def set_members(self, members: Sequence[C]) -> None: ...

    def choose(self, available: Sequence[C], task: Task) -> C:  # noqa: ARG002
        count = len(available)
        rng = self._rng
        if count > FEW:
            i = int(rng.random() * count)
            j = int(rng.random() * (count - 1))
            a, b = available[i], available[j if j < i else j + 1]
            return a if load(a) <= load(b) else b
        # A random starting point, so that equally loaded executors share, and the first does not get everything.
        start = int(rng.random() * count)
        best = available[start]
        for offset in range(1, count):
            other = available[(start + offset) % count]
            if load(other) < load(best):
                best = other
        return best


class Weighted(Generic[C]):
    """At random, in proportion to capacity.

    Draws from all executors of the pool and rejects those that are not available. After `_TRIES` rejections it draws
    from the available ones only, which costs a walk through them.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._members: Sequence[C] = ()
        self._cumulated: list[int] = []

    def set_members(self, members: Sequence[C]) -> None:
        self._members = members
        self._cumulated = list(accumulate(member.capacity for member in members))

    def choose(self, available: Sequence[C], task: Task) -> C:  # noqa: ARG002
        if self._cumulated:
            total = self._cumulated[-1]
            for _ in range(_TRIES):
                candidate = self._members[bisect(self._cumulated, self._rng.random() * total)]
                if candidate.available:
                    return candidate
        return self._rng.choices(available, [candidate.capacity for candidate in available])[0]


class Sticky(Generic[C]):
    """The same key to the same executor, by rendezvous hashing with a bounded load.

    Keys fall into buckets, and each bucket ranks the executors by the hash of the pair (Thaler and Ravishankar, 1998):
    when an executor comes or goes, only the keys that it wins or held move. A bucket's ranking is computed when it is
    first needed and kept until the pool changes. A task whose executor's load is above the bound goes to the next one
    in the ranking.
    """

    def __init__(self, rng: Random, key: StickyKey) -> None:
        self._key = _KEYS[key]
        self._otherwise = LeastLoaded[C](rng)
        self._members: Sequence[C] = ()
        self._hashes: list[int] = []
        self._rankings: dict[int, list[C]] = {}

    def set_members(self, members: Sequence[C]) -> None:
        if members == self._members:
            return  # only a capacity changed: that moves no key
        self._members = members
        self._hashes = [_mix(crc32(member.name.encode())) for member in members]
        self._rankings.clear()

    def choose(self, available: Sequence[C], task: Task) -> C:
        bucket = crc32(self._key(task).encode("utf-8", "surrogatepass")) % _BUCKETS
        ranking = self._rankings.get(bucket)
        if ranking is None:
            ranking = self._rankings[bucket] = self._rank(bucket)
        for candidate in ranking:
            # A lone task is within the bound, whatever the mean is.
            if candidate.available and (
                candidate.in_flight == 0 or candidate.in_flight + 1 <= STICKY_LOAD_BOUND * self._mean_load(available)
            ):
                return candidate
        return self._otherwise.choose(available, task)

    def _rank(self, bucket: int) -> list[C]:
        seed = _mix(bucket + 1)
        scored = nlargest(_RANKED, ((_mix(seed ^ h), i) for i, h in enumerate(self._hashes)))
        return [self._members[i] for _, i in scored]

    def _mean_load(self, available: Sequence[C]) -> float:
        """With the task that is to be placed; estimated from a few executors, so that many cost no more."""
        sample = available[:FEW]
        return max(1.0, (sum(c.in_flight for c in sample) + 1) / len(sample))


def load(candidate: Candidate) -> float:
    """In flight over capacity: 0 idle, 1 full."""
    return candidate.in_flight / candidate.capacity


def chooser(strategy: Strategy, key: StickyKey, rng: Random) -> Chooser[C]:
    """The strategy of that name."""
    match strategy:
        case Strategy.RANDOM:
            return RandomChoice[C](rng)
        case Strategy.ROUND_ROBIN:
            return RoundRobin[C](rng)
        case Strategy.LEAST_LOADED:
            return LeastLoaded[C](rng)
        case Strategy.WEIGHTED:
            return Weighted[C](rng)
        case Strategy.STICKY:
            return Sticky[C](rng, key)


# Of long code only the beginning is hashed.
STICKY_CODE_CHARS = 65_536

_KEYS: dict[StickyKey, Callable[[Task], str]] = {
    StickyKey.EVAL_ID: lambda task: task.eval_id,
    StickyKey.CODE: lambda task: task.code[:STICKY_CODE_CHARS],
    StickyKey.LANGUAGE: lambda task: task.language,
    StickyKey.ENGINE: lambda task: task.engine,
}


def _mix(value: int) -> int:
    """splitmix64's finalizer: spreads neighbouring numbers over 64 bits (Steele et al., 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Choice:
    """Chooses by the strategy of the spec, and past the executors that have failed the task."""

    def __init__(self, spec: RoutingSpec, slots: Slots, rng: Random) -> None:
        self._slots = slots
        self._rng = rng
        self._by = (spec.strategy, spec.sticky_key)
        self._chooser: Chooser[Executor] = chooser(*self._by, rng)

    def apply(self, spec: RoutingSpec) -> None:
        """Take a changed spec; `set_members` follows."""
        if self._by != (spec.strategy, spec.sticky_key):
            self._by = (spec.strategy, spec.sticky_key)
            self._chooser = chooser(*self._by, self._rng)

    def set_members(self, members: Iterable[Executor]) -> None:
        """Take the pool's executors. Called after every change of the pool or of a capacity."""
        self._chooser.set_members(tuple(members))

    def executor_for(self, flight: InFlightTask) -> Executor:
        """An executor that is available; there must be one. One that has failed the task only if there is no other."""
        slots = self._slots
        executor = self._chooser.choose(slots.available, flight.task)
        if flight.failed_at and executor.name in flight.failed_at:
            others = slots.others(flight.failed_at)
            return self._rng.choice(others) if others else executor
        return executor
