"""asyncmy: a driver in Cython, whose connections can be listened to all the same.

What it exposes (0.2.18): its ``Connection`` is a class that can be extended, and its compiled code calls
``_execute_command``, ``_read_query_result``, ``_read_ok_packet`` and ``_write_bytes`` by name.  Its results tell their
status word where they end with an OK packet (MySQL 5.7.5, MariaDB 10.2 and later).  Prepared statements read their
replies by themselves; a session with one is reset.  A read that is cancelled closes the connection.  A row whose first
value has 16 MiB or more begins as the end of a result does, and the driver takes it for that; our results do not.

Cursors are of compiled classes with a shortcut for their own exact class.  In the place of that one a subclass is lent
(``_asyncmy_session.py``), others as they are; they are cut off at return by taking their connection away.
"""

from __future__ import annotations

import asyncio
import importlib
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from millpond._sql.templates import Proofs
from millpond.errors import DriverMissing, InvalidSetting

from ._aio_listening import refuse_without
from ._aio_session import CURSORS, AsyncMySQLDriver
from ._asyncmy_replies import Replies, Shape, parses, settings_of
from ._asyncmy_session import KnowingCursor, KnowingEnd, ListeningAsyncmy, is_plain, wakes
from ._session import IN_TRANSACTION
from .aio import AiodbDriver

if TYPE_CHECKING:
    from ._session import Session

LOOKS = (
    *("autocommit_mode", "_charset", "_encoding", "_encoders", "_decoders", "_cursor_cls", "_use_unicode", "_echo"),
    *("_query_callback", "_read_timeout", "_sql_mode", "_init_command", "_db", "_local_infile", "_stmt_cache_size"),
)
PARTS = frozenset(
    {"_execute_command", "_read_query_result", "_read_ok_packet", "_write_bytes", "_request_authentication"}
    | {"_close_on_cancel", "_connected", "_next_seq_id", "_proto", "_read_timeout"}
)


