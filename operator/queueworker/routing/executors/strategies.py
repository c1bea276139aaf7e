"""Which executor gets the task. Every strategy chooses among executors that are healthy and have a free slot.

The pool keeps those in one list, so that a choice costs the same among three executors and among a
thousand: nothing here walks the whole list on the hot path.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from heapq import nlargest
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from queueworker.resource.spec import StickyKey, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

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


class Chooser(Protocol):
    """One strategy. `choose` gets the executors that may take a task (never empty) and returns one of them."""

    def members(self, members: Sequence[Candidate]) -> None:
        """The pool's executors, available or not, after every change of the pool."""
        ...

    def choose(self, available: Sequence[Candidate], task: Task) -> Candidate: ...


class RandomChoice:
    """What the legacy worker did."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random

    def members(self, members: Sequence[Candidate]) -> None: ...

    def choose(self, available: Sequence[Candidate], task: Task) -> Candidate:  # noqa: ARG002
        return available[int(self._random() * len(available))]


class RoundRobin:
    """Each in its turn; one that is busy or unhealthy misses its turn.

    When nearly all are busy the order has no meaning left, and a long search for it would only cost:
    after some tries any available one will do.
    """

    def __init__(self, rng: Random) -> None:
        self._turns: deque[Candidate] = deque()
        self._otherwise = RandomChoice(rng)

    def members(self, members: Sequence[Candidate]) -> None:
        stay = set(map(id, members))
        kept = [member for member in self._turns if id(member) in stay]
        known = set(map(id, kept))
        self._turns = deque(kept + [member for member in members if id(member) not in known])

    def choose(self, available: Sequence[Candidate], task: Task) -> Candidate:
        turns = self._turns
        for _ in range(min(len(turns), _TURNS)):
            candidate = turns[0]
            turns.rotate(-1)
            if candidate.available:
                return candidate
        return self._otherwise.choose(available, task)


class LeastLoaded:
    """The smallest in-flight over capacity: of all when they are few, of two drawn at random when they are many."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def members(self, members: Sequence[Candidate]) -> None: ...

    def choose(self, available: Sequence[Candidate], task: Task) -> Candidate:  # noqa: ARG002
        count = len(available)
        rng = self._rng
        if count > FEW:
            i = int(rng.random() * count)
            j = int(rng.random() * (count - 1))
            a, b = available[i], available[j if j < i else j + 1]
            return a if load(a) <= load(b) else b
        # a random starting point, so that equals share and the first one does not get everything
        start = int(rng.random() * count)
        best = available[start]
        for offset in range(1, count):
            other = available[(start + offset) % count]
            if load(other) < load(best):
                best = other
        return best


class Weighted:
    """At random, in proportion to capacity.

    Draws from all the pool's executors and rejects those that are not available; when nearly none is,
    it draws among the available ones alone, which costs a walk through them.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._members: Sequence[Candidate] = ()
        self._cumulated: list[int] = []

    def members(self, members: Sequence[Candidate]) -> None:
        self._members = members
        self._cumulated = list(accumulate(member.capacity for member in members))

    def choose(self, available: Sequence[Candidate], task: Task) -> Candidate:  # noqa: ARG002
        if self._cumulated:
            total = self._cumulated[-1]
            for _ in range(_TRIES):
                candidate = self._members[bisect(self._cumulated, self._rng.random() * total)]
                if candidate.available:
                    return candidate
        return self._rng.choices(available, [candidate.capacity for candidate in available])[0]


class Sticky:
    """The same key to the same executor, by rendezvous hashing with a bounded load.

    Keys fall into buckets, and each bucket ranks the executors by the hash of the pair (Thaler and
    Ravishankar, 1998): when one comes or goes, only the keys that it wins or held move. A bucket's
    ranking is made when it is first asked for and kept until the pool changes. An executor whose load
    is above the bound passes the task on to the next in the ranking.
    """

    def __init__(self, rng: Random, key: StickyKey) -> None:
        self._key = _KEYS[key]
        self._otherwise = LeastLoaded(rng)
        self._members: Sequence[Candidate] = ()
        self._hashes: list[int] = []
        self._rankings: dict[int, list[Candidate]] = {}

    def members(self, members: Sequence[Candidate]) -> None:
        if members == self._members:
            return  # a capacity changed, which moves no key
        self._members = members
        self._hashes = [_mix(crc32(member.name.encode())) for member in members]
        self._rankings.clear()

    def choose(self, available: Sequence[Candidate], task: Task) -> Candidate:
        bucket = crc32(self._key(task).encode("utf-8", "surrogatepass")) % _BUCKETS
        ranking = self._rankings.get(bucket)
        if ranking is None:
            ranking = self._rankings[bucket] = self._rank(bucket)
        for candidate in ranking:
            # a lone task is always within the bound, whatever the mean
            if candidate.available and (
                candidate.in_flight == 0 or candidate.in_flight + 1 <= STICKY_LOAD_BOUND * self._mean_load(available)
            ):
                return candidate
        return self._otherwise.choose(available, task)

    def _rank(self, bucket: int) -> list[Candidate]:
        seed = _mix(bucket + 1)
        scored = nlargest(_RANKED, ((_mix(seed ^ h), i) for i, h in enumerate(self._hashes)))
        return [self._members[i] for _, i in scored]

    def _mean_load(self, available: Sequence[Candidate]) -> float:
        """Estimated of a few, to cost the same for many: the task itself counts too."""
        sample = available[:FEW]
        return max(1.0, (sum(c.in_flight for c in sample) + 1) / len(sample))


def load(candidate: Candidate) -> float:
    """In flight over capacity: 0 idle, 1 full."""
    return candidate.in_flight / candidate.capacity


def chooser(strategy: Strategy, key: StickyKey, rng: Random) -> Chooser:
    """The strategy of that name."""
    match strategy:
        case Strategy.RANDOM:
            return RandomChoice(rng)
        case Strategy.ROUND_ROBIN:
            return RoundRobin(rng)
        case Strategy.LEAST_LOADED:
            return LeastLoaded(rng)
        case Strategy.WEIGHTED:
            return Weighted(rng)
        case Strategy.STICKY:
            return Sticky(rng, key)


# A large task's code counts up to here.
STICKY_BYTES = 65_536

_KEYS: dict[StickyKey, Callable[[Task], str]] = {
    StickyKey.EVAL_ID: lambda task: task.eval_id,
    StickyKey.CODE: lambda task: task.code if isinstance(task.code, str) else bytes(task.code[:STICKY_BYTES]).hex(),
    StickyKey.LANGUAGE: lambda task: task.language,
    StickyKey.ENGINE: lambda task: task.engine,
}


def _mix(value: int) -> int:
    """splitmix64's finalizer: spreads neighbouring numbers over 64 bits (Steele et al., 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
