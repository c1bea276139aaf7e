"""What is done about a pool next: single decisions, and a whole pool that is planned for again and again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from queueworker.controller.managed_pool.plan import (
    MISSING_SECONDS,
    Deletion,
    Plan,
    PoolPod,
    PoolStatefulSet,
    WantedPool,
    next_since,
    plan,
)
from tests.support.properties import examples

DRAIN = 40.0
NAME = "legacy-executor"


def wanted(count: int, template_hash: str = "new") -> WantedPool:
    return WantedPool(count, template_hash, DRAIN)


def existing(replicas: int, template_hash: str = "new", awaited: int = 0) -> PoolStatefulSet:
    return PoolStatefulSet(NAME, "uid-1", replicas, template_hash, awaited=awaited)


def pod(ordinal: int, template_hash: str = "new", **fields: Any) -> PoolPod:
    values: dict[str, Any] = {"ready": True, "uid": f"uid-{ordinal}-{template_hash}"}
    return PoolPod(name=f"{NAME}-{ordinal}", ordinal=ordinal, template_hash=template_hash, **values | fields)


def names(*ordinals: int) -> frozenset[str]:
    return frozenset(f"{NAME}-{ordinal}" for ordinal in ordinals)


def gone_since(*ordinals: int, since: float = 0.0) -> dict[str, float]:
    return dict.fromkeys(names(*ordinals), since)


def test_a_pool_that_is_not_there_is_made_with_all_its_pods() -> None:
    assert plan(wanted(3), None, [], {}, {}, 0) == Plan(frozenset(), 3)


def test_more_pods_come_at_once() -> None:
    assert plan(wanted(5), existing(2), [pod(1), pod(2)], {}, {}, 0).replicas == 5


def test_pods_above_the_count_leave_before_the_replicas_go_down() -> None:
    pods = [pod(1), pod(2), pod(3)]
    assert plan(wanted(1), existing(3), pods, {}, {}, 0) == Plan(names(2, 3), 3)


def test_the_replicas_go_down_as_far_as_the_highest_pods_are_done() -> None:
    pods = [pod(1), pod(2), pod(3)]
    busy = {f"{NAME}-2": 1}
    assert plan(wanted(1), existing(3), pods, busy, gone_since(2, 3), 1) == Plan(names(2, 3), 2, (pods[2],))
    assert plan(wanted(1), existing(3), pods, {f"{NAME}-3": 1}, gone_since(2, 3), 1).replicas == 3


def test_a_pod_that_had_its_time_goes_with_its_task() -> None:
    pods = [pod(1), pod(2)]
    busy = {f"{NAME}-2": 1}
    assert plan(wanted(1), existing(2), pods, busy, gone_since(2), DRAIN - 1).replicas == 2
    assert plan(wanted(1), existing(2), pods, busy, gone_since(2), DRAIN).replicas == 1


def test_only_idle_pods_that_go_with_the_replicas_are_deleted_at_once() -> None:
    pods = [pod(1), pod(2), pod(3), pod(4), pod(5, terminating=True), pod(6)]
    busy = {f"{NAME}-3": 1, f"{NAME}-6": 1}
    found = plan(wanted(1), existing(6), pods, busy, gone_since(2, 3, 4, 5, 6), DRAIN - 1)
    assert (found.replicas, found.idle) == (6, ())
    late = gone_since(6, since=-DRAIN) | gone_since(2, 3, 4, 5)
    found = plan(wanted(1), existing(6), pods, busy, late, DRAIN - 1)
    assert (found.replicas, found.idle) == (3, (pods[3],)), "the busy pod keeps its own grace"


def test_a_pod_that_came_back_above_the_count_goes_again() -> None:
    back = replace(pod(2), uid="uid-2-again", ready=False)
    found = plan(wanted(1), existing(2), [pod(1), back], {}, gone_since(2), 1)
    assert found == Plan(names(2), 1, (back,))


def test_no_pod_goes_above_the_count_before_the_template_is_accepted() -> None:
    found = plan(wanted(1), existing(2, "old"), [pod(1, "old"), pod(2, "old")], {}, gone_since(2), 1)
    assert found == Plan(names(2), 2), "a template that is refused would bring the pod back again and again"


def test_tasks_that_nobody_knows_of_are_taken_as_there() -> None:
    pods = [pod(1), pod(2)]
    assert plan(wanted(1), existing(2), pods, None, gone_since(2), DRAIN - 1).replicas == 2
    found = plan(wanted(1), existing(2), pods, None, gone_since(2), DRAIN)
    assert (found.replicas, found.idle) == (1, ())


def test_a_count_that_rises_takes_leaving_pods_back() -> None:
    pods = [pod(1), pod(2), pod(3)]
    assert plan(wanted(3), existing(3), pods, {f"{NAME}-3": 1}, gone_since(2, 3), 1) == Plan(frozenset(), 3)


def test_an_update_takes_the_pod_with_the_fewest_tasks_out_and_deletes_it_when_it_is_done() -> None:
    pods = [pod(1, "old"), pod(2, "old"), pod(3, "old")]
    tasks = {f"{NAME}-1": 2, f"{NAME}-2": 1, f"{NAME}-3": 2}
    assert plan(wanted(3), existing(3), pods, tasks, {}, 0) == Plan(names(2), 3)
    idle = tasks | {f"{NAME}-2": 0}
    assert plan(wanted(3), existing(3), pods, idle, gone_since(2), 1).delete == Deletion(pods[1], now=True)


def test_a_pod_that_is_busy_for_too_long_has_its_own_grace() -> None:
    pods = [pod(1, "old")]
    assert plan(wanted(1), existing(1), pods, {f"{NAME}-1": 1}, gone_since(1), DRAIN).delete == Deletion(pods[0], False)


def test_an_update_keeps_to_the_pod_that_it_began_with() -> None:
    pods = [pod(1, "old"), pod(2, "old")]
    found = plan(wanted(2), existing(2), pods, {f"{NAME}-2": 1}, gone_since(2), 1)
    assert (found.leaving, found.delete) == (names(2), None)


def test_an_update_waits_until_the_last_pod_is_ready() -> None:
    for other in ([pod(1, ready=False)], [pod(1, terminating=True)], []):
        found = plan(wanted(2), existing(2, awaited=2), [*other, pod(2, "old")], {}, {}, 0)
        assert found.delete is None
        assert f"{NAME}-2" not in found.leaving
        assert found.awaited == 2
    back = plan(wanted(2), existing(2, awaited=2), [pod(1), pod(2, "old")], {}, {}, 0)
    assert (back.leaving, back.awaited) == (names(2), 0)


def test_an_update_remembers_how_many_pods_were_ready() -> None:
    pods = [pod(1), pod(2, "old"), pod(3, "old")]
    assert plan(wanted(3), existing(3), pods, {}, {}, 0).awaited == 0
    assert plan(wanted(3), existing(3), pods, {}, gone_since(2), 1).awaited == 3
    fewer = [pod(2, "old")]
    assert plan(wanted(1), existing(3, awaited=3), [pod(1, "old"), *fewer], {}, {}, 0).awaited == 0


def test_a_pod_that_cannot_be_created_keeps_no_template_from_the_others() -> None:
    pods, absent = [pod(1, "old"), pod(2, "old")], gone_since(3)
    assert plan(wanted(3), existing(3), pods, {}, {}, 0) == Plan(frozenset(), 3, missing=names(3))
    assert not plan(wanted(3), existing(3), pods, {}, {}, MISSING_SECONDS - 1, absent).leaving
    assert plan(wanted(3), existing(3), pods, {}, {}, MISSING_SECONDS, absent).leaving == names(1)
    found = plan(wanted(3), existing(3), pods, {}, gone_since(1), MISSING_SECONDS, absent)
    assert (found.delete, found.awaited) == (Deletion(pods[0], now=True), 2)
    both = gone_since(1, 3)
    found = plan(wanted(3), existing(3, awaited=2), pods[1:], {}, {}, 2 * MISSING_SECONDS, both)
    assert found == Plan(frozenset(), 3, awaited=2, missing=names(1, 3)), "the other one stays until it is back"


def test_a_pod_that_is_not_ready_is_replaced_beside_one_that_cannot_be_created() -> None:
    pods = [pod(1, "old"), pod(2, "bad", ready=False)]
    found = plan(wanted(3), existing(3, awaited=2), pods, {}, gone_since(2), 1)
    assert (found.delete, found.awaited) == (Deletion(pods[1], now=True), 2)


def test_an_update_begins_with_a_pod_that_is_not_ready() -> None:
    pods = [pod(1, "old"), pod(2, "bad", ready=False), pod(3, "old")]
    assert plan(wanted(3), existing(3), pods, {}, {}, 0).leaving == names(2)
    assert plan(wanted(3), existing(3), pods, {}, gone_since(2), 1).delete == Deletion(pods[1], now=True)


def test_no_pod_goes_for_a_template_that_the_stateful_set_does_not_have() -> None:
    assert plan(wanted(1), existing(1, "old"), [pod(1, "old")], {}, {}, 0) == Plan(frozenset(), 1)


def test_a_pod_that_terminates_gets_no_task() -> None:
    assert plan(wanted(2), existing(2), [pod(1), pod(2, terminating=True)], {}, {}, 0).leaving == names(2)


def test_a_pool_without_a_template_drains_and_is_then_removed() -> None:
    pods = [pod(1), pod(2)]
    removed = wanted(0, "")
    assert plan(removed, existing(2), pods, {}, {}, 0) == Plan(names(1, 2), 2)
    assert not plan(removed, existing(2), pods, {f"{NAME}-1": 1}, gone_since(1, 2), 1).remove
    assert plan(removed, existing(2), pods, {}, gone_since(1, 2), 1) == Plan(names(1, 2), 2, tuple(pods), remove=True)
    late = plan(removed, existing(2), pods, {f"{NAME}-1": 1}, gone_since(1, 2), DRAIN)
    assert (late.remove, late.idle) == (True, (pods[1],))
    assert plan(removed, None, [], {}, {}, 0) == Plan(remove=True), "a refused template may have left a Service"


COSTS = {"a": 2, "b": 1, "c": 3}
"""What a pod of each template takes of the quota."""


@dataclass
class World:
    """A pool with its controllers. Each step is a second; a task is at one of the pods that the router knows."""

    wanted: WantedPool
    now: float = 0.0
    left: dict[str, float] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    stateful_set: PoolStatefulSet | None = None
    pods: dict[int, PoolPod] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    """When a pod left the router, as the world saw it."""
    debt: int = 0
    """Ready pods that updates have taken away, less those that became ready since."""
    quota: int = 1000
    refused: bool = False
    """The API server refuses changes of the StatefulSet."""
    made: int = 0
    broken: set[int] = field(default_factory=set)
    """Ordinals that do not become ready."""
    ages: dict[str, int] = field(default_factory=dict)

    def step(self) -> None:
        """A look of the operator, and a second in which the controllers do what they are told."""
        pods = list(self.pods.values())
        self.plan = plan(self.wanted, self.stateful_set, pods, dict(self.tasks), self.left, self.now, self.missing)
        self.left = next_since(self.plan.leaving, self.left, self.now)
        self.missing = next_since(self.plan.missing, self.missing, self.now)
        self._check_plan()
        for name in self.plan.leaving:
            self.since.setdefault(name, self.now)
        self.since = {name: at for name, at in self.since.items() if name in self.plan.leaving}
        for found in self.plan.idle:
            self._kill(found.ordinal)
        self._stateful_set_controller()  # it is faster than the change of the replicas
        if self.wanted.template_hash and not self.refused:
            self._change_stateful_set()
        self._stateful_set_controller()
        self._kubelet()
        self.now += 1

    def _change_stateful_set(self) -> None:
        self.stateful_set = existing(self.plan.replicas, self.wanted.template_hash, self.plan.awaited)
        if self.plan.delete is not None:
            self.debt += self.pods[self.plan.delete.pod.ordinal].ready
            self._kill(self.plan.delete.pod.ordinal)

    def _check_plan(self) -> None:
        going = [] if self.plan.delete is None else [self.plan.delete.pod.name]
        if self.stateful_set is not None:
            shrinks = range(self.plan.replicas + 1, self.stateful_set.replicas + 1)
            going += [self.stateful_set.pod(ordinal) for ordinal in shrinks]
        terminating = {p.name for p in self.pods.values() if p.terminating}
        for name in set(going) - terminating:
            waited = self.now - self.since.get(name, self.now)
            assert not self.tasks.get(name) or waited >= DRAIN, f"{name} goes with a task, after {waited} s"
        for found in self.plan.idle:
            assert not self.tasks.get(found.name), f"{found.name} is deleted at once with a task"
            assert self.since.get(found.name, self.now) < self.now, f"{found.name} may get a task"
        ready = {p.name for p in self.pods.values() if p.ready and p.ordinal <= self.wanted.count}
        self.debt = min(self.debt, self.wanted.count - len(ready))
        assert len(ready & self.plan.leaving) + self.debt <= 1, "an update takes at most one ready pod away"

    def _stateful_set_controller(self) -> None:
        replicas = self.stateful_set.replicas if self.stateful_set is not None else 0
        for ordinal in [n for n in self.pods if n > replicas]:
            self._kill(ordinal)
        for ordinal in range(1, replicas + 1):
            if ordinal not in self.pods and self.stateful_set is not None:
                self._make(ordinal, self.stateful_set.template_hash)

    def _make(self, ordinal: int, template_hash: str) -> None:
        used = sum(COSTS[found.template_hash] for found in self.pods.values())
        if used + COSTS[template_hash] <= self.quota:
            self.made += 1
            self.pods[ordinal] = replace(pod(ordinal, template_hash, ready=False), uid=f"uid-{self.made}")

    def _kill(self, ordinal: int) -> None:
        if ordinal in self.pods:
            self.tasks.pop(self.pods[ordinal].name, None)
            del self.pods[ordinal]

    def _kubelet(self) -> None:
        """A pod is ready in the second step after that of its creation."""
        for ordinal, found in self.pods.items():
            self.ages[found.uid] = self.ages.get(found.uid, 0) + 1
            if self.ages[found.uid] > 2 and ordinal not in self.broken and not found.terminating:
                if not found.ready and ordinal <= self.wanted.count:
                    self.debt = max(0, self.debt - 1)
                self.pods[ordinal] = replace(found, ready=True)

    def scale(self, count: int) -> None:
        """Ready pods above the count that are wanted again make up for one that was taken away."""
        back = [n for n, found in self.pods.items() if self.wanted.count < n <= count and found.ready]
        self.debt = max(0, self.debt - len(back))
        self.wanted = replace(self.wanted, count=count)

    def forget(self, _: int) -> None:
        """Another leader."""
        self.left = {}
        self.missing = {}
        self.since = {}

    def set_quota(self, quota: int) -> None:
        self.quota = quota

    def refuse(self, _: int) -> None:
        self.refused ^= True

    def breaks(self, ordinal: int) -> None:
        self.broken ^= {ordinal}

    def pull(self, _: int) -> None:
        """The router sends a task only to ready pods that do not leave."""
        for found in self.pods.values():
            if found.ready and not found.terminating and found.name not in self.plan.leaving:
                self.tasks[found.name] = self.tasks.get(found.name, 0) + 1

    def finish(self, ordinal: int) -> None:
        self.tasks.pop(f"{NAME}-{ordinal}", None)

    def evict(self, ordinal: int) -> None:
        if ordinal in self.pods:
            self.pods[ordinal] = replace(self.pods[ordinal], ready=False, terminating=True)

    def end(self, ordinal: int) -> None:
        if ordinal in self.pods and self.pods[ordinal].terminating:
            self._kill(ordinal)

    def settle(self) -> None:
        """Nothing happens any more but what the controllers do. Tasks that run stay."""
        self.broken = set()
        self.refused = False
        for _ in range(int(DRAIN) * 12):
            for ordinal in list(self.pods):
                self.end(ordinal)
            self.step()
            if self.is_settled():
                return

    def is_settled(self) -> bool:
        hashes = {p.template_hash for p in self.pods.values()}
        there = sorted(self.pods) == list(range(1, self.wanted.count + 1)) and hashes <= {self.wanted.template_hash}
        ready = all(p.ready for p in self.pods.values())
        return there and ready and not self.plan.leaving and not self.plan.awaited


ordinals = st.integers(1, 5)
events = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("set_quota"), st.integers(1, 12)),
    st.tuples(st.just("refuse"), st.just(0)),
    st.tuples(st.just("template"), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.sampled_from(["pull", "pull", "finish", "finish", "breaks", "evict", "end"]), ordinals),
    st.tuples(st.just("forget"), st.just(0)),
)


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(events, max_size=60))
def test_a_pool_gets_where_it_is_wanted_and_no_pod_goes_before_its_time(happens: list[tuple[str, Any]]) -> None:
    world = World(wanted(2, "a"))
    world.step()
    for what, value in happens:
        match what:
            case "template":
                world.wanted = replace(world.wanted, template_hash=value)
            case _:
                getattr(world, what)(value)
        world.step()
    world.quota = 1000
    world.settle()
    assert world.is_settled()


@settings(max_examples=examples(40), deadline=None)
@given(count=st.integers(1, 5), quota=st.integers(1, 10), happens=st.lists(events, max_size=20))
def test_a_smaller_template_reaches_every_pod_although_not_all_of_the_old_ones_fit(
    count: int, quota: int, happens: list[tuple[str, Any]]
) -> None:
    assume(count * COSTS["b"] <= quota)
    world = World(wanted(count, "a"), quota=quota)
    for what, value in happens:
        world.step()
        if what in {"pull", "finish", "breaks", "forget"}:
            getattr(world, what)(value)
    world.wanted = wanted(count, "b")
    world.settle()
    assert world.is_settled()


def test_a_template_that_fits_nowhere_takes_one_pod_and_a_corrected_one_brings_it_back() -> None:
    world = World(wanted(2, "a"), quota=4)
    for template_hash in ("a", "c"):
        world.wanted = wanted(2, template_hash)
        for _ in range(200):
            world.step()
    assert [found.template_hash for found in world.pods.values()] == ["a"]
    world.wanted = wanted(2, "b")
    world.settle()
    assert world.is_settled()


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(events, max_size=30))
def test_a_pool_whose_template_is_removed_is_removed_when_no_pod_has_a_task_or_after_its_time(
    happens: list[tuple[str, Any]],
) -> None:
    world = World(wanted(3, "a"))
    world.step()
    for what, value in happens:
        if what not in {"scale", "template", "forget", "set_quota", "refuse"}:
            getattr(world, what)(value)
            world.step()
    world.wanted = wanted(0, "")
    busy = any(world.tasks.values())
    for second in range(int(DRAIN) + 2):
        if world.plan.remove:
            assert not busy or second >= DRAIN or not any(world.tasks.values())
            break
        world.step()
    assert world.plan.remove
