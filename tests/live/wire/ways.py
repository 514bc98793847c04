"""One server reached in one way: pools through a proxy that counts, and connections past it.

``Way.pool()`` makes a pool whose connections go through ``Way.proxy``; ``Way.raw()`` connects as anybody would, past
pool and proxy.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pymysql

import millpond
from millpond.testing import FaultProxy, ScratchServer
from tests.live.asking import ask, close_if_open, end_session, wait_for_end_of

TABLE = "wire"
TCP_ESTABLISHED = 1


class Way:
    """One server, reached in one way."""

    def __init__(self, server: ScratchServer, *, tls: bool, closing: contextlib.ExitStack) -> None:
        self.server = server
        self.tls = tls
        self.closing = closing
        self.proxy = closing.enter_context(FaultProxy(server.port, counting="mysql"))
        self.kind = server.kind
        self.database = server.database

    def pool(self, *, driver_class: type[Any] | None = None, **settings: Any) -> millpond.Pool[Any]:
        """Return a pool of one connection, unless told otherwise, that is closed after the test."""
        arguments = self.arguments() | settings.pop("connect_args", {})
        settings = {"max_size": 1} | settings
        if driver_class is None:
            pool = millpond.Pool(pymysql, connect_args=arguments, **settings)
        else:
            own = {name: settings.pop(name) for name in ("reset", "on_connect") if name in settings}
            pool = millpond.Pool(driver_class(pymysql, connect_args=arguments, **own), **settings)
        self.closing.callback(pool.close, 0)
        return pool

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Return arguments of ``pymysql.connect`` that lead through the proxy."""
        return self.server.connect_args(port=self.proxy.port, tls=self.tls) | self.common() | changes

    def common(self) -> dict[str, Any]:
        """Return what arguments of both kinds of connections have beside those of the server."""
        return {"autocommit": True, "database": self.database}

    def raw(self, **changes: Any) -> pymysql.Connection[Any]:
        """Return a connection that nobody pools, as the pool's user, past the proxy; closed after the test."""
        conn = pymysql.connect(**self.server.connect_args(tls=self.tls) | self.common() | changes)
        self.closing.callback(close_if_open, conn)
        return conn

    def root(self) -> pymysql.Connection[Any]:
        """Return a connection of the administrator; closed after the test."""
        conn = pymysql.connect(**self.server.connect_args(user="root", socket=True), autocommit=True)
        self.closing.callback(close_if_open, conn)
        return conn

    def kill(self, thread_id: int) -> None:
        """End a session by force, and wait until it has gone."""
        end_session(self.root(), thread_id)

    def wait_for_end_of(self, thread_id: int) -> None:
        """Wait until the server has ended a session, and let go of its locks."""
        wait_for_end_of(self.root(), thread_id)


def has_ended(sock: Any) -> bool:
    """Say whether the other side's end of a TCP connection has arrived here, without reading anything."""
    try:
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        if sock.fileno() >= 0:
            raise
        return True  # the pool has seen it before this test did, and closed its side
    return state != TCP_ESTABLISHED


def with_table(way: Way) -> Way:
    """Make the table that tests read and write, with one row."""
    conn = way.raw()
    ask(conn, f"DROP TABLE IF EXISTS {TABLE}")
    ask(conn, f"CREATE TABLE {TABLE} (a INT PRIMARY KEY, b INT) ENGINE=InnoDB")
    ask(conn, f"INSERT INTO {TABLE} VALUES (1, 1)")
    return way
