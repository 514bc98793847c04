"""A schema with a table, and a way to look at it that is beside every pool."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql

from millpond.testing import ScratchServer
from tests.live.asking import wait_until


class Scene:
    """One server, one schema; ``args`` are for ``pymysql.connect``.

    The table ``x (id, v)`` has no rows.
    """

    def __init__(self, server: ScratchServer, schema: str, closing: contextlib.ExitStack) -> None:
        self.server = server
        self.schema = schema
        self.args = {**server.connect_args(tls=False), "database": schema}
        root = {**server.connect_args(user="root", socket=True), "database": schema}
        self._root = pymysql.connect(**root, autocommit=True)
        closing.callback(self._root.close)
        closing.callback(self.end_all)
        self._lock = threading.Lock()
        self.q("CREATE TABLE x (id INT PRIMARY KEY, v INT NOT NULL DEFAULT 0) ENGINE=InnoDB")

    def arguments_for(self, driver: str) -> dict[str, Any]:
        """Return what a driver, by the name of its module, connects by."""
        if driver == "pymysql":
            return self.args
        given = {name: self.args[name] for name in ("host", "port", "user", "password", "database")}
        if driver == "mysql.connector":  # without TLS it cannot log in to MySQL for the first time
            given |= {"ssl_disabled": self.server.kind == "mariadb", "use_pure": True}
        return given

    def q(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        """Run a statement as root, committed at once; return its rows."""
        with self._lock, self._root.cursor() as cursor:
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def column(self, statement: str) -> list[Any]:
        """Return the first column of a statement's rows."""
        return [row[0] for row in self.q(statement)]

    def status(self, name: str) -> int:
        """Return a counter of the server."""
        return int(self.q(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1])

    def kill(self, number: int) -> None:
        """End a session, and wait until it is gone, and its last answer longer ago than a pool trusts it."""
        self.q(f"KILL {number}")
        since = time.monotonic()
        alive = "SELECT id FROM information_schema.processlist"
        self.until(lambda: number not in self.column(alive) and time.monotonic() - since > 0.01)

    def end_all(self) -> None:
        """End all sessions but this one: a connection that somebody forgot would keep the schema from being dropped."""
        for number in self.column("SELECT id FROM information_schema.processlist WHERE user = 'app'"):
            with contextlib.suppress(pymysql.OperationalError):  # it has ended by itself
                self.q(f"KILL {number}")

    def until(self, condition: Callable[[], bool]) -> None:
        """Look at the server until something is so."""
        wait_until(condition, pause_s=0.01)


def number_of(db: Any) -> int:
    """Return the server's number of the session behind a connection."""
    number: int = db._con._con.thread_id()
    return number


def run(db: Any, statement: str, *given: Any) -> Any:
    """Run a statement on a connection; return its first row."""
    with db.cursor() as cursor:
        cursor.execute(statement, *given)
        return cursor.fetchone()
