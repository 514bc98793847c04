"""What every adapter promises, kept by PyMySQL's: as a module, by a callable, and with its private parts hidden."""

from __future__ import annotations

import time
from typing import Any

import pymysql
import pytest

from millpond.drivers.base import Driver
from millpond.drivers.found import FoundDriver
from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing import DriverContract, ScratchServer
from tests.live.asking import wait_until

from .bare import Bare


class PlainDriver(PyMySQLDriver):
    """The adapter as it is with a PyMySQL whose private parts are not as expected."""

    private_parts = False


class OnServer(DriverContract):
    """The contract on each server in turn."""

    kind: type[PyMySQLDriver] = PyMySQLDriver

    @pytest.fixture(autouse=True)
    def _server(self, server: ScratchServer) -> None:
        self.server = server

    def arguments(self) -> dict[str, Any]:
        """Return what the adapter connects by."""
        return self.server.connect_args(tls=False)

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Return a new adapter."""
        return self.kind(pymysql, connect_args=self.arguments(), **settings)

    def break_connection(self, conn: Any) -> None:
        """Kill the session."""
        number = conn.thread_id()
        with pymysql.connect(**self.server.connect_args(user="root", socket=True)) as root, root.cursor() as cursor:
            cursor.execute(f"KILL {number}")
            wait_until(lambda: not cursor.execute(f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number}"))

    def driver_with_password(self, password: str) -> Driver[Any]:
        """Return an adapter that was told a password, if it is one that knows it."""
        return self.kind(pymysql, connect_args=self.arguments() | {"password": password})

    def driver_to_port(self, port: int) -> Driver[Any]:
        """Return an adapter that leads to a port, if it is one that can be bounded."""
        return self.kind(pymysql, connect_args=self.arguments() | {"port": port})


class TestPyMySQL(OnServer):
    """The adapter for the module, in the clear."""


class TestPyMySQLUnderTls(OnServer):
    """The same under TLS."""

    def arguments(self) -> dict[str, Any]:
        """Return what the adapter connects by."""
        return self.server.connect_args(tls=True)


class TestPyMySQLWithoutWritingAhead(OnServer):
    """The same with an answer waited for before each command."""

    def arguments(self) -> dict[str, Any]:
        """Return what the adapter connects by."""
        return self.server.connect_args(tls=False) | {"write_ahead": False}


class TestPyMySQLByCallable(OnServer):
    """Connections that somebody else makes."""

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Return a new adapter."""
        return PyMySQLDriver(lambda: pymysql.connect(**self.arguments()), **settings)

    def driver_with_password(self, password: str) -> None:  # type: ignore[override]  # the callable's own business
        """Return an adapter that was told a password, if it is one that knows it."""
        return

    def driver_to_port(self, port: int) -> None:  # type: ignore[override]  # as above
        """Return an adapter that leads to a port, if it is one that can be bounded."""
        return


class TestPyMySQLFound(TestPyMySQLByCallable):
    """Connections of a callable whose driver is seen in the first of them."""

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Return a new adapter."""
        return FoundDriver(lambda: pymysql.connect(**self.arguments()), **settings)


class TestPyMySQLWithoutPrivateParts(OnServer):
    """The adapter with its use of private parts switched off: by public names alone there are no resets."""

    kind = PlainDriver

    def test_reset_rolls_back(self) -> None:
        """What was written and not committed is gone; the connection is given up: a trigger may have left more."""
        driver = self.make_driver()
        with self.opened(driver) as conn, self.with_table(conn):
            with conn.cursor() as cursor:
                cursor.execute(f"INSERT INTO {self.table} VALUES (1)")
            assert not driver.reset(conn, self.soon())
            assert 0 == self.rows(conn)

    def driver_to_port(self, port: int) -> None:  # type: ignore[override]  # PyMySQL itself bounds TCP only
        """Return an adapter that leads to a port, if it is one that can be bounded."""
        return


class TestPyMySQLBare(TestPyMySQLByCallable):
    """Connections whose private parts cannot be seen."""

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Return a new adapter."""
        driver = PyMySQLDriver(lambda: Bare(**self.arguments()), **settings)
        if not settings:  # what these connections can do is seen in the first of them
            driver.close(driver.open(self.soon()))
        return driver


def test_a_callable_that_sets_more_than_its_attributes_tell(server: ScratchServer) -> None:
    """A session that no reset brings back is replaced when it is dirty, and its maker's settings are kept."""

    def make() -> Any:
        conn = pymysql.connect(**server.connect_args(tls=False))
        with conn.cursor() as cursor:
            cursor.execute("SET SESSION group_concat_max_len = 4321")
        return conn

    driver = PyMySQLDriver(make)
    conn = driver.open(time.monotonic() + 10)
    with conn.cursor() as cursor:
        cursor.execute("SET @a = 1")
        cursor.execute("SELECT @@group_concat_max_len")
        assert ((4321,),) == cursor.fetchall()
    assert driver.send_reset is not None
    assert not driver.is_clean(conn)  # type: ignore[misc]  # it has one
    assert driver.send_reset(conn) is False
    assert driver.reset_way().startswith("ROLLBACK, or a new connection")
    driver.close(conn)


def test_a_callable_that_only_connects_is_reset(server: ScratchServer) -> None:
    """A session whose settings its attributes tell is made as good as new by a reset."""
    driver = PyMySQLDriver(lambda: pymysql.connect(**server.connect_args(tls=False), autocommit=True))
    conn = driver.open(time.monotonic() + 10)
    with conn.cursor() as cursor:
        cursor.execute("SET @a = 1")
    assert driver.reset(conn, time.monotonic() + 10)
    with conn.cursor() as cursor:
        cursor.execute("SELECT @a, @@autocommit")
        assert ((None, 1),) == cursor.fetchall()
    driver.close(conn)
