"""What asyncmy's connections keep in mind, and the short way that their statements take.

Why: beside a driver in Cython every coroutine, call and attribute of ours shows.  So a statement runs in one coroutine,
which waits where asyncmy's own reads do, where asyncmy has a chain of seven and this package had three more; and
what a program sends again and again is judged once (:mod:`millpond._sql.templates`).

Rules:
- The short way is for what it was made for; everything else (rows read one by one, long statements, ``read_timeout``,
  observers, results that are left) goes the driver's own.
- That a version still wakes whoever waits there is tried before the first statement, and that its parser still does
  what it did: none may wait for ever.
- A reply that has arrived whole is taken apart in one step (``_asyncmy_replies.py``).
- What a cursor was asked for runs while the cursor is its borrower's; a task may have its first turn after that.
- A statement counts as owed before it is sent, and is judged before its reply is read: while the server is at work.
"""

from __future__ import annotations

import asyncio
import importlib
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from millpond._aio_here import task_in
from millpond._sql.templates import TYPES, Proofs

from ._aio_listening import AsyncListening, used_by_two
from ._session import CLIENT_SSL, COM_QUERY, IN_TRANSACTION, MORE_RESULTS, STATE_CHANGED
from .faults import number_of

if TYPE_CHECKING:
    from ._asyncmy_replies import Replies

LONG: Final = 8191  # bytes; the driver writes longer statements in pieces
NOTABLE: Final = IN_TRANSACTION | MORE_RESULTS | STATE_CHANGED  # else a status word says that all is as it was
JUMBO: Final = 0xFFFFFF  # bytes; longer packets come in pieces
LINK_LOST: Final = 2013  # CR_SERVER_LOST
SEQUENCES: Final = frozenset({tuple, list})
head_of: Final = struct.Struct("<iB").pack


def is_plain(conn: Any) -> bool:
    """Say whether a connection does with statements what asyncmy does if nobody has told it otherwise."""
    usual = importlib.import_module("asyncmy.converters").conversions
    encoders = conn._encoders  # noqa: SLF001  see the module's text
    observed = conn._echo or conn._query_callback is not None or conn._stmt_cache_size  # noqa: SLF001  so
    return not observed and all(encoders.get(kind) is usual.get(kind) for kind in TYPES)


class Done:
    """What is left to be waited for when all is done."""

    __slots__ = ()

    __await__: Callable[[], Any] = ().__iter__  # an iterator that ends at once


DONE = cast("Awaitable[None]", Done())


class KnowingCursor:
    """asyncmy's plain cursor, which knows what its statements do: the same text with other values does the same."""

    __slots__ = ()
    connection: Any
    rowcount: Any
    description: Any
    lastrowid: Any
    _result: Any
    _rows: Any
    _executed: Any
    _escape_args: Any
    _clear_result: Any

    def execute(self, query: Any, args: Any = None) -> Awaitable[Any]:
        """Run a statement, as the driver's own cursor does; what is proved of it is not judged again."""
        conn, last = self.connection, self._result
        if conn is None or type(query) is not str or (last is not None and last.has_next):
            return super().execute(query, args)  # type: ignore[misc,no-any-return]  # asyncmy's own
        return conn.run(query, self, args)  # type: ignore[no-any-return]  # a connection that listens

    def begin(self, conn: Any, query: str, args: Any) -> tuple[str, bool]:
        """Forget what was there; return a statement with its values in it, and whether it is proved to be harmless."""
        places = conn.proofs[query]
        if args is None:
            text, proved = query, places == 0
        else:
            text = query % self._escape_args(args, conn)
            proved = places is not None and type(args) in SEQUENCES and TYPES.issuperset(map(type, args))
        self._clear_result()
        return text, proved

    def take_in(self, text: str, result: Any) -> None:
        """Keep a result, as the driver's own cursor does."""
        self._executed = text
        self._result = result
        self.rowcount = result.affected_rows
        self.description = result.description
        self.lastrowid = result.insert_id
        self._rows = result.rows

    def __aexit__(self, *exc: object) -> Awaitable[None]:
        last = self._result
        if last is not None and last.has_next:
            return self.close()  # type: ignore[attr-defined,no-any-return]  # asyncmy's own
        self.connection = None
        return DONE


