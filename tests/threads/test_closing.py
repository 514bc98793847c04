"""Drain, resize, wait and close: what is said of the whole pool."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import millpond
from millpond.testing.fake_driver import FakeDriver
from tests.garbage import collect

from .doubles import BadPassword, FamilyDriver, Host, NullDriver, in_threads, queue_up, runtime_with, until


# -- close -------------------------------------------------------------------------------------------------------------
def test_close_closes_what_is_idle_and_refuses_new_callers(driver: FakeDriver) -> None:
    """After it nothing is open, and whoever asks is told."""
    pool = millpond.Pool(driver)
    pool.connection().close()
    pool.close()
    assert [] == driver.live
    with pytest.raises(millpond.PoolClosed, match="the pool is closed"):
        pool.connection()
    assert {"closed": 1} == pool.stats().retired


def test_closing_twice_is_harmless(driver: FakeDriver) -> None:
    """The second time does nothing; so does the end of a block whose pool was closed in it."""
    with millpond.Pool(driver) as pool:
        pool.connection().close()
        pool.close()
        pool.close(timeout=0)
    assert 1 == driver.counts["closed"]


def test_close_waits_for_what_is_out(driver: FakeDriver) -> None:
    """A connection that comes back in time is closed in peace; close() returns then and not before."""
    pool = millpond.Pool(driver)
    lease = pool.connection()
    closer = threading.Thread(target=pool.close, args=(3600,), daemon=True)
    closer.start()
    until(lambda: "closed" in repr(pool), "a closed pool")
    assert closer.is_alive()
    assert (1,) == lease.cursor().execute("SELECT 1").fetchone()
    lease.close()
    closer.join(10)
    assert (False, []) == (closer.is_alive(), driver.live)


def test_close_cuts_what_does_not_come_back(driver: FakeDriver) -> None:
    """After its time-out, or at once with 0, links are broken; their holder's next use says what has happened."""
    pool = millpond.Pool(driver)
    lease = pool.connection()
    conn = lease.driver_connection
    pool.close(timeout=0)
    assert (False, False) == (conn.alive, conn.closed)
    assert 0 == pool.stats().size
    lease.close()
    driver.await_count("closed", 1)
    assert {"closed": 1} == pool.stats().retired


def test_close_tells_waiting_callers(driver: FakeDriver) -> None:
    """Who is in the queue hears of it at once, each by an exception of its own."""
    pool = millpond.Pool(driver, max_size=1, timeout=3600)
    lease = pool.connection()
    errors: list[Any] = []

    def ask() -> None:
        try:
            pool.connection()
        except millpond.PoolClosed as error:
            errors.append(error)

    threads = queue_up(pool, [ask] * 3)
    closer = threading.Thread(target=pool.close, daemon=True)
    closer.start()
    for thread in threads:
        thread.join(10)
    assert 3 == len({id(error) for error in errors})
    lease.close()
    closer.join(10)


def test_close_does_not_wait_for_a_dial_that_hangs(driver: FakeDriver) -> None:
    """A connection that arrives after all is closed on arrival."""
    driver.behave("open", "late")
    pool = millpond.Pool(driver, timeout=3600)
    threads = queue_up(pool, [lambda: in_threads(pool.connection)])
    driver.await_waiting("open", 1)
    pool.close(timeout=0)
    threads[0].join(10)
    driver.release("open")
    driver.await_count("closed", 1)
    assert [] == driver.live
    until(lambda: pool.stats().abandoned == 0 or pool.stats().closed == 1, "the late arrival")


@pytest.mark.parametrize("wrong", [-1, "5", float("nan")])
def test_close_refuses_a_wrong_timeout_and_changes_nothing(driver: FakeDriver, wrong: Any) -> None:
    """A mistake in the argument leaves the pool open."""
    with millpond.Pool(driver) as pool:
        with pytest.raises(millpond.InvalidSetting, match="timeout="):
            pool.close(timeout=wrong)
        pool.connection().close()


def test_close_with_none_waits_as_long_as_it_takes(driver: FakeDriver) -> None:
    """As everywhere, None is no limit."""
    pool = millpond.Pool(driver)
    lease = pool.connection()
    closer = threading.Thread(target=pool.close, args=(None,), daemon=True)
    closer.start()
    until(lambda: "closed" in repr(pool), "a closed pool")
    lease.close()
    closer.join(10)
    assert (False, []) == (closer.is_alive(), driver.live)


def test_a_with_block_closes_the_pool_also_when_it_is_left_by_an_error(driver: FakeDriver) -> None:
    """Nothing stays open behind a failure."""

    def fail() -> None:
        with millpond.Pool(driver) as pool:
            pool.connection().close()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert [] == driver.live


def test_no_thread_is_left_after_close() -> None:
    """Dialers, the alarm clock and whoever closes connections have ended when close() returns."""
    running = threading.Semaphore(0)
    alive: set[int] = set()

    def start(work: Any) -> None:
        def noted() -> None:
            alive.add(threading.get_ident())
            try:
                work()
            finally:
                alive.discard(threading.get_ident())
                running.release()

        threading.Thread(target=noted, daemon=True).start()

    driver = NullDriver()
    pool = millpond.Pool(driver, max_size=3, min_idle=2, runtime=runtime_with(start=start))
    pool.wait()
    leases = [pool.connection() for _ in range(3)]
    assert alive, "this pool has no threads at all: the test would hold whatever close() did"
    for lease in leases:
        lease.close()
    pool.close()
    until(lambda: not alive, "the end of every thread")  # what is left is the end of the thread itself
    assert not driver.left_open


