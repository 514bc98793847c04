"""The driver contract, over mysqlclient and mysql-connector-python on real servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from millpond.drivers import adapter_named
from millpond.drivers.base import Driver
from millpond.testing import DriverContract, ScratchServer

from .roads import Road, has_c_library


class TestMySQLClient(DriverContract):
    """mysqlclient, on each server."""

    driver = "mysqlclient"
    tls = False
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
        made: Driver[Any] = adapter_named(self.road.driver)(connect_args=arguments, **settings)
        return made

    def break_connection(self, conn: Any) -> None:
        """Have the server end the link."""
        number = conn.thread_id() if self.road.driver == "mysqlclient" else conn.connection_id
        self.road.kill(number)

    def driver_with_password(self, password: str) -> Driver[Any] | None:
        """Make an adapter that knows a password."""
        return self.adapter(self.arguments(password=password))

    def driver_to_port(self, port: int) -> Driver[Any] | None:
        """Make an adapter that leads to a port."""
        return self.adapter(self.arguments(port=port))


class TestMySQLClientUnderTLS(TestMySQLClient):
    """mysqlclient, under TLS."""

    tls = True


class TestMySQLConnector(TestMySQLClient):
    """mysql-connector-python, its pure implementation."""

    driver = "mysqlconnector"


class TestMySQLConnectorUnderTLS(TestMySQLConnector):
    """The same under TLS."""

    tls = True


if has_c_library():

    class TestMySQLConnectorInC(TestMySQLClient):
        """mysql-connector-python, its implementation over a C library, where that loads."""

        driver = "mysqlconnector-c"
        tls = True

        def driver_to_port(self, port: int) -> Driver[Any] | None:
            """Give no such promise: its dial ends by the next whole second, and no other call."""
            return None
