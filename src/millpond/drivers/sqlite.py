"""SQLite: the embedded default, by the standard library's ``sqlite3``.

Why a pool of SQLite connections: each has a statement cache and a page cache worth keeping, each thread needs one of
its own, and the file takes one writer at a time, so a bounded number of them with a fair queue beats a free-for-all.

Rules:
- ``check_same_thread`` is off unless told otherwise: the pool sees to it that one thread at a time uses a connection.
- Files named by a URL are switched to WAL (readers and the writer do not block each other); ``journal_mode=keep``
  leaves them as they are, and whoever passes a module or a callable decides for himself.
- ``:memory:`` is one database for the whole pool, in SQLite's ``memdb`` VFS, which locks as a file does and waits
  when busy. (Measured, six threads that read and write: 900 of 900 done.  With ``cache=shared``, whose table locks
  ignore the busy time-out, two thirds failed with "database table is locked".)
- Clean is proved.  Whatever a borrower can leave in a connection goes through SQL, through one of a dozen methods or
  through an attribute.  SQLite's authorizer sees each statement when it is compiled, for nothing when it is run
  again from the cache; the methods note that they were called; attributes are compared.  What cannot be put back is
  not: the connection is replaced, which takes about 0.1 ms.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import itertools
import logging
import operator
import sqlite3
import sys
import time
import types
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from millpond._cursors import CursorClasses
from millpond.errors import DriverUnsuitable, InvalidSetting
from millpond.url import URL, Parser, boolean, one_of, seconds, whole

from .dbapi import DbapiDriver
from .settings import OnConnect, Reset

JOURNAL_MODES = ("wal", "delete", "truncate", "persist", "memory", "off", "keep")
MEMDB_SINCE = (3, 36, 0)  # SQLite's release in which "file:/name?vfs=memdb" became one database for a whole process
MEMORY = ("", ":memory:", "file::memory:")

# What of a connection is an attribute; ``autocommit`` is Python 3.12's.
ATTRIBUTES = (
    "row_factory",
    "text_factory",
    "isolation_level",
    *(("autocommit",) if sys.version_info >= (3, 12) else ()),
)

# Authorizer codes (sqlite.org/c3ref/c_alter_table.html) of what outlives a statement and is not in the file.
PRAGMA: Final = 19
LASTING: Final = frozenset({3, 4, 5, 6, 24, 25})  # CREATE TEMP INDEX, TABLE, TRIGGER, VIEW; ATTACH, DETACH
LASTING_IN_TEMP: Final = frozenset({1, 2, 7, 8, 29})  # the same as CREATE ... temp.name
FUNCTION: Final = 31
HURRIED: Final = "in a hurry"
READING_PRAGMAS: Final = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "incremental_vacuum",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "wal_checkpoint",
    }
)
# What a session has beside attributes and temporary objects, for connections that are not watched.
FINGERPRINT = (
    "temp.schema_version",
    "foreign_keys",
    "query_only",
    "recursive_triggers",
    "defer_foreign_keys",
    "busy_timeout",
    "synchronous",
    "cache_size",
    "ignore_check_constraints",
    "read_uncommitted",
    "reverse_unordered_selects",
    "temp_store",
    "locking_mode",
)

logger = logging.getLogger("millpond")
PROBE_S = 1.0  # until another thread has looked at a connection; where threads do not run, nobody else uses it anyway

_names = itertools.count(1)


class WatchedConnection(sqlite3.Connection):
    """A connection that knows whether anything was done to it that a rollback does not undo."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What was done; the connection is replaced when it is given back.
        self.traces: list[str] = []
        self.opened_with: tuple[Any, ...] = ()

    def watch(self) -> None:
        """Begin: what has been done until now is how a new connection is."""
        super().set_authorizer(authorizer(self.traces))
        del self.traces[:]
        self.opened_with = attributes_of(self)


