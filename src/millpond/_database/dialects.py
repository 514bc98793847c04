"""What the helper layer has to know of a driver and its database, beyond what an adapter tells a pool.

One class a driver, chosen by the adapter's name; whatever nobody knows is as plain DB-API 2 has it.  None of it does
I/O: texts are returned for a shell to send, cursors are only made, and what is asked of a connection it knows by
itself.

Rules: what a driver cannot tell is None, never a guess.  Values are bound by the driver; the only things written into a
statement here are names, quoted, and numbers that are ours.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast

from millpond._sql.params import Marks
from millpond._sql.tokens import Dialect as Rules
from millpond.errors import InvalidSetting

Brand: TypeAlias = Literal["mysql", "mariadb", "sqlite", "other"]
Version: TypeAlias = tuple[int, ...]

IN_TRANSACTION: Final = 0x0001  # SERVER_STATUS_IN_TRANS
NO_BACKSLASH_ESCAPES: Final = 0x0200  # SERVER_STATUS_NO_BACKSLASH_ESCAPES
PACKET_SLACK: Final = 1024  # of max_allowed_packet, left for what a driver adds
STATEMENT_BYTES_MAX: Final = 1_024_000  # a batch is no faster beyond this, and holds memory on both sides
QMARKS: Final = Marks("?", doubles_percent=False, no_values=())
MARKS: Final[dict[str, Marks]] = {"format": Marks(), "pyformat": Marks(), "qmark": QMARKS}


class Dialect:
    """Any DB-API 2 driver.

    Args:
        conn: a connection of it, from which brand and version are read.
        paramstyle: as the driver's module says.

    Attributes:
        brand: whose SQL it speaks.
        version: of the server, in numbers; empty if it does not tell.
        marks: how it wants the places of values.
        quote: what names are quoted by.
        commit: the text that commits; None: the connection's own ``commit()``.
        rollback: the text that rolls back; None: the connection's own ``rollback()``.
        probe: a statement that does nothing and after which :meth:`in_transaction` is right; None: there is none.
        tells_after_errors: :meth:`in_transaction` is right after a failed statement, too.
        ddl_commits: CREATE, DROP and the like end a transaction.
        autocommit_saves: with autocommit off, a statement outside a transaction costs a second command.
    """

    quote: ClassVar[str] = '"'
    commit: ClassVar[str | None] = None
    rollback: ClassVar[str | None] = None
    probe: ClassVar[str | None] = None
    tells_after_errors: ClassVar[bool] = False
    ddl_commits: ClassVar[bool] = True
    autocommit_saves: ClassVar[bool] = True

    def __init__(self, conn: Any, paramstyle: str = "format") -> None:
        self.brand: Brand = "other"
        self.version: Version = ()
        if paramstyle not in MARKS:
            allowed = "a driver whose paramstyle is format, pyformat or qmark"
            raise InvalidSetting("driver", type(conn).__module__, allowed, f"its paramstyle is {paramstyle}")
        self.marks = MARKS[paramstyle]

    def adopt(self, driver: Any, conn: Any) -> None:
        """Take in what an adapter knows of its connections beyond what they show."""

    def hurry(self, conn: Any, seconds: float) -> Callable[[], None] | None:
        """Have a connection wait no longer for locks; return what undoes that, None where a deadline ends waits too."""
        return None

    # -- texts
    def rules(self, conn: Any) -> Rules | None:
        """Return by which rules the connection's server cuts a text; None if it depends, and cannot be told."""
        return Rules.MYSQL_NO_BACKSLASH_ESCAPES  # the standard's strings

    def quoted(self, name: str) -> str:
        """Return a name as an identifier that nothing in it can break out of."""
        return quoted(name, self.quote)

    def begin(self, isolation: str | None, *, read_only: bool, autocommit: bool) -> list[str]:
        """Return the statements that begin a transaction."""
        options = [*([f"ISOLATION LEVEL {isolation}"] if isolation else []), *(["READ ONLY"] if read_only else [])]
        if autocommit:
            return [f"BEGIN {', '.join(options)}".strip()]
        return [f"SET TRANSACTION {', '.join(options)}"] if options else []  # PEP 249: it begins by itself

    def after_read_only(self) -> list[str]:
        """Return the statements that undo what :meth:`begin` did to the session for a read-only transaction."""
        return []

    def timed(self, text: str, verb: str, after_verb: int, seconds: float) -> str | None:
        """Return the statement with a limit that the server enforces; None where it has no such thing for it.

        Args:
            text: as the driver gets it.
            verb: its first token, if that is a word.
            after_verb: the position after that token.
            seconds: more than 0.
        """
        return None

    # -- cursors
    def cursor(self, conn: Any) -> Any:
        """Make a cursor whose rows are tuples and are there when ``execute`` returns."""
        return conn.cursor()

    def stream_cursor(self, lease: Any) -> Any:
        """Make a cursor that fetches as it is read; through the lease, so that it is cut off with it."""
        return lease.cursor()

    def limit_batches(self, cursor: Any, bytes_max: int) -> bool:
        """Tell a cursor how long the statements of its ``executemany`` may be; False if it cannot be told."""
        return False

    # -- what the connection says, without asking its server
    def autocommit(self, conn: Any) -> bool:
        """Say whether each statement is committed as it is done; no, as PEP 249 has it, where a driver cannot tell."""
        return getattr(conn, "autocommit", False) is True

    def in_transaction(self, conn: Any) -> bool | None:
        """Say whether a transaction is open; None: cannot tell."""
        return None

    def session_id(self, conn: Any) -> int | None:
        """Return the number by which the server knows the connection; None: cannot tell."""
        return None

    def interrupter(self, conn: Any) -> Callable[[], None] | None:
        """Return what ends the running statement from another thread, without a second connection; None: nothing."""
        return None


