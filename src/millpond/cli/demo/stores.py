"""Where the demo keeps its tables: a temporary SQLite file, or a schema of a MySQL or MariaDB server.

A store knows what differs between the two: how to name itself, how a statement marks its parameters, and how a
connection is killed. Tables have names of their own in every run and are dropped at the end, so nothing of the user's
is touched.
"""

from __future__ import annotations

import abc
import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import millpond
from millpond.drivers import resolve
from millpond.errors import InvalidSetting
from millpond.url import MYSQL_SCHEMES, URL

_CONNECT_S = 10.0
_GONE_S = 5.0  # until a server has ended what it was told to kill


class Store(abc.ABC):
    """A database with the demo's tables: ``zone``, ``country`` and ``visit``, each behind ``prefix``.

    Args:
        url: as :class:`millpond.Pool` takes it.

    Attributes:
        where: the URL without its password.
        killed_in_use: connections killed while somebody used them.
        undropped: why its tables are still there; None, unless dropping them has failed.
    """

    mark: ClassVar[str]  # stands for a parameter in a statement
    hint: ClassVar[str] = ""  # what else there is to see

    def __init__(self, url: str) -> None:
        self.url = url
        self.where = str(URL.parse(url))  # without the password
        self.prefix = f"millpond_demo_{secrets.token_hex(4)}_"
        self.killed_in_use = 0
        self.undropped: BaseException | None = None
        self._driver = resolve(url, on_connect=self.prepare, connect_timeout=_CONNECT_S)

    def pool(self, **settings: Any) -> millpond.Pool[Any]:
        """Return a new pool of connections to this store."""
        return millpond.Pool(self.url, on_connect=self._prepare_pooled, **settings)

    def open(self) -> Any:
        """Return a new connection of the driver's own, made as the pool makes them."""
        return self._driver.open(time.monotonic() + _CONNECT_S)

    def close(self, conn: Any) -> None:
        """Close a connection of :meth:`open`."""
        self._driver.close(conn)

    def _prepare_pooled(self, conn: Any) -> None:
        self.prepare(conn)
        self.expose(conn)

    @property
    def driver_error(self) -> type[BaseException]:
        """Return the class of the driver's own errors."""
        return self._driver.family("Error") or Exception

    @contextlib.contextmanager
    def errors_in_words(self) -> Generator[None, None, None]:
        """Make the driver's errors ours, with a text for somebody who sees nothing else.

        Raises:
            Error: the driver has raised something in the block.
        """
        try:
            yield
        except self.driver_error as error:
            raise millpond.Error(f"{self.where}: {type(error).__name__}: {error}") from error

    def sql(self, statement: str) -> str:
        """Return *statement* with this store's table names and parameter marks; it is written with {zone} and ?."""
        names = {name: self.prefix + name for name in ("zone", "country", "visit")}
        return statement.format(**names).replace("?", self.mark)

    def run(self, conn: Any, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Execute one statement and return its rows."""
        cursor = conn.cursor()
        try:
            cursor.execute(self.sql(statement), parameters)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def run_many(self, conn: Any, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Execute one statement for many rows."""
        cursor = conn.cursor()
        try:
            cursor.executemany(self.sql(statement), rows)
        finally:
            cursor.close()

    @contextlib.contextmanager
    def tables(self) -> Generator[None, None, None]:
        """Make the tables, and drop them at the end.

        Raises:
            BaseException: what the block has raised; or else why the tables cannot be dropped.  The latter is also in
                :attr:`undropped`.
        """
        conn = self.open()  # where that fails there is nothing to drop
        try:
            self._make_tables(conn)
            yield
        except BaseException:
            self._drop_tables()
            raise
        self._drop_tables()
        if self.undropped is not None:
            raise self.undropped

    def _make_tables(self, conn: Any) -> None:
        """Make the tables over a connection, which is closed."""
        try:
            self.run(conn, "CREATE TABLE {country} (code CHAR(2) PRIMARY KEY, name VARCHAR(80) NOT NULL)")
            self.run(
                conn,
                "CREATE TABLE {zone} (name VARCHAR(40) PRIMARY KEY, country CHAR(2) NOT NULL,"
                " coordinates VARCHAR(20) NOT NULL)",
            )
            self.run(
                conn,
                "CREATE TABLE {visit} (thread INTEGER, number INTEGER, zone VARCHAR(40) NOT NULL,"
                " PRIMARY KEY (thread, number))",
            )
            conn.commit()
        finally:
            self.close(conn)

    def _drop_tables(self) -> None:
        """Drop what there is of the tables, over a new connection: an old one may have been lost meanwhile."""
        try:
            conn = self.open()
            try:
                for table in ("{visit}", "{zone}", "{country}"):
                    self.run(conn, f"DROP TABLE IF EXISTS {table}")
                conn.commit()
            finally:
                self.close(conn)
        except Exception as error:  # noqa: BLE001  whoever has asked raises it, or what came before it
            self.undropped = error

    @abc.abstractmethod
    def title(self) -> str:
        """Say what database this is, in a few words and without a password."""

    @abc.abstractmethod
    def prepare(self, conn: Any) -> None:
        """Set up a new connection."""

    @abc.abstractmethod
    def expose(self, conn: Any) -> None:
        """Remember a new connection of a pool as one that can be killed."""

    @abc.abstractmethod
    def kill_idle(self) -> int:
        """Kill every connection of a pool that is still alive; nobody is using one. Return how many."""

    @abc.abstractmethod
    def kill_one_in_use(self) -> None:
        """Kill a connection while it is in use: now, or the next that is :meth:`exposed`."""

    @abc.abstractmethod
    def exposed(self, conn: millpond.Lease[Any]) -> None:
        """Stand between a statement and its commit: where being killed hurts most."""


class SqliteStore(Store):
    """A SQLite file. There is no server to kill a connection, so it is closed under the feet of whoever has it."""

    mark = "?"
    hint = "On a real server: --server mariadb, or --url mysql://user:password@host/db"

    def __init__(self, folder: Path) -> None:
        self._exposed: list[Any] = []
        self._dooming = threading.Lock()
        self._doomed = False  # the next connection that is exposed is to be closed
        super().__init__(f"sqlite:///{folder / 'world.db'}")

    def title(self) -> str:
        """Say which SQLite this is."""
        return f"SQLite {sqlite3.sqlite_version}, a temporary file"

    def prepare(self, conn: Any) -> None:
        """Let readers and a writer work side by side, and do not wait for the disk: the file is a temporary one."""
        conn.execute("PRAGMA journal_mode=WAL").fetchall()
        conn.execute("PRAGMA synchronous=OFF")

    def expose(self, conn: Any) -> None:
        """Remember the connection."""
        self._exposed.append(conn)

    def kill_idle(self) -> int:
        """Close every connection, as if its file handle had been lost."""
        alive = [conn for conn in self._exposed if _is_open(conn)]
        for conn in alive:
            conn.close()
        self._exposed.clear()
        return len(alive)

    def kill_one_in_use(self) -> None:
        """Have the next exposed connection closed."""
        with self._dooming:
            self._doomed = True

    def exposed(self, conn: millpond.Lease[Any]) -> None:
        """Close the connection here, in the thread that uses it: SQLite does not survive it from another one."""
        with self._dooming:
            doomed, self._doomed = self._doomed, False
            self.killed_in_use += doomed
        if doomed:
            conn.driver_connection.close()


NO_SUCH_THREAD = 1094  # ER_NO_SUCH_THREAD


class ServerStore(Store):
    """A schema of a MySQL or MariaDB server. Connections are killed by the server, with KILL."""

    mark = "%s"

    def __init__(self, url: str) -> None:
        self._ids: list[int] = []
        super().__init__(url)
        if URL.parse(url).scheme not in MYSQL_SCHEMES:
            allowed = " or ".join(f"{scheme}://" for scheme in MYSQL_SCHEMES)
            raise InvalidSetting("url", self.where, allowed, "the demo plays on these, and without a URL on SQLite")
        with self.errors_in_words():
            self._side = self.open()  # to kill from
            ((self._version,),) = self.run(self._side, "SELECT VERSION()")

    def title(self) -> str:
        """Say which server this is."""
        kind = "MariaDB" if "mariadb" in self._version.lower() else "MySQL"
        return f"{kind} {self._version.partition('-')[0]}"

    def prepare(self, conn: Any) -> None:
        """Leave it as the driver made it."""

    def expose(self, conn: Any) -> None:
        """Remember the connection's number."""
        ((number,),) = self.run(conn, "SELECT CONNECTION_ID()")
        self._ids.append(number)

    def kill_idle(self) -> int:
        """Kill every connection of a pool, and wait until the server has done it."""
        killed = [number for number in self._ids if self._kill(number)]
        self._ids.clear()
        until = time.monotonic() + _GONE_S
        while any(self._is_alive(number) for number in killed):
            if time.monotonic() > until:
                raise millpond.Error(f"the server has not ended connections {killed} within {_GONE_S:.0f} s of KILL")
            time.sleep(0.002)
        return len(killed)

    def kill_one_in_use(self) -> None:
        """Kill the youngest connection, whatever it is doing."""
        if self._ids:
            self.killed_in_use += self._kill(self._ids.pop())

    def exposed(self, conn: millpond.Lease[Any]) -> None:
        """Do nothing: the server kills when it is told to."""

    def end(self) -> None:
        """Close the connection that kills."""
        self.close(self._side)

    def _is_alive(self, number: int) -> bool:
        return bool(self.run(self._side, "SELECT 1 FROM information_schema.processlist WHERE id = ?", (number,)))

    def _kill(self, number: int) -> bool:
        if not self._is_alive(number):
            return False
        try:
            self.run(self._side, f"KILL {int(number)}")
        except Exception as error:
            if error.args[:1] == (NO_SUCH_THREAD,):  # it has ended by itself since it was looked for
                return False
            raise
        return True


def _is_open(conn: Any) -> bool:
    try:
        conn.total_changes  # noqa: B018  it asks without touching the file
    except sqlite3.ProgrammingError:
        return False
    return True
