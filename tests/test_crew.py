"""The threads of a pool by themselves: waiters, workers, and the alarm clock."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from millpond._crew import AlarmClock, Crew, Runtime, Waiter
from tests.garbage import collect

DEADLINE_S = 10.0
NAME = contextvars.ContextVar("NAME", default="nobody")


class Pool:
    """What an alarm clock calls."""

    def __init__(self, due_s: float = 0.0) -> None:
        self.due_s = due_s
        self.rang = threading.Semaphore(0)
        self.failing: list[Exception] = []

    def _alarm_in(self) -> float:
        return self.due_s

    def _alarm_rang(self) -> None:
        self.due_s = float("inf")
        self.rang.release()
        if self.failing:
            raise self.failing.pop()


@pytest.fixture
def runtime() -> Runtime:
    """Return the host's runtime."""
    return Runtime.of_host()


def test_a_waiter_that_was_woken_before_it_sleeps_does_not_sleep(runtime: Runtime) -> None:
    """Waking it once or twice, before or after, is the same."""
    waiter = Waiter(runtime.new_lock)
    waiter.wake()
    waiter.wake()
    waiter.wait(3600)


def test_a_waiter_s_time_may_be_past(runtime: Runtime) -> None:
    """No time left is no sleep."""
    Waiter(runtime.new_lock).wait(-1.0)


def test_a_job_runs_in_a_copy_of_a_context(runtime: Runtime) -> None:
    """It sees what was set where it was asked for, and changes nothing there."""
    crew = Crew(runtime)
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(NAME.set, "asker")

    def job() -> None:
        seen.append(NAME.get())
        NAME.set("worker")

    assert crew.start(job, context)
    assert crew.join(runtime.clock() + DEADLINE_S)
    assert (["asker"], "asker") == (seen, context[NAME])


def test_join_says_whether_everybody_has_ended(runtime: Runtime) -> None:
    """It waits until then, and gives up when its time is up."""
    crew = Crew(runtime)
    over = threading.Event()
    begun = threading.Event()

    def job() -> None:
        begun.set()
        over.wait(DEADLINE_S)

    crew.start(job, contextvars.Context())
    assert begun.wait(DEADLINE_S)
    assert not crew.join(runtime.clock())
    over.set()
    assert crew.join(runtime.clock() + DEADLINE_S)


def test_a_thread_that_cannot_be_started_is_told() -> None:
    """The crew counts nobody who never came."""

    def refuse(work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    host = Runtime.of_host()
    crew = Crew(Runtime(clock=host.clock, new_lock=host.new_lock, start=refuse, jitter=host.jitter))
    done: list[int] = []
    assert not crew.start(lambda: done.append(1), contextvars.Context())
    crew.part(lambda: done.append(2))
    assert [2] == done
    assert crew.join(host.clock())


def test_farewells_are_said_one_after_another(runtime: Runtime) -> None:
    """Connections are closed in the order in which they were given up, by one thread at a time."""
    crew = Crew(runtime)
    said: list[int] = []
    crowded: list[int] = []
    door = threading.Lock()
    for number in range(20):

        def farewell(number: int = number) -> None:
            if not door.acquire(blocking=False):
                crowded.append(number)
                return
            said.append(number)
            door.release()

        crew.part(farewell)
    assert crew.join(runtime.clock() + DEADLINE_S)
    assert (list(range(20)), []) == (said, crowded)


class Struck(BaseException):
    """What a signal's handler raises."""


def struck_once(runtime: Runtime) -> Runtime:
    """Return a runtime whose first start of a thread is struck by a signal before the thread is there."""
    signals = [Struck()]

    def start(work: Callable[[], None]) -> None:
        if signals:
            raise signals.pop()
        runtime.start(work)

    return Runtime(runtime.clock, runtime.new_lock, start, runtime.jitter)


def test_a_signal_before_the_thread_is_there_leaves_no_farewell_unsaid(runtime: Runtime) -> None:
    """Whoever was about to see off holds nothing afterwards: the next does it for both."""
    crew = Crew(struck_once(runtime))
    said: list[int] = []
    done = threading.Semaphore(0)
    with pytest.raises(Struck):
        crew.part(lambda: said.append(1))
    crew.part(done.release)
    assert done.acquire(timeout=DEADLINE_S)
    assert [1] == said


def test_a_clock_whose_start_was_struck_can_be_started(runtime: Runtime) -> None:
    """The alarm rings when it is set again."""
    struck = struck_once(runtime)
    pool = Pool()
    clock = AlarmClock(struck, Crew(struck), pool)
    with pytest.raises(Struck):
        clock.arm()
    assert clock.arm()
    assert pool.rang.acquire(timeout=DEADLINE_S)


def test_an_alarm_rings_when_it_is_due(runtime: Runtime) -> None:
    """A clock that is armed calls the pool, and ends when nothing is to come."""
    pool = Pool()
    crew = Crew(runtime)
    clock = AlarmClock(runtime, crew, pool)
    assert clock.arm()
    assert pool.rang.acquire(timeout=DEADLINE_S)
    clock.nudge()
    assert crew.join(runtime.clock() + DEADLINE_S)
    assert not clock.post.is_held


def test_an_alarm_that_was_brought_forward_rings_earlier(runtime: Runtime) -> None:
    """Arming a clock that sleeps makes it look again."""
    pool = Pool(due_s=3600.0)
    clock = AlarmClock(runtime, Crew(runtime), pool)
    clock.arm()
    pool.due_s = 0.0
    clock.arm()
    assert pool.rang.acquire(timeout=DEADLINE_S)
    clock.nudge()


def test_a_clock_that_fails_is_started_again() -> None:
    """A mistake in what it calls ends the thread, is not hidden, and does not leave the pool without a clock."""
    failed = threading.Event()

    def start(work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except LookupError:
                failed.set()

        threading.Thread(target=guarded, daemon=True).start()

    host = Runtime.of_host()
    runtime = Runtime(clock=host.clock, new_lock=host.new_lock, start=start, jitter=host.jitter)
    pool = Pool()
    pool.failing.append(LookupError("in a tick"))
    clock = AlarmClock(runtime, Crew(runtime), pool)
    clock.arm()
    assert failed.wait(DEADLINE_S)
    pool.due_s = 0.0
    assert clock.arm()
    assert pool.rang.acquire(timeout=DEADLINE_S)
    assert pool.rang.acquire(timeout=DEADLINE_S)
    clock.nudge()


def test_a_clock_does_not_keep_its_pool(runtime: Runtime) -> None:
    """When the pool is gone the thread ends, without having to be told."""
    crew = Crew(runtime)
    pools: list[Any] = [Pool(due_s=3600.0)]
    clock = AlarmClock(runtime, crew, pools[0])
    clock.arm()
    pools.clear()
    collect()
    assert crew.join(runtime.clock() + DEADLINE_S)
    assert not clock.post.is_held


def test_nudging_takes_no_lock(runtime: Runtime) -> None:
    """A finalizer may nudge a clock that has been told already, or that nobody watches."""
    clock = AlarmClock(runtime, Crew(runtime), Pool(due_s=3600.0))
    clock.nudge()
    clock.nudge()
    assert not clock.post.is_held