class MySQLFamily(Dialect):
    """MySQL and MariaDB by any driver."""

    quote = "`"

    def __init__(self, conn: Any, paramstyle: str = "format") -> None:
        super().__init__(conn, paramstyle)
        self.marks = self.marks._replace(takes_views=False)
        info = str(self.server_info(conn) or "")
        self.brand = "mariadb" if "mariadb" in info.lower() else "mysql"
        self.version = version_of(info.removeprefix("5.5.5-"))  # what MariaDB before 11 says first, for old clients

    def server_info(self, conn: Any) -> str | None:
        """Return the server's version as it greets with."""
        for name in ("server_version", "server_info"):
            told = getattr(conn, name, None)
            if isinstance(told, str):
                return told
        return conn.get_server_info() if hasattr(conn, "get_server_info") else None

    def rules(self, conn: Any) -> Rules | None:
        status = self.status(conn)
        if status is None:
            return None
        return Rules.MYSQL_NO_BACKSLASH_ESCAPES if status & NO_BACKSLASH_ESCAPES else Rules.MYSQL

    def status(self, conn: Any) -> int | None:
        """Return the last status word; None: cannot tell."""
        return None

    def begin(self, isolation: str | None, *, read_only: bool, autocommit: bool) -> list[str]:
        # SET TRANSACTION holds for the next transaction only, and ends with it.
        first = [f"SET TRANSACTION ISOLATION LEVEL {isolation}"] if isolation else []
        return [*first, "START TRANSACTION READ ONLY" if read_only else "START TRANSACTION"]

    def timed(self, text: str, verb: str, after_verb: int, seconds: float) -> str | None:
        if self.brand == "mariadb":
            if verb != "SELECT":  # of a write it could not be told any more whether a trigger has changed the session
                return None
            return f"SET STATEMENT max_statement_time={max(seconds, 0.0001):.4f} FOR {text}"
        if verb != "SELECT" or text[after_verb:].lstrip().startswith("/*+") or self.version < (5, 7, 8):
            return None
        # "SELECT 1 FROM DUAL" and "SELECT(1)": a space on both sides suits all.
        return f"{text[:after_verb]} /*+ MAX_EXECUTION_TIME({max(1, round(seconds * 1000))}) */ {text[after_verb:]}"

    def autocommit(self, conn: Any) -> bool:
        return bool(conn.get_autocommit())

    def session_id(self, conn: Any) -> int | None:
        number: int = conn.thread_id()
        return number


