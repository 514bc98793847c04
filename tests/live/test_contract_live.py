"""The driver contract, over every adapter that needs a server, made by a URL as users make it, on both servers.

To add an adapter: subclass ``ServerContract`` with the name of its driver, as in ``mysql+NAME://``. Other ways to make
one (by module, by callable, with parts hidden) are in the folder of each driver's own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymysql
import pytest

from millpond.drivers import resolve
from millpond.drivers.base import Driver
from millpond.testing import DriverContract, ScratchServer
from tests.live.asking import end_session


class ServerContract(DriverContract):
    """The contract on each of the session's servers in turn, in a schema of its own, with a server that ends links."""

    __test__ = False
    driver_name: str
    tls = False
    options = ""  # added to the URL's own

    @pytest.fixture(autouse=True)
    def _server(
        self, server: ScratchServer, schema: str, as_root: Callable[[ScratchServer], pymysql.Connection[Any]]
    ) -> None:
        self.server = server
        self.schema = schema
        self.root = as_root(server)

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter by URL, as users do."""
        arguments = {"database": self.schema}
        return resolve(
            self.server.url(self.driver_name, tls=self.tls) + self.options, connect_args=arguments, **settings
        )

    def break_connection(self, conn: Any) -> None:
        """Have the server end the link, and wait until it has."""
        end_session(self.root, self.connection_id(conn))

    def connection_id(self, conn: Any) -> int:
        """Return the server's number for a connection, which every driver tells without asking."""
        return int(conn.connection_id if self.driver_name == "mysqlconnector" else conn.thread_id())

    def driver_with_password(self, password: str) -> Driver[Any] | None:
        """Make an adapter that knows a password; it connects nowhere."""
        return resolve(f"mysql+{self.driver_name}://user:{password}@127.0.0.1/d")

    def driver_to_port(self, port: int) -> Driver[Any] | None:
        """Make an adapter that connects to a port where nobody answers."""
        return resolve(f"mysql+{self.driver_name}://user:password@127.0.0.1:{port}/d")


class TestPyMySQL(ServerContract):
    """PyMySQL, as a URL makes it."""

    __test__ = True
    driver_name = "pymysql"


class TestMySQLClient(ServerContract):
    """mysqlclient, as a URL makes it."""

    __test__ = True
    driver_name = "mysqlclient"


class TestMySQLConnector(ServerContract):
    """mysql-connector-python, as a URL makes it, over TLS."""

    __test__ = True
    driver_name = "mysqlconnector"
    tls = True


class TestPyMySQLWithAutocommit(TestPyMySQL):
    """PyMySQL where every statement commits: what the contract writes is written in transactions that it begins."""

    options = "&autocommit=true"

    def test_reset_rolls_back(self) -> None:
        """What was begun and not committed is gone after the reset."""
        driver = self.make_driver()
        with self.opened(driver) as conn, self.with_table(conn):
            conn.begin()
            conn.query(f"INSERT INTO {self.table} VALUES (1)")
            assert driver.reset(conn, self.soon())
            assert 0 == self.rows(conn)

    def test_a_deferred_reset_makes_as_good_as_new(self) -> None:
        """What was begun and not committed is gone when the answer to a reset has been read."""
        driver = self.make_driver()
        assert driver.send_reset is not None
        with self.opened(driver) as conn, self.with_table(conn):
            conn.begin()
            conn.query(f"INSERT INTO {self.table} VALUES (1)")
            assert driver.send_reset(conn) is None
            assert driver.collect(conn, self.soon())
            assert 0 == self.rows(conn)

    def test_what_was_written_is_not_clean(self) -> None:
        """An open transaction is not clean, a committed write is."""
        driver = self.make_driver()
        assert driver.is_clean is not None
        with self.opened(driver) as conn, self.with_table(conn):
            conn.begin()
            assert not driver.is_clean(conn)
            conn.query(f"INSERT INTO {self.table} VALUES (1)")
            conn.commit()
            assert driver.reset(conn, self.soon())
            assert driver.is_clean(conn)
