"""One driver to one server: its pools through a proxy, and somebody else's connections past it.

A road is a driver (mysqlclient; mysql-connector-python, pure and over its C library) to a server.  ``Road.pool()``
makes a pool whose connections go through ``Road.proxy``; ``Road.root()`` looks from outside, with PyMySQL.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from typing import Any

import pymysql
import pytest

import millpond
from millpond.drivers import adapter_named
from millpond.drivers.base import Driver
from millpond.testing import FaultProxy, ScratchServer
from tests.live.asking import ask, end_session

TABLE = "road"


def why_no_c_library() -> str:
    """Return why mysql-connector-python's C library is not used here, empty where it is: it may want a newer system."""
    if importlib.import_module("mysql.connector").HAVE_CEXT:
        return ""
    try:
        importlib.import_module("_mysql_connector")
    except ImportError as error:
        return f"mysql-connector-python's C library does not load here: {error}"
    return "mysql-connector-python does not use its C library, though it loads here"


NEEDS_C_LIBRARY = pytest.mark.skipif(bool(why_no_c_library()), reason=why_no_c_library())
POLLED = ("mysqlclient", "mysqlconnector")
DRIVERS = (*POLLED, pytest.param("mysqlconnector-c", marks=NEEDS_C_LIBRARY))


class Road:
    """One driver to one server.

    Args:
        driver: a name of :data:`POLLED`, or "mysqlconnector-c" for the latter's other implementation.
        server: where it leads.
        closing: closes what is opened here, after the test.
    """

    def __init__(self, driver: str, server: ScratchServer, closing: contextlib.ExitStack, *, tls: bool = False) -> None:
        self.driver = driver.removesuffix("-c")
        self.is_c = driver.endswith("-c")
        self.server = server
        self.closing = closing
        self.tls = tls
        self._proxy: FaultProxy | None = None
        self._root: pymysql.Connection[Any] | None = None
        if not tls and server.kind == "mysql":
            # caching_sha2_password: the server remembers whom it has seen under TLS, and asks for no more.
            pymysql.connect(**server.connect_args(tls=True)).close()

    @property
    def proxy(self) -> FaultProxy:
        """The proxy on the way, made when it is first asked for."""
        if self._proxy is None:
            self._proxy = self.closing.enter_context(
                FaultProxy(self.server.port, counting=None if self.tls else "mysql")
            )
        return self._proxy

    @property
    def module(self) -> Any:
        """The driver's module."""
        return importlib.import_module("MySQLdb" if self.driver == "mysqlclient" else "mysql.connector")

    def arguments(self, *, proxied: bool = True, **changes: Any) -> dict[str, Any]:
        """Return arguments of the driver's ``connect``, to the proxy unless told otherwise."""
        given = self.server.connect_args()
        # The C library holds the interpreter while it waits, and the proxy lives in the same one.
        port = self.proxy.port if proxied and not self.is_c else self.server.port
        found = {name: given[name] for name in ("host", "user", "password", "database")} | {"port": port}
        if self.driver == "mysqlclient":
            found["ssl_mode"] = "REQUIRED" if self.tls else "DISABLED"
        else:
            found |= {"ssl_disabled": not self.tls, "use_pure": not self.is_c}
        return found | {"autocommit": True} | changes

    def adapter(self, *, connect_args: dict[str, Any] | None = None, hidden: str = "", **settings: Any) -> Driver[Any]:
        """Return a new adapter; *hidden*: "library", where it is not to be reached, or "all" that is private."""
        kind = adapter_named(self.driver)
        if hidden:
            parts: dict[str, Any] = {"find_native": staticmethod(lambda: None)}
            if hidden == "all":
                parts["watch"] = lambda *_: None
            if hidden == "all" and self.driver == "mysqlconnector":
                parts |= {"descriptor": lambda *_: None, "dial": lambda _, arguments, until: dialled(arguments, until)}
            kind = type("Hidden", (kind,), parts)
        made: Driver[Any] = kind(connect_args=self.arguments() | (connect_args or {}), **settings)
        return made

    def pool(self, *, connect_args: dict[str, Any] | None = None, **settings: Any) -> millpond.Pool[Any]:
        """Return a pool of one connection, unless told otherwise; closed after the test."""
        own = {name: settings.pop(name) for name in ("reset", "on_connect") if name in settings}
        pool = millpond.Pool(self.adapter(connect_args=connect_args, **own), **({"max_size": 1} | settings))
        self.closing.callback(pool.close, 0)
        return pool

    def raw(self, **changes: Any) -> Any:
        """Return a connection of the driver's own, past the proxy; closed after the test."""
        conn = self.module.connect(**self.arguments(proxied=False, **changes))
        self.closing.callback(close_quietly, conn)
        return conn

    def root(self) -> pymysql.Connection[Any]:
        """Return a connection of the administrator, the same for a whole test, after which it is closed."""
        if self._root is None:
            self._root = pymysql.connect(**self.server.connect_args(user="root", socket=True), autocommit=True)
            self.closing.callback(close_quietly, self._root)
        return self._root

    def kill(self, thread_id: int) -> None:
        """End a session by force, and wait until it has gone."""
        end_session(self.root(), thread_id)


def dialled(arguments: dict[str, Any], until: float) -> Any:
    """Connect by what mysql-connector-python documents."""
    limit_s = max(1, int(min(until - time.monotonic(), 60.0)))
    return importlib.import_module("mysql.connector").connect(**{"connection_timeout": limit_s} | arguments)


def close_quietly(conn: Any) -> None:
    """Close a connection that a test may have lost."""
    with contextlib.suppress(Exception):
        conn.close()


def thread_of(conn: Any) -> int:
    """Return the server's number for the session."""
    return int(ask(conn, "SELECT CONNECTION_ID()")[0][0])
