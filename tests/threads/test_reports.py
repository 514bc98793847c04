"""What a pool says of itself: why nobody got a connection, who holds them, what happened; and what it never says."""

from __future__ import annotations

import logging
import pickle
import sqlite3
import threading
from typing import Any

import pytest

import millpond
from millpond.observer import Event, OpenFailed
from millpond.testing.fake_driver import FakeDriver

from .doubles import BadPassword, FamilyDriver, GatedDriver, NullDriver, ServerFull, ServerGone, queue_up, until

SECRET = "s3cr3t-pa55"


# -- PoolTimeout -------------------------------------------------------------------------------------------------------
def refused(pool: millpond.Pool[Any]) -> millpond.PoolTimeout:
    """Ask in vain, and return what was said."""
    with pytest.raises(millpond.PoolTimeout) as caught:
        pool.connection(timeout=0.02)
    return caught.value


def test_an_exhausted_pool_names_the_holders_and_the_remedy(driver: FakeDriver) -> None:
    """Thread, age, file, line and function of each checkout, the longest first, and what can be changed."""
    pool = millpond.Pool(driver, max_size=2)
    held: list[Any] = []

    def hold() -> None:
        held.append(pool.connection())

    first = threading.Thread(target=hold, name="worker-7")
    first.start()
    first.join(10)
    held.append(pool.connection())
    error = refused(pool)
    assert "pool exhausted" == error.reason
    assert 2 == len(error.holders)
    assert error.holders[0].seconds >= error.holders[1].seconds
    assert "MainThread" == error.holders[1].thread
    line = hold.__code__.co_firstlineno + 1
    assert (__file__, line, "hold") == (error.holders[0].site.file, error.holders[0].site.line, "hold")
    for part in (
        "2 of 2 connections are out",
        f"{__file__}:{line} in hold",
        "MainThread for 0.0 s",
        "max_size (now 2)",
    ):
        assert part in str(error)
    assert 0.02 <= error.waited < 10
    for lease in held:
        lease.close()
    pool.close()


def test_a_living_holder_is_named_by_its_thread(driver: FakeDriver) -> None:
    """While the thread runs its name is known."""
    pool = millpond.Pool(driver, max_size=1)
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with pool.connection():
            taken.set()
            over.wait(10)

    thread = threading.Thread(target=hold, name="worker-7")
    thread.start()
    assert taken.wait(10)
    until(lambda: "worker-7" == refused(pool).holders[0].thread, "the thread's name")
    over.set()
    thread.join(10)
    pool.close()


def test_no_more_holders_are_told_than_one_can_read(driver: FakeDriver) -> None:
    """The message names a few, the error has all."""
    pool = millpond.Pool(driver, max_size=8)
    held = [pool.connection() for _ in range(8)]
    error = refused(pool)
    assert "and 3 more" in str(error)
    assert 8 == len(error.holders)
    for lease in held:
        lease.close()
    pool.close()


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        (ServerGone, "server unreachable", "Check host, port and whether the server runs"),
        (ServerFull, "server full", "Raise the server's limit"),
    ],
)
def test_an_outage_says_so_and_has_the_driver_s_error_as_its_cause(
    kind: type[Exception], reason: str, remedy: str
) -> None:
    """What the driver said, how often it was tried, when it will be tried next, and what to look at."""
    driver = FamilyDriver()
    pool = millpond.Pool(driver, max_size=2)
    held = pool.connection()
    driver.failing = kind("the driver's own words")
    until(lambda: pool.stats().open_failures or refused(pool) is None, "a dial that failed")
    error = refused(pool)
    assert reason == error.reason
    assert isinstance(error.__cause__, kind)
    assert "the driver's own words" == str(error.__cause__)
    assert remedy in str(error)
    assert "failed in a row" in str(error)
    held.close()
    pool.close()


def test_refused_credentials_are_told_as_the_driver_says_it() -> None:
    """Also long after the first success: trying again could lock the account."""
    driver = FamilyDriver()
    pool = millpond.Pool(driver, max_size=1)
    pool.connection().close()
    pool.drain()
    driver.failing = BadPassword("the password has expired")
    with pytest.raises(BadPassword, match="expired"):
        pool.connection(timeout=60)
    pool.close()