class PyMySQL(MySQLFamily):
    """PyMySQL: it keeps the status word, and its cursors are Python."""

    probe = "DO 0"

    def __init__(self, conn: Any, paramstyle: str = "format") -> None:
        from pymysql.cursors import Cursor, SSCursor

        super().__init__(conn, paramstyle)
        self._stream_cursor = SSCursor
        # The class itself: one call less for each statement.
        self.cursor = Cursor  # type: ignore[method-assign,assignment]  # called as the method is

    def stream_cursor(self, lease: Any) -> Any:
        return lease.cursor(self._stream_cursor)

    def limit_batches(self, cursor: Any, bytes_max: int) -> bool:
        cursor.max_stmt_length = bytes_max
        return True

    def status(self, conn: Any) -> int | None:
        status: int = conn.server_status
        return status

    def in_transaction(self, conn: Any) -> bool | None:
        # Rows end in a packet whose status word PyMySQL does not keep: the flag is then that of the statement before,
        # and no statement with rows ends a transaction.
        return bool(conn.server_status & IN_TRANSACTION)


class Asyncmy(PyMySQL):
    """asyncmy: as PyMySQL, by which it was made; but its cursors ask for warnings, one command more, and log them."""

    cursors: ClassVar[str] = "asyncmy.cursors"

    def __init__(self, conn: Any, paramstyle: str = "format") -> None:
        MySQLFamily.__init__(self, conn, paramstyle)
        module: Any = importlib.import_module(self.cursors)
        self._stream_cursor: Any = binding(module.SSCursor)  # which does not ask: of rows yet to come nothing is known
        plain: Any = binding(module.Cursor)
        self.cursor = quiet(plain)  # type: ignore[method-assign]  # as above


class Aiomysql(Asyncmy):
    """aiomysql: the same again."""

    cursors: ClassVar[str] = "aiomysql.cursors"


@functools.cache
def binding(kind: type[Any]) -> type[Any]:
    """Return the class of a driver's cursors that bind all that is bytes; asyncmy's converters take no other class."""

    def _escape_args(self: Any, args: Any, conn: Any) -> Any:
        try:
            return kind._escape_args(self, args, conn)  # noqa: SLF001  the driver's own name for it
        except TypeError:
            plain = tuple([bytes(value) if isinstance(value, (bytes, bytearray)) else value for value in args])
            return kind._escape_args(self, plain, conn)  # noqa: SLF001  so

    return type(kind.__name__, (kind,), {"_escape_args": _escape_args})


@functools.cache
def quiet(kind: type[Any]) -> type[Any]:
    """Return the class of a driver's cursors that do not ask for warnings."""

    async def ask_nothing(*_: Any) -> None:
        return

    return type(kind.__name__, (kind,), {"_show_warnings": ask_nothing})


class MySQLClient(MySQLFamily):
    """mysqlclient: its adapter reads the status word out of the C library, where that is MariaDB's."""

    def adopt(self, driver: Any, conn: Any) -> None:
        self._driver = driver
        if driver.tells(conn):
            self.probe = "DO 0"  # type: ignore[misc]  # not known before there is a connection

    def status(self, conn: Any) -> int | None:
        status: int | None = self._driver.status_of(conn) if self._driver.tells(conn) else None
        return status

    def in_transaction(self, conn: Any) -> bool | None:
        status = self.status(conn)
        return None if status is None else bool(status & IN_TRANSACTION)

    def cursor(self, conn: Any) -> Any:
        from MySQLdb.cursors import Cursor  # type: ignore[import-untyped,unused-ignore]

        return conn.cursor(Cursor)

    def stream_cursor(self, lease: Any) -> Any:
        from MySQLdb.cursors import SSCursor  # type: ignore[import-untyped,unused-ignore]

        return lease.cursor(SSCursor)

    def limit_batches(self, cursor: Any, bytes_max: int) -> bool:
        cursor.max_stmt_length = bytes_max
        return True


class MySQLConnector(MySQLFamily):
    """mysql-connector-python: it looks for ``%s`` everywhere, strings included, and leaves ``%%`` as it is."""

    probe = "DO 0"

    def __init__(self, conn: Any, paramstyle: str = "pyformat") -> None:
        super().__init__(conn, paramstyle)
        self.marks = self.marks._replace(doubles_percent=False)

    def cursor(self, conn: Any) -> Any:
        return conn.cursor(buffered=True, dictionary=False)

    def stream_cursor(self, lease: Any) -> Any:
        return lease.cursor(buffered=False, dictionary=False)

    def autocommit(self, conn: Any) -> bool:
        return bool(conn.autocommit)  # where nobody watches, this one asks the server; it is asked once

    def in_transaction(self, conn: Any) -> bool | None:
        return bool(conn.in_transaction)

    def session_id(self, conn: Any) -> int | None:
        number: int | None = conn.connection_id
        return number


