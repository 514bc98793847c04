"""A driver without a database, which does what a test tells it to: answers, refuses, answers late, never, or lies.

::

    driver = FakeDriver()
    pool = millpond.Pool(driver, max_size=2)
    driver.behave("open", "late")            # from now on each dial waits ...
    driver.await_waiting("open", 2)          # ... until there are two of them ...
    driver.release("open")                   # ... and are let go

It counts everything, and keeps a list of what a pool must never do: close a connection twice, use one that was closed,
let two threads into one at once.  ``FakeDriver.module`` is a DB-API module over the same connections, for tests of code
that takes one.  Its connections understand a few words of SQL, so that examples run.

Rules: it never sleeps; whatever waits, waits for the test, or for its deadline.  :meth:`FakeDriver.shut_down` ends
every wait, so that no thread outlives a test.
"""

from __future__ import annotations

import re
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from millpond._core.states import Fault
from millpond._cursors import CursorClasses
from millpond.drivers import faults
from millpond.drivers.base import Driver
from millpond.errors import InvalidSetting

Operation = Literal["open", "check", "reset", "close"]
Behaviour = Literal["ok", "no", "error", "late", "never", "lie"]
OPERATIONS: tuple[Operation, ...] = ("open", "check", "reset", "close")
BEHAVIOURS: tuple[Behaviour, ...] = ("ok", "no", "error", "late", "never", "lie")


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
    """A connection of :class:`FakeDriver`.

    Attributes:
        number: counted from 1.
        alive: False once its server is gone.
        closed: closed by the client.
        unread: set it to leave a reply unread.
        session: what ``SET name = value`` has set.
    """

    def __init__(self, driver: FakeDriver, number: int) -> None:
        self.number = number
        self.alive = True
        self.closed = False
        self.unread = False
        self.session: dict[str, str] = {}
        self._driver = driver
        self._pending: list[tuple[str, Any]] = []
        self._inside = threading.RLock()

    @contextmanager
    def used(self, what: str) -> Generator[None, None, None]:
        """Be inside; two threads at once are noted as a mishap."""
        if not self._inside.acquire(blocking=False):
            self._driver.note(f"two threads at once in connection {self.number}: {what}")
            self._inside.acquire()
        try:
            yield
        finally:
            self._inside.release()

    def check_usable(self, what: str) -> None:
        """Raise if it is closed or dead."""
        if self.closed:
            self._driver.note(f"connection {self.number} was used after it was closed: {what}")
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
            self._driver.commit(self._pending)
            self._pending = []

    def rollback(self) -> None:
        """Forget the writes."""
        with self.used("rollback"):
            self.check_usable("rollback")
            self._pending = []

    def close(self) -> None:
        """Close; twice is noted as a mishap."""
        with self.used("close"):
            self._driver.forget(self)

    def run(self, statement: str, parameters: Any) -> list[tuple[Any, ...]] | None:
        """Run a statement; return its rows, or None if it has none."""
        with self.used(statement):
            self.check_usable(statement)
            return self._driver.run(self, statement, parameters)

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