def test_a_dial_under_way_is_told() -> None:
    """While one attempt waits for its answer, it is no use to say when the next one is due."""
    driver = GatedDriver()
    pool = millpond.Pool(driver, max_size=2)
    driver.gate.release()
    held = pool.connection()
    assert driver.begun.acquire(timeout=10)
    driver.failing = ServerGone("nobody there")
    driver.gate.release()
    until(lambda: pool.stats().open_failures > 0 or refused(pool) is None)
    until(lambda: pool.stats().dialing > 0 or refused(pool) is None)
    assert "an attempt is under way" in str(refused(pool))
    for _ in range(50):
        driver.gate.release()
    held.close()
    pool.close()


def test_slow_dials_are_named() -> None:
    """Nobody holds anything and nothing fails: connecting takes longer than callers wait."""
    driver = GatedDriver()
    pool = millpond.Pool(driver, max_size=1)
    error = refused(pool)
    assert "dials too slow" == error.reason
    assert "raise timeout" in str(error)
    driver.gate.release(10)
    pool.close()


def test_a_long_outage_is_told_at_once_if_that_was_asked_for() -> None:
    """With fail_after callers do not wait any more, and have the cause."""
    driver = FamilyDriver()
    pool = millpond.Pool(driver, max_size=1, timeout=3600, fail_after=0.0)
    pool.connection().close()
    pool.drain()
    driver.failing = ServerGone("down")
    with pytest.raises(millpond.PoolTimeout) as caught:
        pool.connection()
    assert isinstance(caught.value.__cause__, ServerGone)
    pool.close()


# -- families and pickles ----------------------------------------------------------------------------------------------
def test_errors_belong_to_the_driver_s_family_and_survive_pickling() -> None:
    """``except sqlite3.OperationalError`` sees a time-out; a worker sends home the plain class with all it has."""
    pool = millpond.Pool(FamilyDriver(), max_size=1)
    held = pool.connection()
    error = refused(pool)
    assert isinstance(error, sqlite3.OperationalError)
    assert isinstance(error, millpond.Error)
    assert 0 == error.args[0]
    home = pickle.loads(pickle.dumps(error))
    assert millpond.PoolTimeout is type(home)
    assert (str(error), error.reason, error.holders) == (str(home), home.reason, home.holders)
    held.close()
    with pytest.raises(sqlite3.InterfaceError):
        held.commit()
    pool.close()
    with pytest.raises(sqlite3.InterfaceError):
        pool.connection()


def test_where_the_driver_is_not_known_yet_errors_are_plain() -> None:
    """A callable says nothing of its driver before the first connection; a time-out before it is ours alone."""
    over = threading.Event()

    def connect() -> Any:
        over.wait(10)
        return sqlite3.connect(":memory:", check_same_thread=False)

    pool = millpond.Pool(connect, max_size=1)
    assert millpond.PoolTimeout is type(refused(pool))
    over.set()
    pool.close()


# -- observers ---------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
def test_an_observer_hears_of_everything_once() -> None:
    """Dials that land and fail, connections given up, callers told to go, leases dropped: one event each."""
    events: list[Event] = []
    driver = FamilyDriver()
    pool = millpond.Pool(driver, max_size=1, observer=events.append, name="observed")
    lease = pool.connection()
    refusals = [refused(pool)]
    lease.close()
    pool.connection()  # dropped
    until(lambda: pool.stats().dropped, "the dropped lease")
    driver.failing = ServerGone("down")
    while driver.attempts == 1:  # a dialer of a busy machine may begin after its asker's time is up
        refusals.append(refused(pool))
    # A dial that is still under way when the pool closes is given up, which is no failure of the server's.
    until(lambda: driver.attempts - 1 == sum(isinstance(event, OpenFailed) for event in events), "word of each dial")
    pool.close()
    names = [type(event).__name__ for event in events]
    assert {"observed"} == {event.pool for event in events}
    assert (1, 1, 1) == tuple(names.count(name) for name in ("Opened", "Dropped", "Retired"))
    assert len(refusals) == names.count("TimedOut")


