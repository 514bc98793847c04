"""asyncmy: a driver in Cython, whose connections can be listened to all the same.

What it exposes (0.2.18): its ``Connection`` is a class that can be extended, and its compiled code calls
``_execute_command``, ``_read_query_result``, ``_read_ok_packet`` and ``_write_bytes`` by name.  Its results tell their
status word where they end with an OK packet (MySQL 5.7.5, MariaDB 10.2 and later).  Prepared statements read their
replies by themselves; a session with one is reset.  A read that is cancelled closes the connection.

Cursors are of compiled classes with a shortcut for their own exact class, so they are lent as they are, and cut off at
return by taking their connection away.
"""

from __future__ import annotations

import asyncio
import importlib
import struct
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from millpond.errors import DriverMissing, InvalidSetting

from ._aio_session import CLIENT_SSL, AsyncListening, AsyncMySQLDriver, used_by_two
from ._session import COM_QUERY
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
LONG: Final = 8191  # bytes; the driver writes longer statements in pieces
head_of: Final = struct.Struct("<iB").pack
current_task = asyncio.current_task


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
    }
    looks = LOOKS
    set_aside: ClassVar[Mapping[str, Any]] = {"autocommit_mode": None, "_sql_mode": None, "_init_command": None}
    _class: ClassVar[type[Any] | None] = None

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
            missing = PARTS - set(dir(connection.Connection))
            assert not missing, f"this asyncmy lacks {sorted(missing)}"
            driver = connection.Connection
            members: dict[str, Any] = {"new_result": connection.MySQLResult, "send_command": driver._execute_command}  # noqa: SLF001  see above
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
            kind.waits_itself = wakes(conn._proto.__class__, asyncio.get_running_loop())  # noqa: SLF001  see the module's text

    def tells_ends(self, conn: Any) -> bool:
        """Say whether results end with an OK packet, the only one that asyncmy keeps the status word of."""
        return bool(conn._deprecate_eof)  # noqa: SLF001  see the module's text

    def forget_statements(self, conn: Any) -> None:
        """Prepared statements do not survive a reset."""
        conn._stmt_cache.clear()  # noqa: SLF001  see the module's text

    def cursor(self, conn: Any, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own class; it is cut off when the lease is given back."""
        cursor = conn.cursor(*args, **kwargs)
        if self.tracks_cursors:
            self.note_cursor(conn, cursor, lease)
        else:
            conn._millpond_cursors.append(cursor)  # noqa: SLF001  our own
        return cursor

    def sever(self, cursor: Any) -> None:
        """Take a cursor's connection away."""
        cursor.connection = None


def wakes(protocol: type[Any], loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether a protocol wakes whoever waits where its own reads do: a later asyncmy may do that elsewhere."""
    proto = protocol(loop)
    woken: list[bool] = []
    for event in (lambda: proto.buffer_updated(0), proto.eof_received):
        proto._read_waiter = waiter = loop.create_future()  # noqa: SLF001  see the module's text
        event()
        woken.append(waiter.done())
    return all(woken) and {"length", "pos", "eof"} <= set(dir(proto))


class ListeningAsyncmy(AsyncListening):
    """asyncmy's names for what the mixin needs."""

    _transport: Any
    _proto: Any
    _charset: str
    _encoding: str
    _db: Any
    _init_command: str | None
    _sql_mode: str | None
    _client_flag: int
    _ssl_context: Any
    _loop: asyncio.AbstractEventLoop
    _connected: bool
    _read_timeout: float | None
    _close_on_cancel: Any
    waits_itself: ClassVar[bool | None] = None  # where the driver's own reads wait; None before that was tried

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Run a statement as the driver does, but in one coroutine instead of seven.

        It is judged, and the last reply forgotten, while the server is at work.
        """
        text = sql.encode(self._encoding, "surrogateescape") if type(sql) is str else self.encoded(sql)
        last = self._result
        if (
            (last is not None and (last.has_next or last.unbuffered_active))
            or self._millpond_unread is not None
            or unbuffered
            or self._read_timeout
            or not (self.waits_itself and self._connected)
            or len(text) >= LONG
        ):
            return await super().query(text, unbuffered)
        session: Session = self._millpond
        me = id(current_task(self._loop))
        if session.holder and session.holder != me:
            raise used_by_two(self)
        session.holder = me
        session.owed += 1
        try:
            self._write_bytes(head_of(len(text) + 1, COM_QUERY) + text)
            self._next_seq_id = 1
            session.weigh(COM_QUERY, text)
            session.sent(text)
            self._result = None
            proto = self._proto
            if proto.length == proto.pos and not proto.eof:
                proto._read_waiter = waiter = self._loop.create_future()  # noqa: SLF001  what its own reads wait by
                await waiter
            result = self.new_result(self)
            await result.read()
        except Exception as error:
            self.hear_error(error)
            raise
        except asyncio.CancelledError:
            self._close_on_cancel()
            raise
        finally:
            session.holder = 0
        self._result = result
        self._affected_rows = affected_rows = result.affected_rows
        status = result.server_status
        if status:
            self.server_status = status
            session.note(status, result.warning_count)
        else:
            self.hear(result)
        return affected_rows

    @property
    def link(self) -> Any:
        """The transport; None once it was closed."""
        return self._transport

    def has_news(self) -> bool:
        """Say whether anything was received and not read."""
        proto = self._proto
        return proto is None or proto.eof or proto.exc is not None or proto.length > proto.pos

    def go_without_tls(self) -> None:
        """Forget that TLS was preferred; asyncmy itself does not look whether a server has it."""
        self._ssl_context = None
        self._client_flag &= ~CLIENT_SSL

    async def await_news(self) -> None:
        """Wait until there is."""
        await self._proto.wait_for_data(1)

    @property
    def wait_gone(self) -> Any:
        """What waits until the socket was let go of."""
        return self._proto.wait_closed

    @property
    def charset(self) -> str:
        """The character set's name."""
        return self._charset

    @property
    def encoding(self) -> str:
        """Python's name of it."""
        return self._encoding

    @property
    def db(self) -> Any:
        """The schema chosen at connect."""
        return self._db

    @property
    def init_command(self) -> str | None:
        """The statement to run at connect."""
        return self._init_command

    @property
    def sql_mode(self) -> str | None:
        """The mode to set at connect."""
        return self._sql_mode

    @property
    def client_flag(self) -> int:
        """What was asked of the server."""
        return self._client_flag


__all__ = ["AiodbDriver", "AsyncmyDriver"]