# -- drain and resize --------------------------------------------------------------------------------------------------
def test_drain_replaces_every_connection(driver: FakeDriver) -> None:
    """Idle ones are closed now, those that are out when they come back; who asks later gets new ones."""
    with millpond.Pool(driver, max_size=3) as pool:
        out, idle = pool.connection(), pool.connection()
        idle.close()
        pool.drain()
        driver.await_count("closed", 1)
        assert (1,) == out.cursor().execute("SELECT 1").fetchone()
        with pool.connection() as conn:
            assert 3 == conn.number
        out.close()
        driver.await_count("closed", 2)
        assert {"drained": 2} == pool.stats().retired
        assert 1 == pool.stats().idle


def test_resize_takes_effect_for_idle_connections_at_once_and_for_others_at_their_return(driver: FakeDriver) -> None:
    """A smaller pool gets there as soon as it can without taking anything from anybody."""
    with millpond.Pool(driver, max_size=4) as pool:
        leases = [pool.connection() for _ in range(4)]
        leases.pop().close()
        pool.resize(2)
        assert (2, 3) == (pool.stats().max_size, pool.stats().size)
        for lease in leases:
            lease.close()
        assert 2 == pool.stats().size
        assert {"surplus": 2} == pool.stats().retired


def test_resize_serves_who_waits(driver: FakeDriver) -> None:
    """More room is used by the queue at once."""
    with millpond.Pool(driver, max_size=1, timeout=60, growth="eager") as pool:
        lease = pool.connection()
        (thread,) = queue_up(pool, [lambda: pool.connection().close()])
        pool.resize(2)
        thread.join(10)
        assert not thread.is_alive()
        lease.close()


def test_resize_refuses_what_cannot_be_and_changes_nothing(driver: FakeDriver) -> None:
    """Both sizes are checked, alone and against each other."""
    with millpond.Pool(driver, max_size=5, min_idle=2) as pool:
        for sizes, name in (((0,), "max_size"), ((5, -1), "min_idle"), ((5, 6), "min_idle"), ((1,), "min_idle")):
            with pytest.raises(millpond.InvalidSetting, match=f"{name}="):
                pool.resize(*sizes)
        assert (5, 2) == (pool.stats().max_size, pool.stats().min_idle)


# -- wait --------------------------------------------------------------------------------------------------------------
def test_wait_returns_when_min_idle_is_there(driver: FakeDriver) -> None:
    """A program can make its pool warm before it serves anybody."""
    driver.behave("open", "late")
    with millpond.Pool(driver, min_idle=3) as pool:
        driver.await_waiting("open", 3)
        driver.release("open")
        pool.wait(60)
        assert 3 == pool.stats().idle


def test_wait_says_what_is_missing_when_its_time_is_up(driver: FakeDriver) -> None:
    """It times out as a caller does, with the same diagnosis."""
    driver.behave("open", "late")
    with millpond.Pool(driver, min_idle=1) as pool:
        driver.await_waiting("open", 1)
        with pytest.raises(millpond.PoolTimeout) as caught:
            pool.wait(0)
        assert "dials too slow" == caught.value.reason
        driver.release("open")


def test_wait_tells_what_waiting_cannot_mend() -> None:
    """The driver's own exception, at once, while no connect has ever succeeded."""
    driver = FamilyDriver()
    driver.failing = BadPassword("no")
    with millpond.Pool(driver, min_idle=1) as pool, pytest.raises(BadPassword):
        pool.wait(60)


def test_wait_tells_what_was_refused_before_it_began() -> None:
    """No dial is made after that which nobody asks for: whoever came later would wait for nothing."""
    driver = FamilyDriver()
    driver.failing = BadPassword("no")
    with millpond.Pool(driver, min_idle=1) as pool:
        until(lambda: pool.stats().open_failures == 1)
        with pytest.raises(BadPassword):
            pool.wait(60)
        assert 1 == driver.attempts


def test_wait_on_a_closed_pool(driver: FakeDriver) -> None:
    """Nothing will come of it, and it says so."""
    pool = millpond.Pool(driver)
    pool.close()
    with pytest.raises(millpond.PoolClosed):
        pool.wait()


# -- time --------------------------------------------------------------------------------------------------------------
def test_idle_connections_are_closed_down_to_min_idle() -> None:
    """What nobody has used for so long goes, but for what is to be kept."""
    host = Host()
    driver = NullDriver()
    pool = millpond.Pool(
        driver, max_size=3, min_idle=1, idle_timeout=60, check_after=None, reset="none", runtime=host.runtime()
    )

    def use_three() -> None:
        for lease in [pool.connection() for _ in range(3)]:
            lease.close()

    host.run(use_three)
    host.advance(50, step=5)
    assert 3 == pool.stats().idle
    host.advance(20, step=5)
    assert (1, {"idle": 2}) == (pool.stats().idle, pool.stats().retired)
    host.run(pool.close)
    assert not driver.left_open


def test_idle_connections_prove_their_life_in_the_background() -> None:
    """After check_after one that is dead is found and replaced before a caller could get it."""
    host = Host()
    driver = NullDriver()
    pool = millpond.Pool(driver, min_idle=1, check_after=30, reset="none", runtime=host.runtime())
    host.settle()
    driver.dead.add(driver.opened[0])
    host.advance(40, step=5)
    assert (1, 2, {"dead": 1}) == (pool.stats().idle, len(driver.opened), pool.stats().retired)
    host.run(pool.close)
    assert not driver.left_open


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_pool_that_is_dropped_closes_its_idle_connections() -> None:
    """Who forgets close() is warned, and its connections say goodbye when the pool is collected."""
    driver = NullDriver()
    pool = millpond.Pool(driver)
    pool.connection().close()
    del pool
    collect()
    until(lambda: not driver.left_open, "the end of its connections")
