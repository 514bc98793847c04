"""An exception that a signal handler raises at every bytecode of what starts, closes and rings for a pool.

Wherever it strikes: nothing is left waiting for a thread that will never come, every farewell is said, every alarm
rings, and whoever closes the pool waits for nobody.
"""

from __future__ import annotations

import contextvars
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import millpond
from millpond._crew import AlarmClock, Crew, Job, Post, Runtime

from .doubles import DEADLINE_S, NullDriver, runtime_with
from .striking import SignalAt, offsets, strike
from .test_signals import assert_whole, drain_and_dial, new_pool

CREW: tuple[Any, ...] = (
    Crew.start, Crew.man, Crew.send, Crew.part, Crew.see_off, Crew.call_off, Crew.done, Crew.say_farewells,
    Crew.say_next, Post.take, Post.leave, Job.begin, Job.call_off, AlarmClock.arm, AlarmClock.nudge,
)  # fmt: skip


def places(functions: tuple[Any, ...]) -> Iterator[tuple[types.CodeType, int, str]]:
    """Return every place in the functions where a signal may strike, and its name."""
    for function in functions:
        code = function.__code__
        for offset in offsets(code):
            yield code, offset, f"{function.__qualname__} at {offset}"


def refusing(runtime: Runtime) -> Runtime:
    """Return a host that has no thread to spare."""

    def start(work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    return runtime_with(start=start, clock=runtime.clock)


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
def test_a_signal_anywhere_in_the_crew_costs_a_pool_nothing() -> None:
    """A checkout that dials and a return that closes, struck everywhere; then the pool is whole, and closes at once."""
    pool_class: Any = millpond.Pool
    functions = (*CREW, pool_class._notify, pool_class._arm, pool_class._part, pool_class._start_dialer)
    struck: set[str] = set()
    for code, offset, where in places(functions):
        driver = NullDriver()
        pool = new_pool(driver)
        if strike(SignalAt(code, offset), functools.partial(drain_and_dial, pool)):
            struck.add(where.split()[0])
        assert_whole(pool, driver, where)
        assert not pool._crew.jobs, f"{where}: a thread is waited for that will never come"
        assert not pool._crew.partings, f"{where}: a connection waits to be closed"
    reached = (Crew.start, Crew.man, Crew.send, Crew.part, Crew.see_off, Post.take, AlarmClock.arm, AlarmClock.nudge)
    assert {function.__qualname__ for function in (*reached, *functions[-4:])} <= struck


@pytest.mark.parametrize("host", [runtime_with, lambda: refusing(runtime_with())], ids=["threads", "no threads"])
def test_every_farewell_is_said(host: Callable[[], Runtime]) -> None:
    """Wherever a farewell is cut short: it is said by the next who comes, in turn; only what was cut is said twice."""
    struck = 0
    for code, offset, where in places(CREW):
        crew = Crew(host())
        said: list[int] = []
        crew.part(functools.partial(said.append, 1))
        struck += strike(SignalAt(code, offset), functools.partial(crew.part, functools.partial(said.append, 2)))
        crew.part(functools.partial(said.append, 3))
        assert crew.join(crew.runtime.clock() + DEADLINE_S) or not crew.proven, where
        assert not crew.jobs, where
        assert said in ([1, 2, 3], [1, 3], [1, 2, 2, 3]), where  # two is not said if it was never handed over
        assert 2 in said or code.co_name == "part", where
    assert struck > 50, "the signal never struck"


def start_and_note(crew: Crew, done: list[int], started: list[bool]) -> None:
    """Have something done, and note whether there is a thread for it."""
    started.append(crew.start(lambda: done.append(1), contextvars.Context()))


@pytest.mark.parametrize("host", [runtime_with, lambda: refusing(runtime_with())], ids=["threads", "no threads"])
def test_work_is_done_or_called_off(host: Callable[[], Runtime]) -> None:
    """Wherever the start of a thread is struck: the work is done once or never, and nobody waits for it in vain."""
    struck = 0
    for code, offset, where in places(CREW):
        crew = Crew(host())
        done: list[int] = []
        started: list[bool] = []
        struck += strike(SignalAt(code, offset), functools.partial(start_and_note, crew, done, started))
        assert crew.join(crew.runtime.clock() + DEADLINE_S) or not crew.proven, where
        assert not crew.jobs, where
        assert done in ([1], [1] if started == [True] else []), where
    assert struck > 20, "the signal never struck"


class Bell:
    """A pool that an alarm clock rings."""

    def __init__(self) -> None:
        self.due_s = 0.0
        self.rang = threading.Semaphore(0)

    def _alarm_in(self) -> float:
        return self.due_s

    def _alarm_rang(self) -> None:
        self.due_s = float("inf")
        self.rang.release()


def test_an_alarm_that_was_struck_rings_when_it_is_set_again() -> None:
    """Wherever the start of a clock is struck, the next one who sets the alarm is heard."""
    struck = 0
    for code, offset, where in places(CREW):
        runtime = runtime_with()
        crew, bell = Crew(runtime), Bell()
        clock = AlarmClock(runtime, crew, bell)
        struck += strike(SignalAt(code, offset), clock.arm)
        bell.due_s = 0.0
        assert clock.arm(), where
        assert bell.rang.acquire(timeout=DEADLINE_S), where
        bell.due_s = float("inf")
        del bell
        assert crew.join(runtime.clock() + DEADLINE_S), where
    assert struck > 50, "the signal never struck"
