"""What happens to a connection when it is given back, in every way in which that can happen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import millpond
from millpond.testing.fake_driver import FakeDriver
from tests.garbage import collect

from .doubles import NullConnection, NullDriver, in_threads, until

HERE = __file__


def retired(pool: millpond.Pool[Any]) -> dict[str, int]:
    """Return how many connections were given up, and why."""
    return dict(pool.stats().retired)


# -- left by an exception ----------------------------------------------------------------------------------------------
def leave_by(error: BaseException, pool: millpond.Pool[Any]) -> None:
    """Leave a block by an exception."""
    with pytest.raises(type(error)), pool.connection():
        raise error


@pytest.mark.parametrize("error", [ValueError("a mistake"), GeneratorExit(), SystemExit()])
def test_leaving_by_an_exception_costs_no_connection(driver: FakeDriver, error: BaseException) -> None:
    """A mistake in the block, a closed generator or an exit proves nothing about the connection."""
    with millpond.Pool(driver) as pool:
        leave_by(error, pool)
        assert (1, {}) == (pool.stats().idle, retired(pool))


def test_a_generator_that_is_left_early_keeps_its_connection(driver: FakeDriver) -> None:
    """A break out of a loop over a generator that holds a lease is no reason to connect again."""

    def rows() -> Iterator[int]:
        with pool.connection() as conn:
            yield from (conn.number for _ in range(10))

    with millpond.Pool(driver) as pool:
        for _ in range(3):
            for number in rows():
                assert 1 == number
                break
            collect()
        assert {} == retired(pool)


def test_a_keyboard_interrupt_costs_the_connection(driver: FakeDriver) -> None:
    """It may have come in the middle of the driver's own work, and a driver's state is then anybody's guess."""
    with millpond.Pool(driver) as pool:
        leave_by(KeyboardInterrupt(), pool)
        assert (0, {"unclean": 1}) == (pool.stats().idle, retired(pool))


@pytest.mark.parametrize("error", [None, ValueError("a mistake"), GeneratorExit()])
def test_an_unread_reply_costs_the_connection(driver: FakeDriver, error: BaseException | None) -> None:
    """However it was left, the next borrower must not read somebody else's rows."""
    with millpond.Pool(driver) as pool:
        try:
            with pool.connection() as conn:
                conn.driver_connection.unread = True
                if error is not None:
                    raise error
        except (ValueError, GeneratorExit):
            pass
        assert {"unclean": 1} == retired(pool)
        with pool.connection() as conn:
            assert 2 == conn.number


def test_an_adapter_that_cannot_tell_what_is_in_flight_is_believed_the_worst() -> None:
    """A generator closed while perhaps a command was in flight costs the connection, an ordinary error does not."""
    with millpond.Pool(NullDriver()) as pool:
        leave_by(ValueError("a mistake"), pool)
        assert {} == retired(pool)
        leave_by(GeneratorExit(), pool)
        assert {"unclean": 1} == retired(pool)


# -- made as good as new -----------------------------------------------------------------------------------------------
def test_a_reset_makes_the_session_as_good_as_new(driver: FakeDriver) -> None:
    """What one borrower has set, the next one does not see."""
    with millpond.Pool(driver) as pool:
        with pool.connection() as conn:
            conn.cursor().execute("SET @mood = 'blue'")
        with pool.connection() as conn:
            assert (1, {}) == (conn.number, conn.session)
    assert 2 == driver.counts["reset"]


def test_a_clean_session_is_not_reset() -> None:
    """Where the adapter can tell, nothing is asked of the server that need not be."""
    driver = FakeDriver(tells_clean=True)
    with millpond.Pool(driver) as pool:
        pool.connection().close()
        assert 0 == driver.counts["reset"]
        with pool.connection() as conn:
            conn.cursor().execute("SET @mood = 'blue'")
        assert 1 == driver.counts["reset"]
    assert [] == driver.mishaps


