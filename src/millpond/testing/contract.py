"""What every driver adapter must do: a test class to subclass, one test a promise.

::

    class TestMyDriver(DriverContract):
        def make_driver(self, **settings):
            return MyDriver(mydb, connect_args={...}, **settings)

        def break_connection(self, conn):     # as a server would, if you can
            ...

Run it with pytest.  It needs a database that has nothing of value in it: it creates and drops one table.

Rules: a promise that an adapter does not give (its ``capabilities`` say so) is not tested, and one it gives is.
"""

from __future__ import annotations

import gc
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from millpond._core.states import Fault
from millpond.drivers.base import Adapter, Driver
from millpond.errors import ConnectionReturned

D = TypeVar("D", bound=Adapter[Any])

SECRET = "s3cr3t-0f-the-contract"  # noqa: S105  it must not be found anywhere


class ContractLease:
    """As much of a pool's lease as cursors need: it forwards, it can be given back, and then it says so."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._returned = False
        self._cursors: list[Any] = []

    @property
    def driver_connection(self) -> Any:
        """The connection, until it is given back."""
        if self._returned:
            raise ConnectionReturned("given back by the contract")
        return self._conn

    def _track(self, cursor: Any) -> None:
        self._cursors.append(weakref.ref(cursor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver_connection, name)

    def give_back(self) -> None:
        """Give the connection back, as a pool does: first it is nobody's, then its cursors are closed."""
        self._returned = True
        for reference in self._cursors:
            cursor = reference()
            if cursor is not None:
                cursor.close()


class Promises(Generic[D]):
    """What adapters for threads and adapters for tasks promise alike, and what a contract has to be told.

    Attributes:
        table: created and dropped by the tests.
        wrong_statement: one that the server refuses, and that says nothing about the link.
        slack_s: seconds that a machine may be slow.
    """

    table = "millpond_contract"
    wrong_statement = "SELEKT 1"
    slack_s = 5.0

    # -- to be told --------------------------------------------------------------------------------------------------
    def make_driver(self, **settings: Any) -> D:
        """Return a new adapter; *settings* are ``reset`` and ``on_connect``, where a test needs them."""
        raise AssertionError("the contract needs make_driver(**settings)")

    def driver_with_password(self, password: str) -> D | None:
        """Return an adapter that was told a password; None if this driver knows none."""
        return None

    def driver_to_port(self, port: int) -> D | None:
        """Return an adapter whose connections go to that port of 127.0.0.1; None if this driver has no network."""
        return None

    @staticmethod
    def soon(seconds: float = 10.0) -> float:
        """Return a deadline."""
        return time.monotonic() + seconds

    # -- what it tells of itself ---------------------------------------------------------------------------------------
    def test_passwords_are_shown_nowhere(self) -> None:
        """Neither the adapter's repr nor what it tells of itself has the password in it."""
        driver = self.driver_with_password(SECRET)
        if driver is None:
            return  # it knows none
        assert SECRET not in f"{driver!r} {driver} {driver.capabilities}"

    def test_capabilities_are_told_in_a_line_each(self) -> None:
        """What the adapter can do is told for each thing that there is to tell, in one line."""
        told = self.make_driver().capabilities
        assert {"deadline", "alive", "clean", "reset", "in flight", "cut", "errors"} <= set(told)
        assert all(text and "\n" not in text for text in told.values())


