"""Faults that random interleavings found, and their relatives: each by its shortest way, on a virtual clock."""

from __future__ import annotations

from tests.unit.model.scenario import Scenario

A = "redis://a"
QUEUE = "http://queue-a"


# --- health checks that several wait for


def wait_for_one_check(s: Scenario) -> None:
    """Until the task `a` and the periodic check wait for one and the same answer, of an executor that gives none."""
    probes = s.live[0].router._pool._all()[0]
    s.advance(1)
    s.world.executors["http://executor-0"].mode = "frozen"
    before = probes.probe
    while probes.probe is before:
        s.advance(0.01)
    s.submit("a")
    s.advance(1.2)
    assert s.live[0].held == {"a"}
    assert probes.probe is not None
    assert not probes.probe.done()


def test_a_task_that_waits_for_a_health_check_survives_new_check_settings() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 10}}) as s:
        s.set_pool([0])
        wait_for_one_check(s)
        s.apply(executors={"healthCheck": {"periodSeconds": 50}})
        s.advance(0.1)
        assert s.live[0].held == {"a"}


def test_a_task_that_gives_up_waiting_for_a_health_check_does_not_end_the_executors_checks() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 10}}) as s:
        s.set_pool([0])
        wait_for_one_check(s)
        (task,) = s.live[0].router._tasks.values()
        assert task.lane is not None
        task.lane.cancel()  # as when another router has taken it over
        s.account.lost.add("a")
        s.advance(5)
        s.world.executors["http://executor-0"].mode = "ok"
        s.advance(5)
        assert s.live[0].router.snapshot().healthy == 1
        watch = s.live[0].router._pool._all()[0].watch
        assert watch is not None
        assert not watch.done()


def test_no_task_goes_to_an_executor_that_left_while_it_was_asked_for_its_health() -> None:
    with Scenario(executors={"healthCheck": {"periodSeconds": 100}}) as s:
        s.set_pool([0, 1])
        s.advance(20)
        s.rng.seed(1)
        s.submit("a")
        while not s.live[0].router._pool._all()[0].in_flight and not s.live[0].router._pool._all()[1].in_flight:
            s.advance(0.0001)
        (chosen,) = (i for i, e in enumerate(s.live[0].router._pool._all()) if e.in_flight)
        s.set_pool([1 - chosen])
        s.advance(5)
        assert s.account.reported["a"] == 1


# --- slots


def test_with_no_grace_a_task_waits_in_peace_while_executors_are_busy() -> None:
    with Scenario(
        executors={"unavailableGraceSeconds": 0}, routing={"retry": {"attempts": 2, "backoffSeconds": 4}}
    ) as s:
        s.set_pool([0])
        s.attempts = 2
        s.advance(1)
        executor = s.world.executors["http://executor-0"]
        executor.mode = "500"
        s.submit("a")
        s.advance(2)
        assert s.account.executed["a"] == 1
        executor.mode, executor.seconds = "ok", 6.0
        s.submit("b")
        s.advance(2)
        assert s.account.executed["b"] == 1, "it has the only slot when `a` is to be tried again"
        s.advance(20)
        assert s.account.reported == {"a": 1, "b": 1}


# --- the queue's turns


def test_a_router_that_loses_its_tasks_while_it_tries_the_queue_goes_on_trying() -> None:
    with Scenario() as s:
        s.submit("a")
        for executor in s.world.executors.values():
            executor.seconds = 3
        s.advance(2)
        s.world.queues[QUEUE].mode = "refused"
        s.advance(7)
        s.world.queues[QUEUE].mode = "hang"  # the next try hangs, and is the report of `a`
        s.advance(3)
        running = s.live[0]
        assert running.held == {"a"}
        running.link.cut_off = True
        successor = s.start()
        s.advance(8)
        assert successor.held == {"a"}
        running.link.cut_off = False
        s.advance(1)
        s.kill(successor)
        s.account.lost.discard("a")
        s.world.queues[QUEUE].mode = "up"
        s.submit("b")
        s.advance(90)
        assert s.account.reported["b"] == 1
        assert s.account.reported["a"] == 1