def be_patient(conn: sqlite3.Connection, patience_ms: int, traces: list[str]) -> None:
    """Have a connection wait so long for a lock, without a trace of the statement that says so."""
    before = len(traces)
    sqlite3.Cursor(conn).execute(f"PRAGMA busy_timeout={patience_ms}").close()
    del traces[before:]


def calm(conn: sqlite3.Connection, patience_ms: int, traces: list[str]) -> None:
    """Give a connection back the patience that it had before it was hurried."""
    with contextlib.suppress(sqlite3.Error):  # it was closed meanwhile
        be_patient(conn, patience_ms, traces)
        traces.remove(HURRIED)


def authorizer(traces: list[str]) -> Callable[..., int]:
    """Make the function that SQLite asks about every statement it compiles; it allows all and notes what lasts."""

    def allow(action: int, first: str | None, second: str | None, database: str | None, _: str | None) -> int:
        if action == PRAGMA:
            if second is not None and first not in READING_PRAGMAS:
                traces.append("PRAGMA")
        elif action in LASTING or (database == "temp" and action in LASTING_IN_TEMP):
            traces.append("temporary object or attached database")
        elif action == FUNCTION and second == "load_extension":
            traces.append("extension")
        return sqlite3.SQLITE_OK

    return allow


def noting(name: str) -> Callable[..., Any]:
    """Make a method that does what it always did, and notes that it was called."""
    method: Callable[..., Any] = getattr(sqlite3.Connection, name)

    def note(self: WatchedConnection, *args: Any, **kwargs: Any) -> Any:
        self.traces.append(name)
        return method(self, *args, **kwargs)

    note.__name__ = name
    note.__doc__ = method.__doc__
    return note


CHANGING = (
    "create_function",
    "create_aggregate",
    "create_window_function",
    "create_collation",
    "set_authorizer",
    "set_progress_handler",
    "set_trace_callback",
    "enable_load_extension",
    "load_extension",
    "setlimit",
    "setconfig",
    "deserialize",
    "blobopen",  # one that is left open keeps its lock
)
for _name in CHANGING:
    if hasattr(sqlite3.Connection, _name):  # some came with later versions, some are left out by some builds
        setattr(WatchedConnection, _name, noting(_name))