@pytest.mark.parametrize("setting", ["none", None])
def test_no_reset_at_all(driver: FakeDriver, setting: Any) -> None:
    """Who asks for none gets none, and it is shown in the statistics."""
    with millpond.Pool(driver, reset=setting) as pool:
        pool.connection().close()
        assert "none" == pool.stats().reset
    assert 0 == driver.counts["reset"]


@pytest.mark.parametrize("behaviour", ["no", "error"])
def test_a_reset_that_fails_costs_the_connection_and_nothing_else(driver: FakeDriver, behaviour: Any) -> None:
    """Closing a lease does not raise for what the server did to the connection behind it."""
    with millpond.Pool(driver) as pool:
        driver.behave("reset", behaviour, times=1)
        pool.connection().close()
        assert (0, {"unclean": 1}) == (pool.stats().size, retired(pool))
        with pool.connection() as conn:
            assert 2 == conn.number


def test_a_reset_of_the_user_s_own(driver: FakeDriver) -> None:
    """A callable gets the connection; False gives it up; what it raises costs the connection, not the caller."""
    seen: list[Any] = []
    answers: list[Any] = [None, False, LookupError("in the hook")]

    def reset(conn: Any) -> Any:
        seen.append(conn.number)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    module: Any = driver.module
    with millpond.Pool(module, reset=reset) as pool:
        for _ in range(3):
            pool.connection().close()
        assert [1, 1, 2] == seen
        assert {"unclean": 2} == retired(pool)
        assert "callable" == pool.stats().reset


# -- uncommitted -------------------------------------------------------------------------------------------------------
def write(pool: millpond.Pool[Any], times: int = 1) -> None:
    """Write, and forget to commit."""
    for _ in range(times):
        with pool.connection() as conn:
            conn.cursor().execute("INSERT INTO t VALUES (1)")


def write_everywhere(pool: millpond.Pool[Any]) -> None:
    """Write in two places, in one of them again and again."""
    write(pool, times=3)
    with pool.connection() as conn:
        conn.cursor().execute("INSERT INTO t VALUES (2)")


def test_uncommitted_writes_are_rolled_back_and_told_once_per_place(driver: FakeDriver) -> None:
    """The pool never commits; each place that forgot to is named once, however often it does, and all are counted."""
    driver.tables["t"] = []
    with millpond.Pool(driver) as pool:
        with pytest.warns(millpond.UncommittedWork) as told:
            write_everywhere(pool)
        assert 4 == pool.stats().uncommitted
    assert [] == driver.tables["t"]
    assert 2 == len(told)
    assert all(HERE in str(warning.message) for warning in told)


def test_the_warning_about_uncommitted_writes_stands_at_the_caller_s_line(driver: FakeDriver) -> None:
    """Filters by module and tools that show the line see the caller's, not the pool's."""
    driver.tables["t"] = []
    with millpond.Pool(driver) as pool, pytest.warns(millpond.UncommittedWork) as told:
        write(pool)
    assert HERE == told[0].filename


def test_a_warning_made_an_error_does_not_stop_a_return(driver: FakeDriver, caplog: pytest.LogCaptureFixture) -> None:
    """With ``-W error`` a forgotten commit is logged; the connection still goes back, rolled back."""
    driver.tables["t"] = []
    with millpond.Pool(driver) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        write(pool)
        assert 1 == pool.stats().idle
    assert ["millpond"] == [record.name for record in caplog.records]


def test_committed_writes_are_not_told(driver: FakeDriver) -> None:
    """Who commits hears nothing."""
    driver.tables["t"] = []
    with millpond.Pool(driver) as pool, pool.connection() as conn:
        conn.cursor().execute("INSERT INTO t VALUES (1)")
        conn.commit()
    assert ([1], 0) == (driver.tables["t"], pool.stats().uncommitted)


# -- dropped -----------------------------------------------------------------------------------------------------------
def drop(pool: millpond.Pool[Any]) -> None:
    """Take a connection and forget it."""
    pool.connection()