class KnowingEnd:
    """A result that does not take a row for its end: one whose first value has 16 MiB or more begins as that does."""

    __slots__ = ()

    def _check_packet_is_eof(self, packet: Any) -> Any:
        return len(packet.get_all_data()) < JUMBO and super()._check_packet_is_eof(packet)  # type: ignore[misc]  # asyncmy's own


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
    _deprecate_eof: bool
    _read_timeout: float | None
    _close_on_cancel: Any
    _cursor_cls: Any
    _last_usage: float
    driver_cursor: ClassVar[Any]
    knowing_cursor: ClassVar[Any]
    proofs: Proofs | None = None  # of statements that it need not judge again, whatever their values
    replies: Replies | None = None  # what is known of them, if they end as is to be seen
    waits_itself: ClassVar[bool | None] = None  # where the driver's own reads wait; None before that was tried
    reads_itself: ClassVar[bool] = False  # with the driver's own parser

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Run a statement as the driver does."""
        return await (super().query(sql, unbuffered) if unbuffered else self.run(sql))

    async def run(self, query: Any, cursor: Any = None, args: Any = None) -> Any:
        """Run a statement as the driver does, for a cursor with values perhaps, in one coroutine instead of ten."""
        if cursor is None:
            sql, proved = query, False
        elif cursor.connection is self:
            sql, proved = cursor.begin(self, query, args)
        else:  # it was cut off before this task had its turn: the driver says so
            return await cursor.execute(query, args)
        text = sql.encode(self._encoding, "surrogateescape") if type(sql) is str else self.encoded(sql)
        if not self.ask(text, proved=proved):
            await super().query(text)
            return await self.shown(sql, self._result, cursor)
        try:
            proto = self._proto
            if proto.length == proto.pos and not proto.eof:
                proto._read_waiter = waiter = self._loop.create_future()  # noqa: SLF001  as its own reads do
                await waiter
            if cursor is not None and self.replies is not None:
                status = self.replies.take(self, query, cursor)
                if status is not None:
                    self.settle(status)
                    cursor._executed = sql  # noqa: SLF001  see above
                    self._affected_rows = rows = cursor.rowcount
                    return rows
            result = self.new_result(self)
            await result.read()
        except Exception as error:
            self.hear_error(error)
            raise
        except asyncio.CancelledError:
            self._close_on_cancel()
            raise
        finally:
            self._millpond.holder = 0
        self.take_in(result)
        if cursor is not None and self.replies is not None and query in cast("Proofs", self.proofs):  # seen before
            self.replies.learn(self, query, result)
        return await self.shown(sql, result, cursor)

    def ask(self, text: bytes, *, proved: bool) -> bool:
        """Send a statement, unless something is in its way: then nothing was done, and False is returned.

        It is judged, unless it was *proved* harmless, and the last reply forgotten, while the server is at work.
        """
        last = self._result
        if (
            (last is not None and (last.has_next or last.unbuffered_active))
            or self._millpond_unread is not None
            or self._read_timeout
            or not (self.waits_itself and self._connected)
            or len(text) >= LONG
        ):
            return False
        session = self._millpond
        me = id(task_in(self._loop))
        if session.holder and session.holder != me:
            raise used_by_two(self)
        session.holder = me
        session.owed += 1
        try:
            self._write_bytes(head_of(len(text) + 1, COM_QUERY) + text)
            self._next_seq_id = 1
            if proved:
                session.text, session.limited = b"", False
            else:
                session.weigh(COM_QUERY, text)
                session.sent(text)
        except Exception as error:
            session.holder = 0
            self.hear_error(error)
            raise
        self._result = None
        return True

    async def shown(self, sql: Any, result: Any, cursor: Any) -> Any:
        """Show a result to a cursor, if there is one, and its warnings as the driver does."""
        if cursor is not None:
            cursor.take_in(sql, result)
            if result.warning_count:
                await cursor._show_warnings(self)  # noqa: SLF001  see above
        return result.affected_rows

    def settle(self, status: int) -> None:
        """Note the status word of a reply that had no warnings; of most there is nothing more to be said."""
        session = self._millpond
        self.server_status = status
        if status & NOTABLE:
            session.note(status, 0)
            return
        session.status = status
        session.owed -= 1
        session.wrote = False

    def hear_error(self, error: Exception) -> None:
        """As for both drivers; a reply that ``read_timeout`` cut off is no word of the server's: what runs runs on."""
        super().hear_error(error)
        if self._read_timeout and not self._connected and number_of(error) == LINK_LOST:
            self._millpond_cut = True

    def take_in(self, result: Any) -> None:
        """As for both drivers; of most results there is nothing to be said."""
        status = result.server_status
        told = status or self._deprecate_eof  # no bit is set after a read without autocommit
        if not told or result.warning_count or result.unbuffered_active:
            super().take_in(result)
            return
        self._result = result
        self._affected_rows = result.affected_rows
        self.settle(status)

    @property
    def link(self) -> Any:
        """The transport; None once it was closed."""
        return self._transport

    def read_packet(self, *args: Any) -> Any:
        """Read a packet, unless another task waits for one: each would get a part of it."""
        if self._proto is not None and self._proto._read_waiter is not None:  # noqa: SLF001  see the module's text
            raise used_by_two(self)
        return super().read_packet(*args)  # type: ignore[misc]  # asyncmy's own

    @property
    def received(self) -> int:
        """How many bytes were received and not read."""
        proto = self._proto
        return 0 if proto is None else int(proto.length - proto.pos)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what comes."""
        return self._proto is not None and self._proto._read_waiter is not None  # noqa: SLF001  see the module's text

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