class AsyncmyDriver(AsyncMySQLDriver):
    """Adapter for asyncmy 0.2.18 and later.

    Args: as for :class:`~millpond.drivers.aio.AiodbDriver`; ``connect_args`` are those of ``asyncmy.connect``, where
        ``ssl`` may also be one of "disabled", "preferred", "required", "verify-ca" and "verify-identity", and
        ``time_zone`` sets the session's.
    """

    name = "asyncmy"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes: every operation is cancelled",
        "alive": "poll of the descriptor, and what the loop has received; COM_PING",
        "clean": "yes, where results end with an OK packet (MySQL 5.7.5, MariaDB 10.2)",
        "reset": "COM_RESET_CONNECTION and what it forgets, sent at return and read later",
        "in flight": "yes; what runs for nobody any more is killed",
        "cut": "its descriptor is shut down",
        "errors": "by number",
        "private parts": "_execute_command, _read_query_result, _read_ok_packet, _write_bytes and others of the "
        "connection, all in drivers/*asyncmy*.py and _aio_listening.py; without them it is refused",
    }
    looks = LOOKS
    set_aside: ClassVar[Mapping[str, Any]] = {"autocommit_mode": None, "_sql_mode": None, "_init_command": None}
    _class: ClassVar[type[Any] | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._proofs: dict[Any, Proofs] = {}  # by the brand of the server
        self._shapes: dict[str, Shape] = {}  # of replies
        self._settings: Any = None  # how the first connection converts values

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import asyncmy."""
        try:
            return importlib.import_module("asyncmy")
        except ImportError as error:
            text = 'asyncmy is not installed; install it with: pip install "millpond[asyncmy]"'
            raise DriverMissing(text) from error

    @classmethod
    def arguments_of(cls, url: Any) -> dict[str, Any]:
        """Return the arguments of ``asyncmy.connect``."""
        arguments = super().arguments_of(url)
        if "collation" in arguments:
            raise InvalidSetting("collation", arguments["collation"], "charset alone", "asyncmy has none")
        return arguments

    @classmethod
    def connection_class(cls) -> type[Any]:
        """Return the class of asyncmy's connections that listen."""
        if cls._class is None:
            connection: Any = importlib.import_module("asyncmy.connection")
            refuse_without(PARTS, connection.Connection, "asyncmy")
            driver = connection.Connection
            members: dict[str, Any] = {"send_command": driver._execute_command}  # noqa: SLF001  see above
            members["new_result"] = type("MySQLResult", (KnowingEnd, connection.MySQLResult), {"__slots__": ()})
            members["driver_cursor"] = connection.Cursor
            members["knowing_cursor"] = type("Cursor", (KnowingCursor, connection.Cursor), {"__slots__": ()})
            cls._class = type("Connection", (ListeningAsyncmy, connection.Connection), members)
        return cls._class

    def add_flags(self, conn: Any, flags: int) -> None:
        """Ask the server for more, before the handshake."""
        conn._client_flag |= flags  # noqa: SLF001  see the module's text

    async def shake_hands(self, conn: Any) -> None:
        """Connect."""
        await conn.connect()
        kind: Any = conn.__class__
        if kind.waits_itself is None:
            kind.reads_itself = parses(importlib.import_module("asyncmy.protocol"), kind.driver_cursor)
            kind.waits_itself = wakes(conn._proto.__class__, asyncio.get_running_loop())  # noqa: SLF001  see the module's text

    def tells_ends(self, conn: Any) -> bool:
        """Say whether results end with an OK packet, the only one that asyncmy keeps the status word of."""
        return bool(conn._deprecate_eof)  # noqa: SLF001  see the module's text

    def forget_statements(self, conn: Any) -> None:
        """Prepared statements do not survive a reset."""
        conn._stmt_cache.clear()  # noqa: SLF001  see the module's text

    async def _dial(self, conn: Any) -> None:
        await super()._dial(conn)
        session: Session = conn._millpond  # noqa: SLF001  our own
        if session.utf8 and is_plain(conn):
            conn.proofs = self._proofs.setdefault(session.brand, Proofs(session.brand))
            if self.tells_ends(conn) and conn.reads_itself:
                conn.replies = self._replies_of(conn)

    def _replies_of(self, conn: Any) -> Replies:
        """Return what is known of a connection's replies: the same for all, unless it converts values otherwise."""
        settings = settings_of(conn)
        self._settings = self._settings or settings
        shapes = self._shapes if settings == self._settings else {}
        return Replies(conn, importlib.import_module("asyncmy.protocol"), shapes)

    def cursor(self, conn: Any, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own class; it is cut off when the lease is given back."""
        if not self._dials or args or kwargs or conn.proofs is None or conn._cursor_cls is not conn.driver_cursor:  # noqa: SLF001  see the module's text
            cursor = conn.cursor(*args, **kwargs)
        else:
            cursor = conn.knowing_cursor(conn)
        if self.tracks_cursors:
            self.note_cursor(conn, cursor, lease)
        else:
            lent: list[Any] = conn._millpond_cursors  # noqa: SLF001  our own
            lent.append(cursor)
            if len(lent) >= CURSORS:
                self.weed(lent)
        return cursor

    def _is_clean(self, conn: Any) -> bool:
        session: Session = conn._millpond  # noqa: SLF001  our own
        unread: Any = conn._millpond_unread  # noqa: SLF001
        if session.dirt or session.owed or session.status & IN_TRANSACTION or unread is not None:
            return super()._is_clean(conn)
        cursors: list[Any] = conn._millpond_cursors  # noqa: SLF001
        for cursor in cursors:
            cursor.connection = None
        cursors.clear()
        proto: Any = conn._proto  # noqa: SLF001  see the module's text
        if proto.length > proto.pos:  # more than was read of the last reply: nobody knows where the next begins
            session.lost = True
            return False
        conn._result = None  # noqa: SLF001  see there
        as_new: bool = self._look_at(conn) == session.looks
        return as_new and conn._transport is not None  # noqa: SLF001  so

    def sever(self, cursor: Any) -> None:
        """Take a cursor's connection away."""
        cursor.connection = None


__all__ = ["AiodbDriver", "AsyncmyDriver"]
