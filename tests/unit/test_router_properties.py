"""Whatever fails, in whatever order: every task is reported once. Random interleavings of faults on a virtual clock.

Hypothesis drives routers, their pools and their journals through steps (tasks that arrive, peers that
fail and come back, routers that die and follow each other, specs that change), lets some virtual time
pass after each, and in the end heals everything and draws up the account. CI runs a few of always the
same examples; `make test-properties` searches for new ones, and makes what it finds small.
"""

from __future__ import annotations

import logging

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queueworker.resource.spec import Strategy
from tests.support.model.platform import ASYNC
from tests.support.model.scenario import EXECUTORS, Scenario
from tests.support.properties import SEARCHING, examples

MOMENTS = (0.0, 0.0001, 0.001, 0.02, 0.3, 1.0, 2.1, 7.0, 30.0)
QUEUE_MODES = ("up", "refused", "hang", "500", "401", "404")
QUEUE_FAULTS = ("lost", "broken", "413", *("gateway",) * 4)
EXECUTOR_MODES = (
    *("ok", "failed", "refused", "429", "503", "500", "400"),
    *("reset", "frozen", "black-hole", "sick", "no-json", "stranger", "no-status", "gateway-504-behind"),
    *("gateway",) * 4,
    *ASYNC,
)
REDIS_MODES = ("up", "refused", "hang")
REDIS_FAULTS = ("lost", "broken", "late")

# How much time passes after a step.
moments = st.sampled_from(MOMENTS)
executors = st.integers(0, EXECUTORS - 1)