class FakeDriver(Driver[FakeConnection]):
    """A driver that does what a test tells it to; usable from many threads.

    Args:
        tells_clean: it can tell without asking whether a session is as good as new (``is_clean``).
        tells_readable: it can tell without asking whether an idle connection was closed (``is_readable``).
        bounded: what would never be answered fails when its deadline has passed; False: it never ends by itself.
        clock: what deadlines are measured on.

    Attributes:
        counts: how often each operation was begun ("open", "check", "reset", "close"), and "opened" and "closed".
        connections: all that were ever opened.
        mishaps: what no pool must ever do, as text; a test ends by ``assert [] == driver.mishaps``.
        module: a DB-API module over the same connections.
    """

    name = "fake"
    tracks_cursors = False
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "as it is told (bounded=)",
        "alive": "as it is told",
        "clean": "if it is told so (tells_clean=)",
        "reset": "as it is told",
        "in flight": "by an attribute of the connection",
        "cut": "the connection dies",
        "errors": "by their attribute fault, else by class",
    }

    def __init__(
        self,
        *,
        tells_clean: bool = False,
        tells_readable: bool = False,
        bounded: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.connections: list[FakeConnection] = []
        self.mishaps: list[str] = []
        self.tables: dict[str, list[Any]] = {}
        self.module = fake_module(self)
        self._bounded = bounded
        self._clock = clock
        self._changed = threading.Condition()
        self._plans: dict[str, tuple[Behaviour, int | None, BaseException | None]] = {}
        self._tokens: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._down = False
        self._cursors = CursorClasses(tracked=lambda _: False)
        if tells_clean:
            self.is_clean = self._is_clean
        if tells_readable:
            self.is_readable = self._is_readable

    # -- what a test says ------------------------------------------------------------------------------------------
    def behave(
        self,
        operation: Operation,
        behaviour: Behaviour,
        *,
        times: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Say how an operation goes from now on.

        Args:
            operation: "open", "check", "reset" or "close".
            behaviour: "ok"; "no" (a check or reset answers False); "error" (it raises); "late" (it waits for
                :meth:`release`, deadline or not, and then goes well); "never" (it waits for its deadline, if the driver
                is bounded, else for :meth:`shut_down`, and fails); "lie" (it says that all is well, and has done
                nothing).
            times: for so many calls, then "ok" again; None for ever.
            error: what is raised for "error" and "never"; an ``OperationalError`` if not given.

        Raises:
            InvalidSetting: there is no such operation or behaviour.
        """
        if operation not in OPERATIONS:
            raise InvalidSetting("operation", operation, f"one of {', '.join(OPERATIONS)}")
        if behaviour not in BEHAVIOURS:
            raise InvalidSetting("behaviour", behaviour, f"one of {', '.join(BEHAVIOURS)}")
        with self._changed:
            self._plans[operation] = (behaviour, times, error)

    def release(self, operation: Operation, count: int | None = None) -> None:
        """Let calls that are late go on: *count* of them, waiting now or to come, or all that wait now."""
        with self._changed:
            self._tokens[operation] += self._waiting[operation] if count is None else count
            self._changed.notify_all()

    def waiting(self, operation: Operation) -> int:
        """Return how many calls wait to be released, or for ever."""
        with self._changed:
            return self._waiting[operation]

    def await_waiting(self, operation: Operation, count: int, timeout: float = 10.0) -> None:
        """Wait until that many calls wait.

        Raises:
            TimeoutError: it took more than *timeout* seconds.
        """
        self.await_that(lambda: self._waiting[operation] >= count, f"{count} calls of {operation} to wait", timeout)

    def await_count(self, what: str, count: int, timeout: float = 10.0) -> None:
        """Wait until ``counts[what]`` has reached *count*.

        Raises:
            TimeoutError: it took more than *timeout* seconds.
        """
        self.await_that(lambda: self.counts[what] >= count, f"{what} to reach {count}", timeout)

    def await_that(self, condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
        """Wait until something is so, looked at whenever something happens to this driver or its connections.

        Raises:
            TimeoutError: it took more than *timeout* seconds; the message says *what* was waited for.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"waited {timeout} s for {what}; counts are {dict(self.counts)}")

    def kill(self, conn: FakeConnection) -> None:
        """Have the server end a connection."""
        conn.alive = False

    def shut_down(self) -> None:
        """End every wait: what is late goes well, what would never be answered fails."""
        with self._changed:
            self._down = True
            self._changed.notify_all()

    @property
    def live(self) -> list[FakeConnection]:
        """The connections that were opened and not closed."""
        with self._changed:
            return [conn for conn in self.connections if not conn.closed]

    # -- the port --------------------------------------------------------------------------------------------------
    def open(self, until: float) -> FakeConnection:
        """Connect, as told."""
        behaviour = self._pass("open", until)
        with self._changed:
            conn = FakeConnection(self, len(self.connections) + 1)
            conn.alive = behaviour != "lie"
            self.connections.append(conn)
            self._count("opened")
        return conn

    def is_alive(self, conn: FakeConnection, until: float) -> bool:
        """Tell, as told."""
        with conn.used("check"):
            behaviour = self._pass("check", until)
            return behaviour == "lie" or (behaviour == "ok" and conn.alive and not conn.closed)

    def reset(self, conn: FakeConnection, until: float) -> bool:
        """Make as good as new, as told."""
        with conn.used("reset"):
            behaviour = self._pass("reset", until)
            if behaviour != "ok":
                return behaviour == "lie"
            conn.check_usable("reset")
            conn.renew()
            return True

    def close(self, conn: FakeConnection) -> None:
        """Close, as told."""
        with conn.used("close"):
            if self._pass("close", float("inf")) != "lie":
                self.forget(conn)

    def in_flight(self, conn: FakeConnection) -> bool | None:
        """Say whether a reply was left unread."""
        return conn.unread

    def uncommitted(self, conn: FakeConnection) -> bool:
        """Say whether there are writes that were not committed."""
        return conn.in_transaction

    def cut(self, conn: FakeConnection) -> bool:
        """Have the connection die under its holder."""
        conn.alive = False
        return True

    def classify(self, error: BaseException) -> Fault:
        """Sort by the attribute ``fault``, else by class."""
        fault: Fault | None = getattr(error, "fault", None)
        return fault or faults.classify(error)

    def cursor(self, conn: FakeConnection, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor for a lease."""
        return self._cursors.lend(conn.cursor(*args, **kwargs), lease)

    def _is_clean(self, conn: FakeConnection) -> bool:
        return not conn.in_transaction and not conn.session and not conn.unread

    def _is_readable(self, conn: FakeConnection) -> bool:
        return not conn.alive or conn.unread

    # -- gates -----------------------------------------------------------------------------------------------------
    def _pass(self, operation: Operation, until: float) -> Behaviour:
        """Go through the gate of an operation; return what is left to be done: "ok", "no" or "lie"."""
        with self._changed:
            self._count(operation)
            behaviour, error = self._next(operation)
            if behaviour == "late":
                self._wait_for_release(operation)
                return "ok"
            if behaviour == "never":
                self._wait_in_vain(operation, until)
            if behaviour in ("error", "never"):
                raise error or OperationalError(0, f"{operation}: {behaviour}, as the test has told")
            return behaviour

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self._changed.notify_all()

    def _next(self, operation: Operation) -> tuple[Behaviour, BaseException | None]:
        behaviour, times, error = self._plans.get(operation, ("ok", None, None))
        if times is not None:
            self._plans[operation] = (behaviour, times - 1, error) if times > 1 else ("ok", None, None)
        return behaviour, error

    def _wait_for_release(self, operation: Operation) -> None:
        self._waiting[operation] += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: self._down or self._tokens[operation] > 0)
            if self._tokens[operation]:
                self._tokens[operation] -= 1
        finally:
            self._waiting[operation] -= 1

    def _wait_in_vain(self, operation: Operation, until: float) -> None:
        left_s = max(0.0, until - self._clock()) if self._bounded and until != float("inf") else None
        self._waiting[operation] += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: self._down, left_s)
        finally:
            self._waiting[operation] -= 1

    # -- the server --------------------------------------------------------------------------------------------------
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

    def __repr__(self) -> str:
        return f"<fake adapter: {len(self.connections)} opened, {len(self.live)} live>"


Sentence = Callable[[FakeDriver, FakeConnection, "re.Match[str]", "list[Any]"], "list[tuple[Any, ...]] | None"]


def literal(text: str, parameters: list[Any]) -> Any:
    """Return the value of a literal, or of the parameter that a placeholder stands for."""
    if text in ("?", "%s"):
        return parameters.pop(0)
    return int(text) if text.isdigit() else text.strip("'")


def create(driver: FakeDriver, _: FakeConnection, found: re.Match[str], __: list[Any]) -> None:
    """CREATE TABLE name (...)."""
    driver.tables.setdefault(found[1], [])


def drop(driver: FakeDriver, _: FakeConnection, found: re.Match[str], __: list[Any]) -> None:
    """DROP TABLE name."""
    driver.tables.pop(found[1], None)


def insert(driver: FakeDriver, conn: FakeConnection, found: re.Match[str], parameters: list[Any]) -> None:
    """INSERT INTO name VALUES (value)."""
    driver.rows(conn, found[1])
    conn.add(found[1], literal(found[2], parameters))


def count(driver: FakeDriver, conn: FakeConnection, found: re.Match[str], _: list[Any]) -> list[tuple[Any, ...]]:
    """SELECT COUNT(*) FROM name."""
    return [(len(driver.rows(conn, found[1])),)]


def read(driver: FakeDriver, conn: FakeConnection, found: re.Match[str], _: list[Any]) -> list[tuple[Any, ...]]:
    """SELECT * FROM name."""
    return [(value,) for value in driver.rows(conn, found[1])]


def constant(_: FakeDriver, __: FakeConnection, found: re.Match[str], parameters: list[Any]) -> list[tuple[Any, ...]]:
    """SELECT value."""
    return [(literal(found[1], parameters),)]


def assign(_: FakeDriver, conn: FakeConnection, found: re.Match[str], parameters: list[Any]) -> None:
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


def fake_module(driver: FakeDriver) -> types.ModuleType:
    """Make a DB-API module whose connections are those of *driver*."""
    module: Any = types.ModuleType("fake_dbapi", "A DB-API 2 module over the connections of a FakeDriver.")
    module.apilevel = "2.0"
    module.threadsafety = 1
    module.paramstyle = "format"
    for kind in (Error, InterfaceError, DatabaseError, OperationalError, ProgrammingError):
        setattr(module, kind.__name__, kind)

    def connect(**_: Any) -> FakeConnection:
        """Connect; the arguments are for show."""
        return driver.open(float("inf"))

    module.connect = connect
    made: types.ModuleType = module
    return made
