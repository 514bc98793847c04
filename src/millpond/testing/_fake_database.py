"""What stands behind the connections of a fake driver: tables in memory, a few words of SQL, and a list of mishaps.

Why: examples and tests of a pool want a statement that writes, one that reads, and a transaction that is lost unless it
is committed; and they want to know what was done to a connection that no pool must ever do.

Rules: nothing here waits.  Statements are understood in their simplest forms; everything else is an error, as it is
to a real server.

It must not know what a pool asks of a driver: that is in ``fake_driver.py``.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from millpond._core.states import Fault


class Error(Exception):
    """The base of what this driver raises; ``fault`` says how an adapter would sort it."""

    fault: Fault | None = None


class InterfaceError(Error):
    """A connection was used after it was closed."""


class DatabaseError(Error):
    """Something about the database."""


class OperationalError(DatabaseError):
    """The link, or the server."""


class ProgrammingError(DatabaseError):
    """The statement."""


class FakeConnection:
    """A connection of a :class:`~millpond.testing.FakeDriver`.

    Attributes:
        number: counted from 1.
        alive: False once its server is gone.
        closed: closed by the client.
        unread: set it to leave a reply unread.
        session: what ``SET name = value`` has set.
    """

    def __init__(self, database: FakeDatabase, number: int) -> None:
        self.number = number
        self.alive = True
        self.closed = False
        self.unread = False
        self.session: dict[str, str] = {}
        self._database = database
        self._pending: list[tuple[str, Any]] = []
        self._inside = threading.RLock()

    @contextmanager
    def used(self, what: str) -> Generator[None, None, None]:
        """Be inside; two threads at once are noted as a mishap."""
        if not self._inside.acquire(blocking=False):
            self._database.note(f"two threads at once in connection {self.number}: {what}")
            self._inside.acquire()
        try:
            yield
        finally:
            self._inside.release()

    def check_usable(self, what: str) -> None:
        """Raise if it is closed or dead."""
        if self.closed:
            self._database.note(f"connection {self.number} was used after it was closed: {what}")
            raise InterfaceError(0, f"connection {self.number} is closed")
        if not self.alive:
            raise OperationalError(2013, f"connection {self.number} has lost its server")

    @property
    def in_transaction(self) -> bool:
        """Are there writes that were not committed?"""
        return bool(self._pending)

    def cursor(self, cursor: type[FakeCursor] | None = None) -> FakeCursor:
        """Make a cursor, of a class of the caller's own if one is given."""
        self.check_usable("cursor")
        return (cursor or FakeCursor)(self)

    def commit(self) -> None:
        """Make the writes everybody's."""
        with self.used("commit"):
            self.check_usable("commit")
            self._database.commit(self._pending)
            self._pending = []

    def rollback(self) -> None:
        """Forget the writes."""
        with self.used("rollback"):
            self.check_usable("rollback")
            self._pending = []

    def close(self) -> None:
        """Close; twice is noted as a mishap."""
        with self.used("close"):
            self._database.forget(self)

    def run(self, statement: str, parameters: Any) -> list[tuple[Any, ...]] | None:
        """Run a statement; return its rows, or None if it has none."""
        with self.used(statement):
            self.check_usable(statement)
            return self._database.run(self, statement, parameters)

    def add(self, table: str, value: Any) -> None:
        """Write a row, uncommitted."""
        self._pending.append((table, value))

    def own(self, table: str) -> list[Any]:
        """Return the uncommitted rows of a table."""
        return [value for name, value in self._pending if name == table]

    def renew(self) -> None:
        """Be as good as new."""
        self._pending = []
        self.session.clear()

    def __repr__(self) -> str:
        return f"<fake connection {self.number}>"