def drop_in_a_cycle(pool: millpond.Pool[Any]) -> None:
    """Take a connection and forget it in a cycle, as a traceback that is kept makes them."""
    cycle: list[Any] = [pool.connection()]
    cycle.append(cycle)
    del cycle
    collect()


@pytest.mark.parametrize("forget", [drop, drop_in_a_cycle])
def test_a_dropped_lease_is_recovered_and_reported(
    driver: FakeDriver, caplog: pytest.LogCaptureFixture, forget: Callable[[millpond.Pool[Any]], None]
) -> None:
    """Its room is free again, its connection closed, and the log says where it had been taken; nobody had to ask."""
    pool = millpond.Pool(driver, max_size=1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        forget(pool)
        driver.await_count("closed", 1)
        until(lambda: told, "a report")
    stats = pool.stats()
    assert (1, 1, 0) == (stats.dropped, stats.lost, stats.size)
    assert {millpond.LeaseDropped} == {warning.category for warning in told}
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{HERE}:" in record.message
    assert f"in {forget.__name__}" in record.message
    with pool.connection() as conn:
        assert 2 == conn.number
    pool.close()


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
def test_a_waiting_caller_gets_the_room_of_a_dropped_lease(driver: FakeDriver) -> None:
    """Who waits is served although nobody gives anything back."""
    pool = millpond.Pool(driver, max_size=1, timeout=60)
    held = [pool.connection()]

    def use() -> int:
        with pool.connection() as conn:
            number: int = conn.number
            return number

    def forget() -> None:
        until(lambda: pool.stats().waiting, "a caller in the queue")
        held.clear()

    assert [2, None] == in_threads(use, forget)
    pool.close()


def test_a_lease_that_was_given_back_may_be_dropped(driver: FakeDriver) -> None:
    """What has been closed is not recovered."""
    with millpond.Pool(driver) as pool:
        drop_after_close = pool.connection()
        drop_after_close.close()
        del drop_after_close
        collect()
        assert (0, 0, 1) == (pool.stats().dropped, pool.stats().lost, pool.stats().idle)


# -- by two threads ----------------------------------------------------------------------------------------------------
def test_two_threads_closing_one_lease_give_it_back_once() -> None:
    """Only one of them succeeds; the other does nothing."""
    with millpond.Pool(NullDriver(), max_size=1, reset="none") as pool:
        for _ in range(50):
            lease = pool.connection()
            in_threads(lease.close, lease.close)
            assert 1 == pool.stats().idle


# -- a hook of the adapter that raises -------------------------------------------------------------------------------
class Broken(NullDriver):
    """An adapter with a mistake in what is asked at return."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken
        self.is_clean = self.tell  # a capability is an attribute

    def tell(self, conn: NullConnection) -> bool:
        """Say whether it is clean, or raise."""
        if self.broken == "is_clean":
            raise LookupError("in the adapter")
        return False

    def in_flight(self, conn: NullConnection) -> bool | None:
        """Say whether a command is in flight, or raise."""
        if self.broken == "in_flight":
            raise LookupError("in the adapter")
        return False

    def uncommitted(self, conn: NullConnection) -> bool:
        """Say whether writes would be lost, or raise."""
        if self.broken == "uncommitted":
            raise LookupError("in the adapter")
        return False


@pytest.mark.parametrize("broken", ["is_clean", "in_flight", "uncommitted"])
def test_a_mistake_in_an_adapter_costs_a_connection_not_its_room(broken: str) -> None:
    """Whatever an adapter raises at return is not hidden, and the pool serves its full size afterwards."""
    driver = Broken(broken)
    with millpond.Pool(driver, max_size=1, timeout=60) as pool:
        lease = pool.connection()
        with pytest.raises(LookupError, match="in the adapter"):
            lease.close()
        driver.broken = "nothing any more"
        with pool.connection() as conn:
            assert 2 == conn.number
    assert not driver.left_open
