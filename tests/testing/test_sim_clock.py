"""A clock that goes on when it is told to, and a pool that lives on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import millpond
from millpond.testing import FakeDriver, SimClock

DEADLINE_S = 10.0


@contextmanager
def another_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run *work* beside the block, and see to it that it has ended after it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_it_stands_still_until_it_is_told_to_go_on() -> None:
    """Readings change by ``advance`` and ``advance_to`` alone."""
    clock = SimClock(5.0)
    assert [5.0, 5.0] == [clock(), clock()]
    assert 7.5 == clock.advance(2.5)
    assert 9.0 == clock.advance_to(9.0)
    assert "SimClock(9.0)" == repr(clock)


def test_it_never_goes_back() -> None:
    """An instant that has passed changes nothing, and seconds below 0 are refused."""
    clock = SimClock(5.0)
    assert 5.0 == clock.advance_to(3.0)
    for seconds in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds="):
            clock.advance(seconds)
    for instant in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="instant="):
            clock.advance_to(instant)
    with pytest.raises(ValueError, match="start="):
        SimClock(float("inf"))
    assert 5.0 == clock()


def test_a_lock_times_out_when_the_time_has_passed() -> None:
    """A lock that is taken is waited for until the clock has reached the deadline, and no longer."""
    clock = SimClock()
    lock = clock.runtime().new_lock()
    assert lock.acquire()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0)
    answers: list[bool] = []
    with another_thread(lambda: answers.append(lock.acquire(timeout=3.0))):
        clock.advance(2.9)
        assert [] == answers
        clock.advance(0.1)
    assert [False] == answers


def test_a_lock_that_is_released_is_handed_on() -> None:
    """Any thread may release a lock, and who waits for it has it then."""
    lock = SimClock().runtime().new_lock()
    lock.acquire()
    answers: list[bool] = []
    with another_thread(lambda: answers.append(lock.acquire(timeout=3.0))):
        lock.release()
    assert [True] == answers
    lock.release()
    with pytest.raises(RuntimeError, match="unlocked"):
        lock.release()


def test_waiting_for_what_does_not_happen_ends() -> None:
    """``await_that`` gives up after some real time."""
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s"):
        SimClock().await_that(lambda: False, timeout=0.01)


def test_idle_connections_are_closed_when_their_time_is_over() -> None:
    """A pool's own alarms ring on the clock: what nobody used for ``idle_timeout`` is closed without being asked."""
    clock = SimClock()
    driver = FakeDriver(clock=clock)
    with millpond.Pool(driver, idle_timeout=60.0, check_after=None, runtime=clock.runtime()) as pool:
        pool.connection().close()
        clock.advance(59.0)
        assert 1 == pool.stats().size
        clock.advance(2.0)
        clock.await_that(lambda: pool.stats().size == 0)
        driver.await_count("closed", 1)


def test_an_idle_connection_is_checked_when_it_has_been_idle_for_long() -> None:
    """A connection is taken as it is until ``check_after``, and asked from then on."""
    clock = SimClock()
    driver = FakeDriver(clock=clock)
    with millpond.Pool(driver, check_after=30.0, idle_timeout=None, runtime=clock.runtime()) as pool:
        pool.connection().close()
        clock.advance(29.0)
        pool.connection().close()
        assert 0 == driver.counts["check"]
        clock.advance(31.0)
        driver.await_count("check", 1)  # the pool does so by itself
        clock.await_that(lambda: pool.stats().idle == 1)
        assert 1 == driver.counts["opened"]


def test_a_caller_times_out_on_the_clock() -> None:
    """A caller who waits is told when its time has passed on the pool's clock, to the instant."""
    clock = SimClock()
    waited: list[float] = []
    with millpond.Pool(FakeDriver(clock=clock), max_size=1, runtime=clock.runtime()) as pool:

        def ask() -> None:
            with pytest.raises(millpond.PoolTimeout) as caught:
                pool.connection(timeout=7.0)
            waited.append(caught.value.waited)

        with pool.connection(), another_thread(ask):
            clock.await_that(lambda: pool.stats().waiting == 1)
            clock.advance(7.0)
    assert [7.0] == waited
