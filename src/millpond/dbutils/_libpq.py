"""The adapter of psycopg 2 and 3: what libpq tells, and how a session of PostgreSQL is made as good as new.

Why: any DB-API driver is asked by statements whether its link is alive, and is rolled back at a return.  libpq knows
more without being asked (the transaction's state, whether its link is lost), and PostgreSQL keeps more than a
transaction: settings, roles, temporary tables, advisory locks, prepared statements, LISTEN.

Rules:
- A link has ended when its socket says so; that there is something to be read may be a notification.
- What the driver prepared for itself stays: psycopg 3 counts on it, and notices neither DISCARD ALL nor DEALLOCATE ALL
  when they were sent before.  What the program prepared by PREPARE goes.
- Every call between two borrowers has a deadline; the socket is shut down when it has passed.
- A connection that several threads share at this moment is looked at, never asked: the question would begin a
  transaction, and its end might end somebody else's.
"""

from __future__ import annotations

import select
import time
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from millpond.drivers import faults
from millpond.drivers.dbapi import DbapiDriver, connection_of
from millpond.drivers.settings import OnConnect, Reset

LIBPQ: Final = ("psycopg", "psycopg2")
ACTIVE: Final = 1  # PQTRANS_ACTIVE
IN_ERROR: Final = 3  # PQTRANS_INERROR
LINK_BAD: Final = 1  # CONNECTION_BAD

#: What DISCARD ALL stands for in PostgreSQL's documentation, but for the prepared statements: those of the program are
#: asked for at the end.  In one message, so that one answer is waited for.
RENEW: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; SELECT name FROM pg_prepared_statements WHERE from_sql"
)
#: Settings that the drivers keep themselves, so that no statement undoes them.
OWN_SETTINGS: Final = (
    *("autocommit", "isolation_level", "readonly", "read_only", "deferrable"),
    *("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max"),
)
POLLS: Final = hasattr(select, "poll") and hasattr(select, "POLLRDHUP")