class SQLite(Dialect):
    """SQLite: DDL is part of a transaction, the connection itself knows whether one is open."""

    commit = "COMMIT"  # Python 3.12's autocommit=True makes commit() do nothing
    rollback = "ROLLBACK"
    tells_after_errors = True
    ddl_commits = False
    autocommit_saves = False

    def __init__(self, conn: Any, paramstyle: str = "qmark") -> None:
        import sqlite3

        super().__init__(conn, "qmark")
        self.brand = "sqlite"
        self.version = sqlite3.sqlite_version_info
        self.marks = QMARKS._replace(nothing="SELECT {} WHERE 0", rows="VALUES ")

    def rules(self, conn: Any) -> Rules | None:
        return Rules.SQLITE

    def begin(self, isolation: str | None, *, read_only: bool, autocommit: bool) -> list[str]:
        # Every transaction of SQLite is serializable.  One that will write takes its lock at once: two that read first
        # and then both want to write cannot be helped by waiting.
        return ["PRAGMA query_only=1", "BEGIN"] if read_only else ["BEGIN IMMEDIATE"]

    def after_read_only(self) -> list[str]:
        return ["PRAGMA query_only=0"]

    def adopt(self, driver: Any, conn: Any) -> None:
        self._driver = driver

    def hurry(self, conn: Any, seconds: float) -> Callable[[], None] | None:
        calm: Callable[[], None] | None = self._driver.hurry(conn, seconds)
        return calm

    def cursor(self, conn: Any) -> Any:
        cursor = conn.cursor()
        cursor.row_factory = None
        return cursor

    def stream_cursor(self, lease: Any) -> Any:
        cursor = lease.cursor()
        cursor.row_factory = None
        return cursor

    def autocommit(self, conn: Any) -> bool:
        chosen = getattr(conn, "autocommit", None)  # Python 3.12; neither True nor False: isolation_level decides
        return chosen is True or (chosen is not False and conn.isolation_level is None)

    def in_transaction(self, conn: Any) -> bool | None:
        is_open: bool = conn.in_transaction
        return is_open

    def interrupter(self, conn: Any) -> Callable[[], None] | None:
        interrupt: Callable[[], None] = conn.interrupt
        return interrupt


class Aiosqlite(SQLite):
    """aiosqlite: SQLite, in a thread for each connection; its cursors are awaited."""

    async def cursor(self, conn: Any) -> Any:
        cursor = await conn.cursor()
        cursor.row_factory = None
        return cursor

    async def stream_cursor(self, lease: Any) -> Any:
        cursor = await lease.cursor()
        cursor.row_factory = None
        return cursor

    def interrupter(self, conn: Any) -> Callable[[], None] | None:
        interrupt: Callable[[], None] = conn._conn.interrupt  # noqa: SLF001  aiosqlite's own is awaited
        return interrupt


KINDS: Final[Mapping[str, Callable[[Any, str], Dialect]]] = {
    "pymysql": PyMySQL,
    "mysqlclient": MySQLClient,
    "mysqlconnector": MySQLConnector,
    "sqlite": SQLite,
    "asyncmy": Asyncmy,
    "aiomysql": Aiomysql,
    "aiosqlite": Aiosqlite,
}


def dialect_of(driver: Any, conn: Any) -> Dialect:
    """Return the dialect of a connection, by the name of the adapter that opened it."""
    style: str = getattr(driver.module, "paramstyle", "format")
    dialect = KINDS.get(driver.name, Dialect)(conn, style)
    dialect.adopt(getattr(driver, "adapter", driver), conn)  # of a callable's connections it is behind a front
    return dialect


def quoted(name: str, quote: str) -> str:
    """Return a name between quotes that nothing in it ends.

    Raises:
        InvalidSetting: nothing can have this name.
    """
    given = cast("object", name)
    if not isinstance(given, str) or not name or "\0" in name:
        allowed = "text of at least one character, none of them NUL"
        raise InvalidSetting("name", name, allowed, "this cannot name anything")
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


@functools.cache
def version_of(info: str) -> Version:
    """Return "10.11.19-MariaDB" as (10, 11, 19)."""
    numbers: list[int] = []
    for part in info.split("-", 1)[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
