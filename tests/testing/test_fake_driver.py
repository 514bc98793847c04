"""The driver that does as it is told: what each operation does, what is counted, and what is held against a pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import millpond
from millpond._core.states import Fault
from millpond.testing import SimClock
from millpond.testing.fake_driver import (
    FakeConnection,
    FakeDriver,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)

DEADLINE_S = 10.0


def soon() -> float:
    """Return a deadline."""
    return time.monotonic() + DEADLINE_S


@contextmanager
def another_thread(work: Callable[[], object]) -> Iterator[None]:
    """Run *work* beside the block, and see to it that it has ended after it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


class TestBehaviours:
    """What an operation does."""

    def test_ok(self) -> None:
        """All goes well as long as nothing else is said."""
        driver = FakeDriver()
        conn = driver.open(soon())
        assert driver.is_alive(conn, soon())
        assert driver.reset(conn, soon())
        driver.close(conn)
        assert {"open": 1, "opened": 1, "check": 1, "reset": 1, "close": 1, "closed": 1} == driver.counts
        assert [] == driver.live
        assert [] == driver.mishaps

    def test_no(self) -> None:
        """A check or a reset answers that the connection is of no use."""
        driver = FakeDriver()
        conn = driver.open(soon())
        driver.behave("check", "no", times=1)
        driver.behave("reset", "no", times=1)
        assert [False, True] == [driver.is_alive(conn, soon()) for _ in range(2)]
        assert [False, True] == [driver.reset(conn, soon()) for _ in range(2)]

    def test_error(self) -> None:
        """An operation raises what it is told to, so many times."""
        driver = FakeDriver()
        refused = ConnectionRefusedError("nobody there")
        driver.behave("open", "error", times=2, error=refused)
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError, match="nobody there"):
                driver.open(soon())
        driver.behave("reset", "error")
        with pytest.raises(OperationalError, match="as the test has told"):
            driver.reset(driver.open(soon()), soon())

    def test_late(self) -> None:
        """A late operation waits for the test, deadline or not, and goes well then."""
        driver = FakeDriver()
        driver.behave("open", "late")
        with another_thread(lambda: driver.open(time.monotonic())):
            driver.await_waiting("open", 1)
            assert (1, 0) == (driver.waiting("open"), driver.counts["opened"])
            driver.release("open")
        assert (0, 1) == (driver.waiting("open"), driver.counts["opened"])

    def test_late_ones_are_let_go_one_by_one(self) -> None:
        """``release`` lets as many go as it says, those that wait and those to come."""
        driver = FakeDriver()
        driver.behave("open", "late")
        with another_thread(lambda: driver.open(soon())), another_thread(lambda: driver.open(soon())):
            driver.await_waiting("open", 2)
            driver.release("open", 1)
            driver.await_count("opened", 1)
            assert 1 == driver.waiting("open")
            driver.release("open", 2)
        driver.open(soon())  # by the second of those two
        assert 3 == driver.counts["opened"]

    def test_never(self) -> None:
        """What is never answered fails when its deadline has passed."""
        driver = FakeDriver()
        driver.behave("open", "never")
        with pytest.raises(OperationalError, match="never"):
            driver.open(time.monotonic() + 0.01)
        assert 0 == driver.counts["opened"]

    def test_never_on_a_clock_of_the_tests(self) -> None:
        """On a ``SimClock`` a deadline passes when the test says so: no real time, however far away it was."""
        clock = SimClock()
        driver = FakeDriver(clock=clock)
        driver.behave("check", "never")
        conn = driver.open(clock())
        failed_at: list[float] = []

        def check() -> None:
            with pytest.raises(OperationalError, match="never"):
                driver.is_alive(conn, 3600.0)
            failed_at.append(clock())

        with another_thread(check):
            driver.await_waiting("check", 1)
            clock.advance(3599.0)
            assert [] == failed_at
            clock.advance(1.0)
        assert [3600.0] == failed_at

    def test_never_without_bounds(self) -> None:
        """A driver that cannot be bounded waits on behind its deadline, until the test is over."""
        driver = FakeDriver(bounded=False)
        driver.behave("open", "never")
        failed: list[BaseException] = []

        def dial() -> None:
            with pytest.raises(OperationalError) as caught:
                driver.open(time.monotonic())
            failed.append(caught.value)

        with another_thread(dial):
            driver.await_waiting("open", 1)
            driver.shut_down()
        assert 1 == len(failed)

    def test_lie(self) -> None:
        """A lie says that all is well: the connection is dead, the session as it was, the socket open."""
        driver = FakeDriver()
        driver.behave("open", "lie", times=1)
        dead = driver.open(soon())
        driver.behave("check", "lie", times=1)
        assert [True, False] == [driver.is_alive(dead, soon()) for _ in range(2)]
        conn = driver.open(soon())
        conn.cursor().execute("SET @a = 1")
        driver.behave("reset", "lie", times=1)
        assert driver.reset(conn, soon())
        assert {"@a": "1"} == conn.session
        assert driver.reset(conn, soon())
        assert {} == conn.session
        driver.behave("close", "lie", times=1)
        driver.close(conn)
        assert [dead, conn] == driver.live

    @pytest.mark.parametrize(
        ("operation", "behaviour", "named"), [("ping", "ok", "operation"), ("open", "slow", "behaviour")]
    )
    def test_what_there_is_not(self, operation: str, behaviour: str, named: str) -> None:
        """A word that is none is refused, and the words there are are named."""
        with pytest.raises(millpond.InvalidSetting, match="one of") as caught:
            FakeDriver().behave(operation, behaviour)  # type: ignore[arg-type]  # that is the test
        assert named == caught.value.name

    def test_waits_end(self) -> None:
        """A test that waits for what does not happen is told what there was instead."""
        driver = FakeDriver()
        driver.open(soon())
        with pytest.raises(TimeoutError, match="'opened': 1"):
            driver.await_count("closed", 1, timeout=0.01)
        with pytest.raises(TimeoutError, match="2 calls of open to wait"):
            driver.await_waiting("open", 2, timeout=0.01)


