"""The driver contract, over mysqlclient and mysql-connector-python on real servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from millpond.drivers.base import Driver
from millpond.errors import ConnectionReturned
from millpond.testing import DriverContract, ScratchServer
from millpond.testing.contract import ContractLease

from .roads import NEEDS_C_LIBRARY, Road


class TestMySQLClient(DriverContract):
    """mysqlclient, on each server."""

    driver = "mysqlclient"
    tls = False
    hidden = ""
    meets_silence = True  # which takes a second, and differs in nothing for the variants
    table = "contract_other"

    @pytest.fixture(autouse=True)
    def _on(self, server: ScratchServer) -> Iterator[None]:
        with contextlib.ExitStack() as closing:
            self.road = Road(self.driver, server, closing, tls=self.tls)
            yield

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Return arguments past any proxy, with autocommit off as the driver has it."""
        return self.road.arguments(proxied=False, autocommit=False, **changes)

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter."""
        return self.adapter(self.arguments(), **settings)

    def adapter(self, arguments: dict[str, Any], **settings: Any) -> Driver[Any]:
        """Make the adapter of given arguments."""
        return self.road.adapter(connect_args=arguments, hidden=self.hidden, **settings)

    def break_connection(self, conn: Any) -> None:
        """Have the server end the link."""
        number = conn.thread_id() if self.road.driver == "mysqlclient" else conn.connection_id
        self.road.kill(number)

    def driver_with_password(self, password: str) -> Driver[Any] | None:
        """Make an adapter that knows a password."""
        return self.adapter(self.arguments(password=password))

    def driver_to_port(self, port: int) -> Driver[Any] | None:
        """Make an adapter that leads to a port, where that is tested."""
        if not self.meets_silence:
            return None
        return self.adapter(self.arguments(port=port))


class TestMySQLClientUnderTLS(TestMySQLClient):
    """mysqlclient, under TLS."""

    tls = True
    meets_silence = False


class TestMySQLClientWithoutItsLibrary(TestMySQLClient):
    """mysqlclient where the library under it cannot be reached: no status word, no reset."""

    hidden = "library"
    meets_silence = False


class Unwatched:
    """What differs where sessions cannot be watched: nothing is proved, so every reset is a reset."""

    soon: Any
    opened: Any
    rows: Any
    with_table: Any
    make_driver: Any
    table: str

    def test_on_connect_statements_run_once_a_connection(self) -> None:
        """Statements of ``on_connect`` are run for a new connection, and again after a reset."""
        with self.opened(self.make_driver()) as first, self.with_table(first):
            driver = self.make_driver(on_connect=[f"INSERT INTO {self.table} VALUES (1)"])
            with self.opened(driver) as conn:
                assert 1 == self.rows(conn)
                assert driver.reset(conn, self.soon())
                assert 2 == self.rows(conn)

    def test_a_reset_connection_is_clean(self) -> None:
        """That nothing can be told is known with the first connection."""
        driver = self.make_driver()
        with self.opened(driver):
            assert driver.is_clean is None


class TestMySQLClientHidden(Unwatched, TestMySQLClient):
    """mysqlclient with everything that is private hidden."""

    hidden = "all"
    meets_silence = False


class TestMySQLConnector(TestMySQLClient):
    """mysql-connector-python, its pure implementation."""

    driver = "mysqlconnector"


class TestMySQLConnectorUnderTLS(TestMySQLConnector):
    """The same under TLS."""

    tls = True


class TestMySQLConnectorHidden(Unwatched, TestMySQLConnector):
    """mysql-connector-python with everything that is private hidden."""

    hidden = "all"
    tls = True

    def driver_to_port(self, port: int) -> Driver[Any] | None:
        """Give no such promise: without a descriptor only the driver's own time-out ends a dial."""
        return None

    def test_cursors_are_cut_off(self) -> None:
        """A cursor that was cut off runs nothing, and its reply, however short, costs the connection."""
        driver = self.make_driver()
        with self.opened(driver) as conn:
            lease = ContractLease(conn)
            cursor = driver.cursor(conn, lease, (), {})
            cursor.execute("SELECT 1")
            lease.give_back()
            with pytest.raises(ConnectionReturned):
                cursor.execute("SELECT 1")
            cursor.close()
            assert driver.in_flight(conn)


@NEEDS_C_LIBRARY
class TestMySQLConnectorInC(TestMySQLClient):
    """mysql-connector-python, its implementation over a C library, where that loads."""

    driver = "mysqlconnector-c"
    tls = True

    def driver_to_port(self, port: int) -> Driver[Any] | None:
        """Give no such promise: its dial ends by the next whole second, and no other call."""
        return None