class SQLiteDriver(DbapiDriver):
    """Adapter for sqlite3.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`; ``connect_args`` are those of ``sqlite3.connect``, and
        ``journal_mode`` and ``foreign_keys`` beside them.
    """

    name = "sqlite"
    shortcuts = ("execute", "executemany", "executescript")
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "none needed: there is no network; a busy database is waited for as long as busy_timeout says",
        "alive": "SELECT 1, in this process; whether it was closed is seen at every checkout",
        "clean": "yes, for connections we make: the authorizer, the methods that change a connection, its attributes",
        "reset": "rollback, attributes put back; a connection with PRAGMAs, temporary or attached things is replaced",
        "in flight": "never: there is no wire",
        "cut": "no; a running statement is interrupted",
        "errors": "by result code, or by SQLite's text before Python 3.11",
    }
    options: ClassVar[Mapping[str, Parser]] = {
        "autocommit": boolean,
        "busy_timeout": seconds,
        "cached_statements": whole,
        "foreign_keys": boolean,
        "isolation_level": one_of("deferred", "immediate", "exclusive"),
        "journal_mode": one_of(*JOURNAL_MODES),
        "mode": one_of("ro", "rw", "rwc"),
    }

    def __init__(
        self,
        source: types.ModuleType | Callable[..., Any] | None = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        arguments = dict(connect_args or {})
        self._journal_mode: str | None = arguments.pop("journal_mode", None)
        self._foreign_keys: bool | None = arguments.pop("foreign_keys", None)
        made_by_us = source is None or isinstance(source, types.ModuleType)
        super().__init__(source, connect_args=arguments, reset=reset, on_connect=on_connect, described=described)
        self._attributes: tuple[Any, ...] | None = None  # of the newest connection that is not watched
        self._fingerprints: set[tuple[Any, ...]] = set()  # of such connections, when they were new
        self._warned: set[str] = set()
        if made_by_us:
            self._complete(self._connect_args)
        self.is_readable = is_closed
        if self._reset == "auto":
            self.is_clean = self._is_clean
        elif self._reset == "rollback":
            self.is_clean = is_outside_transaction

    def _complete(self, arguments: dict[str, Any]) -> None:
        """Add what a pool needs to the arguments of ``sqlite3.connect``."""
        arguments.setdefault("check_same_thread", False)
        arguments.setdefault("factory", WatchedConnection)
        if str(arguments.get("database", ":memory:")) in MEMORY:
            self._anchor(arguments)

    def _anchor(self, arguments: dict[str, Any]) -> None:
        """Make ``:memory:`` one database for all, kept alive by a connection that lives as long as this adapter."""
        if sqlite3.sqlite_version_info < MEMDB_SINCE:
            raise DriverUnsuitable(
                f"SQLite {sqlite3.sqlite_version} cannot share a database in memory between connections; "
                "use a file, or SQLite 3.36 or later"
            )
        arguments.update(database=f"file:/millpond-{next(_names)}?vfs=memdb", uri=True)
        anchor = sqlite3.connect(arguments["database"], uri=True, check_same_thread=False)
        weakref.finalize(self, anchor.close)

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Return sqlite3; it is in the standard library."""
        return sqlite3

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the arguments for ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite://`` (in memory)."""
        if url.host or url.user or url.port:
            allowed = "sqlite:///relative.db, sqlite:////absolute.db, sqlite:///:memory:"
            raise InvalidSetting("url", str(url), allowed, "SQLite has no host; a path begins with the third /")
        options = url.typed(cls.options)
        arguments: dict[str, Any] = {"database": url.database}
        in_memory = url.database in MEMORY
        mode = options.pop("mode", None)
        if mode is not None and not in_memory:
            path = quote(Path(url.database).absolute().as_posix())
            arguments.update(database=f"file:{'' if path.startswith('/') else '/'}{path}?mode={mode}", uri=True)
        arguments["journal_mode"] = options.pop("journal_mode", "keep" if in_memory or mode == "ro" else "wal")
        if "busy_timeout" in options:
            arguments["timeout"] = options.pop("busy_timeout")
        if options.pop("autocommit", False):
            if "isolation_level" in options:
                raise InvalidSetting("autocommit", True, "without isolation_level", "it leaves no transaction to begin")
            arguments["isolation_level"] = None
        return {**arguments, **options}

    def cursor_classes(self) -> CursorClasses:
        """All cursors are cut off by closing them: each may hold a statement, and with it a lock."""
        return CursorClasses()

    # -- opening ---------------------------------------------------------------------------------------------------
    def set_up(self, conn: sqlite3.Connection, until: float) -> None:
        """Set the journal mode, run ``on_connect``, and note what a new connection is like."""
        if self._journal_mode not in (None, "keep"):
            self._set_journal_mode(conn, until)
        if self._foreign_keys is not None:
            sqlite3.Cursor(conn).execute(f"PRAGMA foreign_keys={int(self._foreign_keys)}")
        super().set_up(conn, until)
        if isinstance(conn, WatchedConnection):
            conn.watch()
            return
        self._attributes = attributes_of(conn)
        self._fingerprints.add(fingerprint(conn))
        self._warn_of_private_memory(conn)

    def _set_journal_mode(self, conn: sqlite3.Connection, until: float) -> None:
        """Switch the journal mode; while others are in the file this may take as long as the dial may."""
        cursor = sqlite3.Cursor(conn)
        (patience_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        left_ms = max(1, int(min((until - time.monotonic()) * 1000, 2**31 - 1)))
        cursor.execute(f"PRAGMA busy_timeout={left_ms}")
        cursor.execute(f"PRAGMA journal_mode={self._journal_mode}").fetchone()
        cursor.execute(f"PRAGMA busy_timeout={patience_ms}")
        cursor.close()

    def _warn_of_private_memory(self, conn: sqlite3.Connection) -> None:
        """Say that a callable makes a database of its own for each connection."""
        if not any(file for _, name, file in databases(conn) if name == "main"):
            self._warn_once(
                "each connection of this pool is an empty database of its own, in memory: "
                "use Pool('sqlite://') for one that all share, or max_size=1"
            )

    def _warn_once(self, text: str) -> None:
        if text in self._warned:
            return
        self._warned.add(text)
        try:
            warnings.warn(text, UserWarning, stacklevel=2)
        except UserWarning:  # warnings made errors must not fail the dial of whoever asks first
            logger.error(text)  # noqa: TRY400  the traceback would be the adapter's own

    # -- using -----------------------------------------------------------------------------------------------------
    def is_alive(self, conn: sqlite3.Connection, until: float) -> bool:
        """Ask for a constant: nothing but a closed connection fails at that."""
        try:
            sqlite3.Cursor(conn).execute("SELECT 1").fetchone()
        except sqlite3.Error:
            return False
        return True

    def _is_clean(self, conn: sqlite3.Connection) -> bool:
        """Say whether a watched connection has nothing left in it; of any other it cannot be told without asking."""
        try:
            if conn.in_transaction or not isinstance(conn, WatchedConnection):
                return False
            return not conn.traces and attributes_of(conn) == conn.opened_with
        except sqlite3.Error:  # its borrower has closed it
            return False

    def clean(self, conn: sqlite3.Connection, until: float) -> bool:
        """Roll back, put attributes back, and refuse a connection with anything else left in it."""
        conn.rollback()
        if self._reset == "rollback":
            return True
        wanted = conn.opened_with if isinstance(conn, WatchedConnection) else self._attributes
        if wanted:
            restore(conn, wanted)
        if conn.in_transaction:  # Python 3.12's autocommit=False, set by the borrower, leaves one open when it is unset
            conn.rollback()
        return not conn.traces if isinstance(conn, WatchedConnection) else fingerprint(conn) in self._fingerprints

    def close(self, conn: sqlite3.Connection) -> None:
        """Close; by itself that leaves the file locked for as long as anybody holds a cursor not read to its end."""
        try:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            conn.close()
        except sqlite3.Error:
            return  # bound to another thread: whoever collects it closes the file

    # -- capabilities ----------------------------------------------------------------------------------------------
    def in_flight(self, conn: sqlite3.Connection) -> bool | None:
        """Say no: there is no wire to leave anything on."""
        return False

    def uncommitted(self, conn: sqlite3.Connection) -> bool:
        """Say whether a transaction is open; by default sqlite3 opens one for writes only."""
        try:
            return conn.in_transaction and getattr(conn, "autocommit", True) is not False
        except sqlite3.Error:  # its borrower has closed it
            return False

    def fileno(self, conn: sqlite3.Connection) -> int | None:
        """Say that there is none."""
        return None

    def hurry(self, conn: sqlite3.Connection, seconds: float) -> Callable[[], None] | None:
        """Have a connection wait no longer than that for a lock: ``interrupt()`` ends what is at work, and no wait.

        Returns:
            What gives it its own patience again, and is to be called before it is given back; None if that is no
            greater.
        """
        (patience_ms,) = sqlite3.Cursor(conn).execute("PRAGMA busy_timeout").fetchone()
        left_ms = max(1, int(min(seconds * 1000, 2**31 - 1)))
        if patience_ms <= left_ms:
            return None
        traces: list[str] = getattr(conn, "traces", [])
        be_patient(conn, left_ms, traces)
        traces.append(HURRIED)
        return functools.partial(calm, conn, patience_ms, traces)

    def cut(self, conn: sqlite3.Connection) -> bool:
        """Interrupt the statement that is running; the connection stays with its holder."""
        with contextlib.suppress(sqlite3.Error):  # it is closed already
            conn.interrupt()
        return False

    def bound_to_thread(self, conn: sqlite3.Connection) -> bool:
        """Find out by a look from another thread: a connection does not tell how it was made."""
        looked = _thread.allocate_lock()
        looked.acquire()
        is_free: list[bool] = []

        def look() -> None:
            try:
                sqlite3.Cursor(conn).close()
                is_free.append(True)
            except sqlite3.ProgrammingError:
                is_free.clear()
            finally:
                looked.release()

        try:
            # Not threading.Thread: its start() waits for the thread to run, which on some hosts it never does.
            _thread.start_new_thread(look, ())
            looked.acquire(timeout=PROBE_S)
        except RuntimeError:  # no thread can be had, so that nobody else can use it either
            return True
        if not is_free:
            self._warn_once(
                "connections of this pool belong to the threads that open them: each is replaced when another thread "
                "takes it. Connect with check_same_thread=False; the pool sees to it that one thread at a time uses one"
            )
        return not is_free

    def cursor(self, conn: sqlite3.Connection, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own class for *lease*: by the ``factory`` argument, where that is left to us."""
        factory = args[0] if args else kwargs.get("factory")
        by_default = type(conn).cursor is sqlite3.Connection.cursor
        base = sqlite3.Cursor if factory is None and by_default else factory
        if by_default and isinstance(base, type):
            made = self._cursors.make(base, conn.cursor, lease)
            if made is not None:
                return made
        cursor = conn.cursor(*args, **kwargs)
        if type(cursor) is not sqlite3.Cursor:
            return self._cursors.lend(cursor, lease)
        # A plain cursor cannot change its class; one of ours can be made in its place.
        made = self._cursors.make(sqlite3.Cursor, lambda kind: kind(conn), lease)
        assert made is not None, "bug: sqlite3.Cursor can be extended"
        made.row_factory = cursor.row_factory
        cursor.close()
        return made


def is_outside_transaction(conn: sqlite3.Connection) -> bool:
    """Say whether a rollback would have nothing to do; of a connection that was closed, that cannot be said."""
    try:
        return not conn.in_transaction
    except sqlite3.Error:
        return False


def is_closed(conn: sqlite3.Connection) -> bool:
    """Say whether a connection was closed behind the pool's back; it is asked in memory, in some 50 ns."""
    try:
        conn.total_changes  # noqa: B018  reading it is the question
    except sqlite3.Error:
        return True
    return False


#: Returns what borrowers may set.
attributes_of: Callable[[sqlite3.Connection], tuple[Any, ...]] = operator.attrgetter(*ATTRIBUTES)


def restore(conn: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    """Put back what borrowers have set."""
    for name, value in zip(ATTRIBUTES, values, strict=True):
        if getattr(conn, name) is not value:
            setattr(conn, name, value)


def databases(conn: sqlite3.Connection) -> list[tuple[int, str, str]]:
    """Return what is attached: number, name, file."""
    return plain_cursor(conn).execute("PRAGMA database_list").fetchall()


def fingerprint(conn: sqlite3.Connection) -> tuple[Any, ...]:
    """Return what can be read of a session's settings; none of this touches the file."""
    cursor = plain_cursor(conn)
    values = [cursor.execute(f"PRAGMA {name}").fetchone() for name in FINGERPRINT]
    attached = sorted(name for _, name, _ in databases(conn) if name not in ("main", "temp"))
    return (*values, *attached)


def plain_cursor(conn: sqlite3.Connection) -> sqlite3.Cursor:
    """Return a cursor that no ``row_factory`` of a borrower reaches."""
    return sqlite3.Cursor(conn)