@pytest.mark.parametrize(
    ("error", "level"),
    [(LookupError("my mistake"), logging.WARNING), (sqlite3.OperationalError("gone"), logging.DEBUG)],
)
def test_a_reset_of_the_caller_s_own_that_raises_costs_the_connection_and_is_told(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in it must not close connections in silence for ever; that a link has broken is no news."""
    caplog.set_level(logging.DEBUG, "millpond")

    def reset(conn: sqlite3.Connection) -> None:
        raise error

    with millpond.Pool("sqlite:///:memory:", reset=reset) as pool:
        pool.connection().close()
        assert {"unclean": 1} == pool.stats().retired
    assert [level] == [record.levelno for record in caplog.records if "could not be reset" in record.message]


def test_an_observer_that_raises_is_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """The pool goes on, and the log has the traceback."""

    def observe(event: Event) -> None:
        raise LookupError("in the observer")

    with millpond.Pool(NullDriver(), observer=observe) as pool:
        pool.connection().close()
    assert {("millpond", logging.ERROR)} == {(record.name, record.levelno) for record in caplog.records}
    assert "in the observer" in caplog.text


# -- what on_connect raises --------------------------------------------------------------------------------------------
def test_a_failing_on_connect_is_the_caller_s_to_see_and_leaks_nothing(driver: FakeDriver) -> None:
    """It is raised unchanged; the connection it was called for is closed."""

    def set_up(conn: Any) -> None:
        raise LookupError("in the hook")

    module: Any = driver.module
    with millpond.Pool(module, on_connect=set_up) as pool, pytest.raises(LookupError, match="in the hook"):
        pool.connection()
    assert (1, []) == (driver.counts["opened"], driver.live)


# -- secrets -----------------------------------------------------------------------------------------------------------
def test_passwords_are_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a pool, its statistics, its errors nor its log has the password of the URL or of connect_args."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    url = f"mysql+pymysql://user:{SECRET}@127.0.0.1:9/db?connect_timeout=1"
    pools = [
        millpond.Pool(url, max_size=1, observer=lambda event: told.append(repr(event))),
        millpond.Pool("mysql+pymysql://user@127.0.0.1:9/db", connect_args={"password": SECRET}, max_size=1),
    ]
    for pool in pools:
        with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
            pool.connection()
        told += [repr(pool), str(pool), repr(pool.stats()), repr(pool.driver), str(caught.value), repr(caught.value)]
        pool.close()
    for wrong in ({"max_size": 0}, {"no_such_option": 1}):
        with pytest.raises((millpond.InvalidSetting, TypeError)) as refusal:
            millpond.Pool(url, **wrong)  # type: ignore[arg-type]  # they are wrong
        told.append(repr(refusal.value))
    with pytest.raises(millpond.InvalidSetting) as malformed:
        millpond.Pool(f"mysql+pymysql://user:{SECRET}@host:port/db")
    told += [repr(malformed.value), caplog.text]
    assert [] == [text for text in told if SECRET in text]


# -- statistics --------------------------------------------------------------------------------------------------------
def test_statistics_count_what_happened(driver: FakeDriver) -> None:
    """Checkouts, seconds in use, waits and time-outs, dials, and what is where right now."""
    with millpond.Pool(driver, max_size=1, name="counted") as pool:
        pool.connection().close()
        lease = pool.connection()
        refused(pool)
        (thread,) = queue_up(pool, [lambda: pool.connection().close()])
        stats = pool.stats()
        assert ("counted", 1, 1, 0, 1) == (stats.name, stats.size, stats.leased, stats.idle, stats.waiting)
        assert stats.waiting_longest >= 0
        lease.close()
        thread.join(10)
        stats = pool.stats()
        assert (3, 3, 1, 1) == (stats.uses, stats.waits, stats.timeouts, stats.opened)
        assert stats.busy > 0
        assert stats.waited >= 0
        assert () == stats.holders