class Routers(RuleBasedStateMachine):
    """The steps. Each ends with some virtual time; what must always hold is checked after each."""

    s: Scenario

    @initialize(
        seed=st.integers(0, 2**16),
        concurrency=st.integers(1, 3),
        unavailable=st.sampled_from(("Fail", "Hold")),
        grace=st.sampled_from((0, 1, 10)),
        recovery=st.sampled_from(("Retry", "Fail")),
        drain=st.sampled_from((0, 3)),
    )
    def begin(self, seed: int, concurrency: int, unavailable: str, grace: int, recovery: str, drain: int) -> None:
        logging.getLogger("queueworker").propagate = False
        self.s = Scenario(
            seed,
            executors={
                "concurrency": concurrency,
                "whenUnavailable": unavailable,
                "unavailableGraceSeconds": grace,
            },
            routing={"recovery": recovery, "drainSeconds": drain},
        )
        for executor in self.s.world.executors.values():
            executor.seconds = self.s.rng.choice((0.0, 0.01, 0.4, 3.0))
            executor.has_logs = self.s.rng.random() < 0.7
        self.ids = 0
        self.s.start()

    # --- tasks, and time

    def then(self, moment: float) -> None:
        """Some time passes, and more often than not there is something to do."""
        for _ in range(self.s.rng.choice((0, 1, 3))):
            self.submit("a")
        self.s.advance(moment)

    def submit(self, queue: str) -> None:
        self.ids += 1
        self.s.submit(f"t{self.ids}", queue=queue)

    @rule(count=st.integers(1, 6), moment=moments, queue=st.sampled_from("aaab"))
    def tasks_arrive(self, count: int, moment: float, queue: str) -> None:
        for _ in range(count):
            self.submit(queue)
        self.then(moment)

    @rule(moment=moments)
    def time_passes(self, moment: float) -> None:
        self.then(moment)

    # --- the queue

    @precondition(lambda self: self.s.account.handed)
    @rule(which=st.integers(0, 50), moment=moments)
    def the_queue_hands_an_id_out_twice(self, which: int, moment: float) -> None:
        handed = sorted(self.s.account.handed)
        self.s.submit(handed[which % len(handed)])
        self.then(moment)

    @rule(mode=st.sampled_from(QUEUE_MODES), moment=moments)
    def the_queue_changes(self, mode: str, moment: float) -> None:
        self.s.world.queues["http://queue-a"].mode = mode
        self.then(moment)

    @rule(faults=st.lists(st.sampled_from(QUEUE_FAULTS), min_size=1, max_size=3), moment=moments)
    def the_queue_falters(self, faults: list[str], moment: float) -> None:
        self.s.world.queues["http://queue-a"].faults.extend(faults)
        self.then(moment)

    @rule(moment=moments)
    def the_queue_restarts_and_forgets(self, moment: float) -> None:
        queue = self.s.world.queues["http://queue-a"]
        self.s.account.forgotten |= queue.known
        queue.known.clear()
        queue.waiting.clear()
        self.then(moment)

    # --- executors

    @rule(which=executors, mode=st.sampled_from(EXECUTOR_MODES), moment=moments)
    def an_executor_changes(self, which: int, mode: str, moment: float) -> None:
        self.s.world.executors[f"http://executor-{which}"].mode = mode
        self.then(moment)

    @rule(mode=st.sampled_from(EXECUTOR_MODES), moment=moments)
    def all_executors_change(self, mode: str, moment: float) -> None:
        for executor in self.s.world.executors.values():
            executor.mode = mode
        self.then(moment)

    @rule(pool=st.sets(executors), moment=moments)
    def the_pool_changes(self, pool: set[int], moment: float) -> None:
        self.s.set_pool(pool)
        self.then(moment)

    # --- Redis

    def redis_was_away(self) -> None:
        """With two routers, one may find the other's lease run out."""
        if len(self.s.live) > 1:
            self.s.takeovers += 1

    @rule(mode=st.sampled_from(REDIS_MODES), moment=moments, which=st.sampled_from("aab"))
    def redis_changes(self, mode: str, moment: float, which: str) -> None:
        self.s.world.redis[f"redis://{which}"].set_mode(mode)
        self.redis_was_away()
        self.then(moment)

    @rule(faults=st.lists(st.sampled_from(REDIS_FAULTS), min_size=1, max_size=3), moment=moments)
    def redis_falters(self, faults: list[str], moment: float) -> None:
        self.s.world.redis["redis://a"].faults.extend(faults)
        self.redis_was_away()
        self.then(moment)

    @rule(full=st.booleans(), moment=moments)
    def redis_is_full(self, full: bool, moment: float) -> None:
        self.s.world.redis["redis://a"].full = full
        self.redis_was_away()
        self.then(moment)

    @rule(moment=moments)
    def redis_is_emptied(self, moment: float) -> None:
        self.s.empty_redis("redis://a")
        self.redis_was_away()
        self.then(moment)

    @rule(which=st.integers(0, 3), moment=moments)
    def a_router_is_cut_off_from_redis_or_reaches_it_again(self, which: int, moment: float) -> None:
        link = self.s.live[which % len(self.s.live)].link
        link.cut_off = not link.cut_off
        self.redis_was_away()
        self.then(moment)

    # --- routers

    @rule(which=st.integers(0, 3), pause=moments, moment=moments)
    def a_router_is_killed_and_followed(self, which: int, pause: float, moment: float) -> None:
        self.s.kill(self.s.live[which % len(self.s.live)])
        self.then(pause)
        self.s.start()
        self.then(moment)

    @precondition(lambda self: len(self.s.live) < 2)
    @rule(moment=moments)
    def another_router_joins(self, moment: float) -> None:
        self.s.start()
        self.redis_was_away()
        self.then(moment)

    @rule(which=st.integers(0, 3), final=st.booleans(), moment=moments)
    def a_router_is_stopped_and_followed(self, which: int, final: bool, moment: float) -> None:
        self.s.stop(self.s.live[which % len(self.s.live)], final=final, moment=moment)
        self.s.start()

    @rule(which=st.integers(0, 3), away=st.sampled_from((7.0, 12.0)), moment=moments)
    def a_router_loses_its_lease_to_another(self, which: int, away: float, moment: float) -> None:
        running = self.s.live[which % len(self.s.live)]
        if len(self.s.live) < 2:
            self.s.start()
        self.s.takeovers += 1
        running.link.cut_off = True
        self.then(away)
        running.link.cut_off = False
        self.then(moment)

    # --- the spec

    @rule(
        concurrency=st.integers(1, 3),
        strategy=st.sampled_from(Strategy),
        moment=moments,
    )
    def concurrency_and_strategy_change(self, concurrency: int, strategy: str, moment: float) -> None:
        self.s.apply(executors={"concurrency": concurrency}, routing={"strategy": strategy})
        self.then(moment)

    @rule(period=st.integers(1, 5), failures=st.integers(1, 3), moment=moments)
    def health_checks_change(self, period: int, failures: int, moment: float) -> None:
        self.s.apply(executors={"healthCheck": {"periodSeconds": period, "failureThreshold": failures}})
        self.then(moment)

    @rule(attempts=st.integers(1, 3), journal=st.sampled_from(("Preferred", "Required")))
    def retry_and_journal_policy_change(self, attempts: int, journal: str) -> None:
        self.s.apply(routing={"retry": {"attempts": attempts}, "journal": journal})

    @rule(suspend=st.booleans(), celery=st.sampled_from((50, 100)), moment=moments)
    def suspension_and_migration_change(self, suspend: bool, celery: int, moment: float) -> None:
        self.s.apply(suspend=suspend, migration={"celeryPercent": celery})
        self.then(moment)

    @rule(queue=st.sampled_from("ab"), redis=st.sampled_from("ab"), moment=moments)
    def queue_and_redis_are_moved(self, queue: str, redis: str, moment: float) -> None:
        self.s.apply(queue={"url": f"http://queue-{queue}"}, events={"redisURL": f"redis://{redis}"})
        # What it could not remove from a Redis that was away when it left, it takes over when it comes back.
        self.s.takeovers += 1
        self.then(moment)

    # --- what must hold

    @invariant()
    def all_is_in_order(self) -> None:
        self.s.check()

    def teardown(self) -> None:
        try:
            self.s.heal_and_account()
        finally:
            self.s.close()
            logging.getLogger("queueworker").propagate = True


Routers.TestCase.settings = settings(
    max_examples=examples(6),
    stateful_step_count=30,
    deadline=None,
    # CI runs the same examples each time: a new one that fails is found by a search for it, not by an unlucky push.
    derandomize=not SEARCHING,
    database=None,
    suppress_health_check=list(HealthCheck),
    # A failing example is made small by a search only: it takes minutes.
    phases=(Phase.generate, Phase.shrink) if SEARCHING else (Phase.generate,),
)
TestRouters = Routers.TestCase