class LibpqDriver(DbapiDriver):
    """Adapter for a driver that stands on libpq.

    Args:
        source: the driver's module, or a callable that connects by it.
        module: the driver's module.
        connect_args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`.
        reset: as there.
        on_connect: as there; run again after each reset, which forgets what it has set.
        shared: whether several threads may use a connection at the same time.
    """

    name = "libpq"
    capabilities: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        source: types.ModuleType | Callable[..., Any],
        module: types.ModuleType,
        *,
        connect_args: Mapping[str, Any],
        reset: Reset,
        on_connect: OnConnect,
        shared: bool,
    ) -> None:
        super().__init__(source, connect_args=connect_args, reset=reset, on_connect=on_connect)
        self.learn_module(module)
        self._api: Any = module
        self._is_psycopg2 = module.__name__ == "psycopg2"
        self._shared = shared
        self._settings: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
        self._knows_all = True  # the server knows every statement of RENEW, as far as was seen
        self.is_readable = self.has_ended
        if not self._is_psycopg2:
            self.shortcuts = ("execute",)

    # -- opening ---------------------------------------------------------------------------------------------------
    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect; a time-out in a connection string is the program's own, and is left alone."""
        named = arguments.get("dsn") or arguments.get("conninfo") or ""
        if "connect_timeout" in str(named):
            return connection_of(self._connect(**arguments))
        return super().dial(arguments, until)

    def set_up(self, conn: Any, until: float) -> None:
        """Run ``on_connect``, and remember how the driver's own settings are."""
        with self.bounded(conn, until):
            super().set_up(conn, until)
        self._settings[conn] = {name: getattr(conn, name) for name in OWN_SETTINGS if hasattr(conn, name)}
        if self._is_psycopg2:
            self._settings[conn]["encoding"] = conn.encoding

    # -- alive -----------------------------------------------------------------------------------------------------
    def has_ended(self, conn: Any) -> bool:
        """Say whether the link of a connection is lost, by its socket.

        Where the system does not tell an end from other news the server is asked, which takes no time either way.
        """
        fd = self.fileno(conn)
        if fd is None:
            return True
        if POLLS:
            poll = select.poll()
            poll.register(fd, select.POLLRDHUP)  # also hears of errors and of a descriptor that is closed
            return bool(poll.poll(0))
        return not self._shared and has_news(fd) and not self.is_alive(conn, time.monotonic() + 1.0)

    def is_alive(self, conn: Any, until: float) -> bool:
        """Ask the server, if nobody else can be using the connection."""
        if self._shared:
            return not self.has_ended(conn)
        return super().is_alive(conn, until)

    def is_lost(self, conn: Any, error: BaseException) -> bool:
        """Say whether an error means that the link is lost: by its state, or else by what libpq knows."""
        if faults.of_state(error) is not None:
            return self.classify(error).name == "GONE"
        return bool(conn.closed) or conn.info.status == LINK_BAD

    def is_aborted(self, conn: Any) -> bool:
        """Say whether a statement of the transaction has failed, so that the server will keep nothing of it."""
        return bool(conn.info.transaction_status == IN_ERROR)

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether rows or a copy are under way."""
        return bool(conn.info.transaction_status == ACTIVE)

    # -- as good as new ----------------------------------------------------------------------------------------------
    def clean(self, conn: Any, until: float) -> bool:
        """Roll back, and forget what is left in the session."""
        conn.rollback()
        if self._reset == "rollback":
            return True
        settings = self._settings.get(conn, {})
        self._take_back(conn, settings)
        conn.autocommit = True  # or each of these would begin a transaction
        self._renew(conn)
        if "encoding" in settings:
            self._renew_psycopg2(conn, settings["encoding"])
        self._say_again(conn)
        conn.autocommit = settings.get("autocommit", False)
        return True

    def _take_back(self, conn: Any, settings: dict[str, Any]) -> None:
        """Set the driver's own settings back that the borrower has changed."""
        for name, value in settings.items():
            if name != "encoding" and getattr(conn, name) != value:
                setattr(conn, name, value)

    def _renew(self, conn: Any) -> None:
        """Have the server forget the session."""
        if self._knows_all:
            try:
                prepared = self._rows_of(conn, RENEW)
            except self._api.DatabaseError as error:
                if self.is_lost(conn, error):
                    raise
                self._knows_all = False  # it speaks PostgreSQL's protocol, and not all of its SQL
            else:
                for (name,) in prepared:
                    quoted = '"' + name.replace('"', '""') + '"'
                    self._rows_of(conn, f"DEALLOCATE {quoted}")
                return
        if not self._is_psycopg2:
            conn.prepare_threshold = None
        self._rows_of(conn, "DISCARD ALL")

    def _renew_psycopg2(self, conn: Any, encoding: str) -> None:
        """Have psycopg 2 forget what it keeps of a session: in which encoding it reads, and what it was told."""
        if conn.encoding != encoding:
            conn.set_client_encoding(encoding)
        del conn.notifies[:]
        del conn.notices[:]

    def _rows_of(self, conn: Any, text: str) -> Sequence[Any]:
        """Run statements of ours by the driver's plainest cursor; return the rows of the last."""
        if self._is_psycopg2:
            with conn.cursor(cursor_factory=self._api.extensions.cursor) as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else ()
        with self._api.Cursor(conn, row_factory=self._api.rows.tuple_row) as cursor:
            cursor.execute(text, prepare=False)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else ()

    def _say_again(self, conn: Any) -> None:
        """Set what the program wants in each session."""
        if callable(self._on_connect):
            self._on_connect(conn)
        for statement in () if callable(self._on_connect) else self._on_connect or ():
            self._rows_of(conn, statement)


def has_news(fd: int) -> bool:
    """Say whether there is something to be read, which may be the end."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fd], [], [], 0)[0])