class TestMishaps:
    """What it holds against whoever uses it."""

    def test_closing_twice(self) -> None:
        """A connection that is closed twice is noted."""
        driver = FakeDriver()
        conn = driver.open(soon())
        conn.close()
        driver.close(conn)
        assert ["connection 1 was closed twice"] == driver.mishaps

    def test_using_what_was_closed(self) -> None:
        """A statement on a closed connection is noted, and an error."""
        driver = FakeDriver()
        conn = driver.open(soon())
        cursor = conn.cursor()
        conn.close()
        with pytest.raises(InterfaceError, match="closed"):
            cursor.execute("SELECT 1")
        assert ["connection 1 was used after it was closed: SELECT 1"] == driver.mishaps

    def test_two_threads_at_once(self) -> None:
        """Two threads inside one connection are noted, whichever of them comes second."""
        driver = FakeDriver()
        conn = driver.open(soon())
        driver.behave("check", "late")
        with another_thread(lambda: driver.is_alive(conn, soon())):
            driver.await_waiting("check", 1)
            with another_thread(conn.commit):
                driver.await_that(lambda: bool(driver.mishaps), "a mishap")
                driver.release("check")
        assert ["two threads at once in connection 1: commit"] == driver.mishaps


class TestConnections:
    """What its connections understand."""

    def test_rows_are_everybodys_when_they_are_committed(self) -> None:
        """A write is seen by its own connection at once, by others after the commit, by nobody after a rollback."""
        driver = FakeDriver()
        one, other = driver.open(soon()).cursor(), driver.open(soon()).cursor()
        one.execute("CREATE TABLE t (a INTEGER)")
        one.execute("INSERT INTO t VALUES (%s)", (1,))
        assert (1,) == one.execute("SELECT COUNT(*) FROM t").fetchone()
        assert (0,) == other.execute("SELECT COUNT(*) FROM t").fetchone()
        one.connection.commit()
        assert [(1,)] == list(other.execute("SELECT a FROM t"))
        one.execute("INSERT INTO t VALUES (2)")
        one.connection.rollback()
        assert {"t": [1]} == driver.tables
        one.execute("DROP TABLE t")
        with pytest.raises(ProgrammingError, match="no table t"):
            one.execute("SELECT a FROM t")

    def test_what_it_does_not_understand_is_an_error(self) -> None:
        """A statement beyond its few words is a wrong one, and says nothing about the link."""
        driver = FakeDriver()
        with pytest.raises(ProgrammingError, match="knows CREATE") as caught:
            driver.open(soon()).cursor().execute("UPDATE t SET a = 1")
        assert Fault.STATEMENT is driver.classify(caught.value)

    def test_a_killed_connection(self) -> None:
        """A connection whose server has gone answers nothing, and where it can be polled it tells so."""
        driver = FakeDriver(tells_clean=True, tells_readable=True)
        conn = driver.open(soon())
        assert driver.is_clean is not None
        assert driver.is_readable is not None
        assert driver.is_clean(conn)
        assert not driver.is_readable(conn)
        driver.kill(conn)
        assert driver.is_readable(conn)
        assert not driver.is_alive(conn, soon())
        with pytest.raises(OperationalError, match="lost its server") as caught:
            conn.cursor()
        assert Fault.GONE is driver.classify(caught.value)

    def test_a_fault_of_the_tests_choice(self) -> None:
        """An error's ``fault`` says how it is to be sorted."""
        error = OperationalError(0, "full")
        error.fault = Fault.SERVER_FULL
        assert Fault.SERVER_FULL is FakeDriver().classify(error)

    def test_fetching(self) -> None:
        """Rows are fetched one by one, some at a time, or all that are left."""
        driver = FakeDriver()
        driver.tables["t"] = list(range(6))
        with driver.open(soon()).cursor() as cursor:
            cursor.execute("SELECT a FROM t")
            assert (0,) == cursor.fetchone()
            assert [(1,)] == cursor.fetchmany()
            assert [(2,), (3,)] == cursor.fetchmany(2)
            assert [(4,), (5,)] == cursor.fetchall()
            assert cursor.fetchone() is None


class TestAsModule:
    """A DB-API module over the same connections."""

    def test_a_pool_of_the_module(self) -> None:
        """A pool takes the module as it takes a driver's, and our errors join the module's family."""
        driver = FakeDriver()
        assert driver.module is not None
        pool: millpond.Pool[FakeConnection] = millpond.Pool(driver.module, max_size=1)
        with pool:
            with pool.connection() as conn:
                conn.cursor().execute("SELECT 1")
            with pool.connection(), pytest.raises(millpond.PoolTimeout) as caught:
                pool.connection(timeout=0.0)
        assert isinstance(caught.value, OperationalError)
        assert [] == driver.live
        assert [] == driver.mishaps
