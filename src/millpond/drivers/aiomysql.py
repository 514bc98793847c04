"""aiomysql: PyMySQL made asynchronous, and listened to in the same places.

Its connections use PyMySQL's own tables of converters, all of them the same two; here each is given its own.

Its results keep the status word of OK packets only, so its connections are given a result class that reads EOF packets
too.  A read that is cancelled closes the connection.

Rules: aiomysql's private parts are used here and, where asyncmy has the same names, in ``_aio_listening.py``.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from millpond.errors import DriverMissing

from ._aio_listening import AsyncListening, refuse_without, used_by_two
from ._aio_session import AsyncMySQLDriver
from ._pymysql_looks import Watched
from ._session import CLIENT_SSL

if TYPE_CHECKING:
    from ._session import Session

LOOKS = (
    *("autocommit_mode", "_charset", "_encoding", "encoders", "decoders", "cursorclass", "use_unicode", "_echo"),
    *("sql_mode", "init_command", "_db", "_local_infile"),
)
TABLES = ("encoders", "decoders")  # of converters
OUT_OF_SYNC = 2014  # CR_COMMANDS_OUT_OF_SYNC
UNKNOWN = ("collation", "max_allowed_packet", "read_timeout")
PARTS = frozenset(
    {"_connect", "_execute_command", "_read_ok_packet", "_read_packet", "_read_query_result"}
    | {"_request_authentication", "_write_bytes"}
)


class AiomysqlDriver(AsyncMySQLDriver):
    """Adapter for aiomysql 0.2 and later.

    Args: as for :class:`~millpond.drivers.aio.AiodbDriver`; ``connect_args`` are those of ``aiomysql.connect``, where
        ``database`` may stand for ``db``, ``ssl`` may also be one of "disabled", "preferred", "required", "verify-ca"
        and "verify-identity", and ``time_zone`` sets the session's.
    """

    name = "aiomysql"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes: every operation is cancelled",
        "alive": "poll of the descriptor, and what the loop has received; COM_PING",
        "clean": "yes",
        "reset": "COM_RESET_CONNECTION and what it forgets, sent at return and read later",
        "in flight": "yes; what runs for nobody any more is killed",
        "cut": "its descriptor is shut down",
        "errors": "by number",
        "private parts": "_execute_command, _read_query_result, _read_packet, _write_bytes and others of the "
        "connection, all in drivers/aiomysql.py and _aio_listening.py; without them it is refused",
    }
    options: ClassVar[Mapping[str, Any]] = {
        name: read for name, read in AsyncMySQLDriver.options.items() if name not in UNKNOWN
    }
    looks = LOOKS
    set_aside: ClassVar[Mapping[str, Any]] = {"autocommit_mode": None, "sql_mode": None, "init_command": None}
    _class: ClassVar[type[Any] | None] = None

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import aiomysql."""
        try:
            return importlib.import_module("aiomysql")
        except ImportError as error:
            text = 'aiomysql is not installed; install it with: pip install "millpond[aiomysql]"'
            raise DriverMissing(text) from error

    async def fresh_arguments(self) -> dict[str, Any]:
        """Return the arguments for one connect, under aiomysql's names."""
        arguments = await super().fresh_arguments()
        if "database" in arguments:
            arguments["db"] = arguments.pop("database")
        return arguments

    @classmethod
    def connection_class(cls) -> type[Any]:
        """Return the class of aiomysql's connections that listen."""
        if cls._class is None:
            connection: Any = importlib.import_module("aiomysql.connection")
            refuse_without(PARTS, connection.Connection, "aiomysql")
            members: dict[str, Any] = {
                "new_result": type("MySQLResult", (ListeningResult, connection.MySQLResult), {}),
                "send_command": connection.Connection._execute_command,  # noqa: SLF001  see the module's rules
            }
            cls._class = type("Connection", (ListeningAiomysql, Telling, connection.Connection), members)
        return cls._class

    def add_flags(self, conn: Any, flags: int) -> None:
        """Ask the server for more, before the handshake."""
        conn.client_flag |= flags

    async def shake_hands(self, conn: Any) -> None:
        """Connect."""
        await conn._connect()  # noqa: SLF001  see the module's rules

    def _new(self, arguments: dict[str, Any]) -> Any:
        conn = super()._new(arguments)
        for table in TABLES:
            setattr(conn, table, dict(getattr(conn, table)))
        return conn

    async def _dial(self, conn: Any) -> None:
        await super()._dial(conn)
        session: Session = conn._millpond  # noqa: SLF001  our own
        for table in TABLES:  # as an on_connect has left them
            setattr(conn, table, Watched(getattr(conn, table), session))
        session.looks = self._look_at(conn)

    def _restore_looks(self, conn: Any, session: Session) -> None:
        super()._restore_looks(conn, session)
        for table in TABLES:
            kept: Watched = getattr(conn, table)
            if kept.changed:
                kept.restore()

    def cursor(self, conn: Any, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own class; it is cut off when the lease is given back."""
        made = conn.cursor(*args, **kwargs)  # awaitable and a context manager, but it is there already
        future = getattr(made, "_coro", None)
        if future is not None and hasattr(future, "result") and future.done():
            self.note_cursor(conn, future.result(), lease)
        return made

    def sever(self, cursor: Any) -> None:
        """Take a cursor's connection away."""
        cursor._connection = None  # noqa: SLF001  see the module's rules


class ListeningResult:
    """A result that keeps the status word of its last packet, also where that is an EOF packet."""

    server_status: int | None

    def _check_packet_is_eof(self, packet: Any) -> bool:
        if not packet.is_eof_packet():
            return False
        super()._check_packet_is_eof(packet)  # type: ignore[misc]  # aiomysql's own
        self.server_status = int.from_bytes(packet.get_all_data()[3:5], "little")
        return True


class Telling:
    """A connection whose reader of OK packets returns what it has read; aiomysql's own returns True.

    It also writes bytes by itself: what aiomysql 0.3 takes for that from PyMySQL is no function in PyMySQL 1.2,
    and a bytearray would be written as its repr.
    """

    server_status: int

    def escape(self, obj: Any) -> Any:
        """Return a value as a literal."""
        if isinstance(obj, (bytes, bytearray)):
            return f"_binary X'{obj.hex()}'"
        return super().escape(obj)  # type: ignore[misc]  # aiomysql's own

    async def _read_ok_packet(self) -> Any:
        connection: Any = importlib.import_module("aiomysql.connection")
        driver: Any = self
        reply = await driver._read_packet()  # noqa: SLF001  see the module's rules
        if not reply.is_ok_packet():
            raise connection.OperationalError(OUT_OF_SYNC, "Command Out of Sync")
        ok = connection.OKPacketWrapper(reply)
        self.server_status = ok.server_status
        return ok


class ListeningAiomysql(AsyncListening):
    """aiomysql's names for what the mixin needs."""

    _reader: Any
    _writer: Any
    _ssl_context: Any
    client_flag: int

    @property
    def link(self) -> Any:
        """The transport; None once it was closed."""
        writer = self._writer
        return None if writer is None else writer.transport

    def _read_packet(self, *args: Any) -> Any:
        if self.is_awaited:  # another task waits for a packet, and each would get a part of it
            raise used_by_two(self)
        return super()._read_packet(*args)

    @property
    def received(self) -> int:
        """How many bytes were received and not read."""
        return 0 if self._reader is None else len(self._reader._buffer)  # noqa: SLF001  asyncio's own reader

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what comes."""
        return self._reader is not None and self._reader._waiter is not None  # noqa: SLF001  asyncio's own reader

    def has_news(self) -> bool:
        """Say whether anything was received and not read."""
        reader = self._reader
        return reader is None or bool(self.received) or reader.eof_received or reader.exception() is not None

    @property
    def wait_gone(self) -> Any:
        """What waits until the socket was let go of."""
        return self._writer.wait_closed

    def go_without_tls(self) -> None:
        """Forget that TLS was preferred."""
        self._ssl_context = None
        self.client_flag &= ~CLIENT_SSL

    async def await_news(self) -> None:
        """Wait until there is."""
        if not self.has_news():
            await self._reader._wait_for_data("await_news")  # noqa: SLF001  what its own reads wait by