class FakeCursor:
    """A cursor of :class:`FakeConnection`, with all its rows in memory."""

    arraysize = 1

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, statement: str, parameters: Any = ()) -> FakeCursor:
        """Run a statement."""
        rows = self.connection.run(statement, parameters)
        self._rows = rows or []
        self.rowcount = 1 if rows is None else len(rows)
        self.description = None if rows is None else (("value", None, None, None, None, None, None),)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return some rows."""
        count = self.arraysize if size is None else size
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        """Forget the rows."""
        self._rows = []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while self._rows:
            yield self._rows.pop(0)

    def __enter__(self) -> FakeCursor:  # noqa: PYI034  typing.Self is younger than the oldest Python we run on
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FakeDatabase:
    """Tables, and a note of all that was done.

    Args:
        changed: guards all of it, and is notified whenever something happens.

    Attributes:
        counts: how often each thing was done.
        connections: all that were ever opened.
        mishaps: what no pool must ever do, as text.
        tables: what is committed.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self.counts: Counter[str] = Counter()
        self.connections: list[FakeConnection] = []
        self.mishaps: list[str] = []
        self.tables: dict[str, list[Any]] = {}
        self._changed = changed

    def _count(self, what: str) -> None:
        """Count; whoever calls holds the condition."""
        self.counts[what] += 1
        self._changed.notify_all()

    def note(self, mishap: str) -> None:
        """Note what no pool must ever do."""
        with self._changed:
            self.mishaps.append(mishap)
            self._changed.notify_all()

    def forget(self, conn: FakeConnection) -> None:
        """Note that a connection was closed."""
        with self._changed:
            if conn.closed:
                self.mishaps.append(f"connection {conn.number} was closed twice")
                return
            conn.closed = True
            self._count("closed")

    def commit(self, rows: list[tuple[str, Any]]) -> None:
        """Make rows everybody's."""
        with self._changed:
            for table, value in rows:
                self.tables.setdefault(table, []).append(value)

    def run(self, conn: FakeConnection, statement: str, parameters: Any) -> list[tuple[Any, ...]] | None:
        """Understand a few words of SQL."""
        for pattern, action in SENTENCES:
            found = re.fullmatch(pattern, statement.strip().rstrip(";"), re.IGNORECASE | re.DOTALL)
            if found:
                with self._changed:
                    rows: list[tuple[Any, ...]] | None = action(self, conn, found, list(parameters))
                    return rows
        known = "CREATE, DROP, INSERT, SELECT and SET"
        raise ProgrammingError(1064, f"this fake server knows {known}, in their simplest forms")

    def rows(self, conn: FakeConnection, table: str) -> list[Any]:
        """Return what a connection sees in a table."""
        if table not in self.tables:
            raise ProgrammingError(1146, f"there is no table {table}")
        return self.tables[table] + conn.own(table)


Sentence = Callable[[FakeDatabase, FakeConnection, "re.Match[str]", "list[Any]"], "list[tuple[Any, ...]] | None"]


def literal(text: str, parameters: list[Any]) -> Any:
    """Return the value of a literal, or of the parameter that a placeholder stands for."""
    if text in ("?", "%s"):
        return parameters.pop(0)
    return int(text) if text.isdigit() else text.strip("'")


def create(database: FakeDatabase, _: FakeConnection, found: re.Match[str], __: list[Any]) -> None:
    """CREATE TABLE name (...)."""
    database.tables.setdefault(found[1], [])


def drop(database: FakeDatabase, _: FakeConnection, found: re.Match[str], __: list[Any]) -> None:
    """DROP TABLE name."""
    database.tables.pop(found[1], None)


def insert(database: FakeDatabase, conn: FakeConnection, found: re.Match[str], parameters: list[Any]) -> None:
    """INSERT INTO name VALUES (value)."""
    database.rows(conn, found[1])
    conn.add(found[1], literal(found[2], parameters))


def count(database: FakeDatabase, conn: FakeConnection, found: re.Match[str], _: list[Any]) -> list[tuple[Any, ...]]:
    """SELECT COUNT(*) FROM name."""
    return [(len(database.rows(conn, found[1])),)]


def read(database: FakeDatabase, conn: FakeConnection, found: re.Match[str], _: list[Any]) -> list[tuple[Any, ...]]:
    """SELECT * FROM name."""
    return [(value,) for value in database.rows(conn, found[1])]


def constant(_: FakeDatabase, __: FakeConnection, found: re.Match[str], parameters: list[Any]) -> list[tuple[Any, ...]]:
    """SELECT value."""
    return [(literal(found[1], parameters),)]


def assign(_: FakeDatabase, conn: FakeConnection, found: re.Match[str], parameters: list[Any]) -> None:
    """SET name = value."""
    conn.session[found[1]] = str(literal(found[2], parameters))


VALUE = r"(\?|%s|\d+|'[^']*')"
SENTENCES: tuple[tuple[str, Sentence], ...] = (
    (r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)\s*\(.*\)", create),
    (r"DROP TABLE (?:IF EXISTS )?(\w+)", drop),
    (rf"INSERT INTO (\w+)\s*(?:\([^)]*\)\s*)?VALUES\s*\(\s*{VALUE}\s*\)", insert),
    (r"SELECT COUNT\(\*\) FROM (\w+)", count),
    (r"SELECT [\w*]+ FROM (\w+)", read),
    (rf"SELECT {VALUE}", constant),
    (rf"SET (@?\w+)\s*=\s*{VALUE}", assign),
)