class DriverContract(Promises[Driver[Any]]):
    """The promises of an adapter for threads; subclass it, and say how to make one.

    Attributes: as of :class:`Promises`.
    """

    # -- to be told --------------------------------------------------------------------------------------------------
    def break_connection(self, conn: Any) -> None:
        """End the link of a connection, as a server or a network would; closing it is the least."""
        conn.close()

    # -- tools -------------------------------------------------------------------------------------------------------
    @contextmanager
    def opened(self, driver: Driver[Any]) -> Generator[Any, None, None]:
        """Open a connection, and close it at the end."""
        conn = driver.open(self.soon())
        try:
            yield conn
        finally:
            driver.close(conn)

    @contextmanager
    def with_table(self, conn: Any) -> Generator[None, None, None]:
        """Have the table, and drop it at the end."""
        run(conn, f"CREATE TABLE {self.table} (a INTEGER)")
        conn.commit()
        try:
            yield
        finally:
            conn.rollback()
            run(conn, f"DROP TABLE {self.table}")
            conn.commit()

    def rows(self, conn: Any) -> int:
        """Return how many rows the table has."""
        return int(run(conn, f"SELECT COUNT(*) FROM {self.table}")[0][0])

    # -- opening and closing -------------------------------------------------------------------------------------------
    def test_opens_connections_that_work(self) -> None:
        """A connection that was opened answers."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            assert [(1,)] == [tuple(row) for row in run(conn, "SELECT 1")]
            assert driver.is_alive(conn, self.soon())

    def test_no_deadline_is_one_too(self) -> None:
        """An instant that never comes bounds nothing, and is no error."""
        driver = self.make_driver()
        conn = driver.open(math.inf)
        try:
            assert driver.is_alive(conn, math.inf)
            assert driver.reset(conn, math.inf)
        finally:
            driver.close(conn)

    def test_on_connect_statements_run_once_a_connection(self) -> None:
        """Statements of ``on_connect`` are run before a connection is handed out, and last."""
        with self.opened(self.make_driver()) as first, self.with_table(first):
            driver = self.make_driver(on_connect=[f"INSERT INTO {self.table} VALUES (1)"])
            with self.opened(driver) as conn:
                driver.reset(conn, self.soon())
                assert self.rows(conn) == 1

    def test_on_connect_gets_the_connection(self) -> None:
        """A callable ``on_connect`` gets each new connection."""
        seen: list[Any] = []
        driver = self.make_driver(on_connect=seen.append)
        with self.opened(driver) as conn:
            assert [conn] == seen

    def test_a_failing_on_connect_fails_the_dial(self) -> None:
        """An exception of ``on_connect`` comes out of ``open`` as it is, and the connection is not left open."""
        seen: list[Any] = []

        def fail(conn: Any) -> None:
            seen.append(conn)
            raise ZeroDivisionError

        driver = self.make_driver(on_connect=fail)
        raised(ZeroDivisionError, lambda: driver.open(self.soon()))
        assert not driver.is_alive(seen[0], self.soon())

    def test_close_never_raises_and_is_quick(self) -> None:
        """Closing goes well for a healthy connection, a closed one and a broken one."""
        driver = self.make_driver()
        healthy, broken = driver.open(self.soon()), driver.open(self.soon())
        self.break_connection(broken)
        before_at = time.monotonic()
        for conn in (healthy, healthy, broken):
            driver.close(conn)
        assert time.monotonic() - before_at < self.slack_s

    # -- alive ---------------------------------------------------------------------------------------------------------
    def test_a_broken_connection_is_dead_and_stays_dead(self) -> None:
        """A check of a broken connection says so, does not raise, and does not reconnect."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            self.break_connection(conn)
            assert [False, False] == [driver.is_alive(conn, self.soon()) for _ in range(2)]

    def test_a_check_leaves_nothing_open(self) -> None:
        """After a check no transaction is left open, where the adapter can tell."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            driver.is_alive(conn, self.soon())
            assert not driver.uncommitted(conn)
            assert not driver.in_flight(conn)

    def test_a_broken_connection_is_readable(self) -> None:
        """Where the adapter can poll, an idle connection is silent and a broken one is not."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            readable = driver.is_readable
            if readable is None:
                return  # it gives no such promise
            assert not readable(conn)
            self.break_connection(conn)
            until = self.soon()
            while not readable(conn):
                assert time.monotonic() < until, "a broken connection never became readable"

    # -- reset ---------------------------------------------------------------------------------------------------------
    def test_reset_rolls_back(self) -> None:
        """What a borrower wrote and did not commit is gone after the reset."""
        driver = self.make_driver()
        with self.opened(driver) as conn, self.with_table(conn):
            run(conn, f"INSERT INTO {self.table} VALUES (1)")
            assert driver.reset(conn, self.soon())
            assert self.rows(conn) == 0

    def test_what_was_written_is_not_clean(self) -> None:
        """Where the adapter proves connections clean, one with an open transaction is not."""
        driver = self.make_driver()
        with self.opened(driver) as conn, self.with_table(conn):
            run(conn, f"INSERT INTO {self.table} VALUES (1)")
            assert driver.is_clean is None or not driver.is_clean(conn)

    def test_a_reset_connection_is_clean(self) -> None:
        """Where the adapter proves connections clean, a new one is, and so is one that was reset."""
        driver = self.make_driver()
        if driver.is_clean is None:
            return  # it gives no such promise
        with self.opened(driver) as conn:
            assert driver.is_clean(conn)
            with self.with_table(conn):
                run(conn, f"INSERT INTO {self.table} VALUES (1)")
                driver.reset(conn, self.soon())
                assert driver.is_clean(conn)

    def test_a_reset_of_the_callers_own(self) -> None:
        """A callable ``reset`` gets the connection; False gives it up."""
        answers = iter([None, True, False])

        def reset(_: Any) -> bool | None:
            return next(answers)

        driver = self.make_driver(reset=reset)
        with self.opened(driver) as conn:
            assert [True, True, False] == [driver.reset(conn, self.soon()) for _ in range(3)]

    def test_a_deferred_reset_makes_as_good_as_new(self) -> None:
        """Where the adapter can send a reset and read its answer later, nothing uncommitted is left after that."""
        driver = self.make_driver()
        with self.opened(driver) as conn, self.with_table(conn):
            if driver.send_reset is None:
                return  # it gives no such promise
            run(conn, f"INSERT INTO {self.table} VALUES (1)")
            answer = driver.send_reset(conn)
            until = self.soon()
            while answer is None and time.monotonic() < until:
                answer = driver.collect(conn, until)
            assert answer is True, "the answer was not good, or did not come"
            assert self.rows(conn) == 0

    def test_rows_are_the_same_by_the_short_way(self) -> None:
        """Where the adapter reads rows without a cursor, they are those that a cursor reads, described alike."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            if driver.fetch is None or not driver.is_harmless(conn, "SELECT 1 AS one"):
                return  # it gives no such promise
            rows, description = driver.fetch(conn, "SELECT 1 AS one", None)
            assert [tuple(row) for row in rows] == [(1,)]
            assert [column[0] for column in description] == ["one"]
            assert not driver.in_flight(conn)

    def test_a_connection_in_use_that_broke_is_told(self) -> None:
        """Where the adapter tells that a link has broken, it does so of that one alone."""
        driver = self.make_driver()
        with self.opened(driver) as broken, self.opened(driver) as healthy:
            self.break_connection(broken)
            raised(Exception, partial(run, broken, "SELECT 1"))
            run(healthy, "SELECT 1")
            assert driver.is_broken(broken) in (True, False)
            assert not driver.is_broken(healthy)
            assert not driver.role_suspect(healthy)

    def test_what_is_asked_without_io_never_raises(self) -> None:
        """Of a broken connection everything is told that is asked without I/O, and clean it is not."""
        for reset in ("auto", "rollback"):
            driver = self.make_driver(reset=reset)
            with self.opened(driver) as conn:
                self.break_connection(conn)
                raised(Exception, partial(run, conn, "SELECT 1"))
                assert driver.is_clean is None or not driver.is_clean(conn)
                assert driver.uncommitted(conn) in (True, False)
                assert driver.in_flight(conn) in (True, False, None)
                fd = driver.fileno(conn)
                assert fd is None or fd >= 0

    # -- time ----------------------------------------------------------------------------------------------------------
    def test_a_silent_server_costs_the_deadline(self) -> None:
        """Where the adapter keeps deadlines, a server that accepts and stays silent costs just that."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            driver = self.driver_to_port(silent.getsockname()[1])
            if driver is None:
                return  # no network
            assert driver.capabilities["deadline"].startswith("yes")
            before_at = time.monotonic()
            raised(Exception, lambda: driver.open(before_at + 0.3))
            assert 0.25 < time.monotonic() - before_at < 0.3 + self.slack_s

    # -- errors --------------------------------------------------------------------------------------------------------
    def test_a_wrong_statement_is_the_statements_fault(self) -> None:
        """A statement that the server refuses says nothing about the link, and is of the driver's family."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            error = raised(Exception, lambda: run(conn, self.wrong_statement))
            assert driver.classify(error) is Fault.STATEMENT
            family = driver.family("Error")
            assert family is not None
            assert isinstance(error, family)
            assert driver.is_alive(conn, self.soon())

    def test_a_broken_link_is_gone(self) -> None:
        """Whatever a broken connection raises is sorted as a link that is gone."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            self.break_connection(conn)
            assert Fault.GONE == driver.classify(raised(Exception, lambda: run(conn, "SELECT 1")))

    def test_the_family_is_known(self) -> None:
        """Once connected, the classes that our errors join are known."""
        driver = self.make_driver()
        with self.opened(driver):
            for name in ("OperationalError", "InterfaceError"):
                kind = driver.family(name)
                assert kind is not None
                assert issubclass(kind, Exception)

    # -- cursors -------------------------------------------------------------------------------------------------------
    def test_cursors_are_of_the_users_own_class(self) -> None:
        """A lease's cursor is an instance of what the connection itself makes, and its connection is the lease."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            lease = ContractLease(conn)
            cursor = driver.cursor(conn, lease, (), {})
            assert isinstance(cursor, type(conn.cursor()))
            assert cursor.connection is lease
            cursor.execute("SELECT 1")
            assert [(1,)] == [tuple(row) for row in cursor.fetchall()]
            cursor.close()

    def test_cursors_are_cut_off(self) -> None:
        """After the lease was given back a cursor of it runs nothing, and closing it is harmless."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            lease = ContractLease(conn)
            cursor = driver.cursor(conn, lease, (), {})
            cursor.execute("SELECT 1")
            lease.give_back()
            raised(ConnectionReturned, lambda: cursor.execute("SELECT 1"))
            cursor.close()
            cursor.close()
            assert driver.is_alive(conn, self.soon())

    def test_a_cursor_keeps_its_lease(self) -> None:
        """As long as a cursor lives its lease does: ``pool.connection().cursor()`` works."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            lease = ContractLease(conn)
            alive = weakref.ref(lease)
            cursor = driver.cursor(conn, lease, (), {})
            del lease
            gc.collect()
            assert alive() is not None
            cursor.close()
            del cursor
            gc.collect()
            assert alive() is None

    # -- the rest ------------------------------------------------------------------------------------------------------
    def test_connections_may_go_from_thread_to_thread(self) -> None:
        """A connection opened in one thread works in another, unless the adapter says that it is bound."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            if driver.bound_to_thread(conn):
                return  # it gives no such promise
            answers: list[Any] = []
            other = threading.Thread(target=lambda: answers.append(run(conn, "SELECT 1")[0][0]))
            other.start()
            other.join(self.slack_s)
            assert [1] == answers

    def test_cutting_breaks_the_link(self) -> None:
        """A connection that was cut is dead, where the adapter says that it can do that."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            if driver.cut(conn):
                assert not driver.is_alive(conn, self.soon())


def run(conn: Any, statement: str) -> list[Any]:
    """Run a statement on the driver's own connection; return its rows."""
    cursor = conn.cursor()
    try:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description is not None else []
    finally:
        cursor.close()


def raised(kind: type[BaseException], call: Callable[[], object]) -> BaseException:
    """Return the exception that a call raises; it is a failure if there is none."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
