"""What a connection of asyncio's MySQL drivers gains: it keeps what every reply says.

Why: asyncmy and aiomysql descend from PyMySQL and have kept its inner names, so one mixin listens to both: what is sent
is judged, what is answered is noted, in the connection's :class:`~millpond.drivers._session.Session`.

Rules:
- A task that waits for a reply is the connection's holder, and whoever sends meanwhile is told so.
- A connection that was cancelled while it waited for a reply owes that reply, and is never used again.
- A reply that was left is read to its end if that comes at once; a longer one costs the connection.

It must not decide what becomes of a session, nor know a pool: that is the adapter's (``_aio_session.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from millpond.errors import ConcurrentUse, DriverUnsuitable, joined

from ._session import (
    CLIENT_SSL,
    COM_QUERY,
    CONNECTING,
    DRAINED_BYTES_MAX,
    MORE_RESULTS,
    TLS_FAILED,
    Session,
    explained,
)
from .faults import number_of

UNHEARD: Final = frozenset({0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0xFA})  # prepared statements read by themselves
TOLD_HERE: Final = range(2000, 3000)  # errors that no server sends: drivers have made them themselves
current_task = asyncio.current_task

if TYPE_CHECKING:
    from ._pymysql_plan import Plan

    class _Base:
        """What the mixin needs of a driver's connection, private parts included."""

        server_status: int
        server_capabilities: int
        _result: Any
        _affected_rows: Any
        _next_seq_id: int

        async def _read_ok_packet(self) -> Any: ...
        async def _read_packet(self) -> Any: ...
        async def _request_authentication(self) -> Any: ...
        async def set_charset(self, charset: str) -> None: ...
        def _write_bytes(self, data: bytes) -> Any: ...

        # What an adapter's own class says of its driver.
        @property
        def link(self) -> Any:
            """The transport; None once it was closed."""

        @property
        def wait_gone(self) -> Callable[[], Awaitable[None]]:
            """What waits until the socket was let go of, once the connection was closed."""
            ...

        @property
        def received(self) -> int:
            """How many bytes were received and not read."""
            ...

        @property
        def is_awaited(self) -> bool:
            """Whether somebody waits for what comes."""
            ...

        def has_news(self) -> bool:
            """Say whether anything was received and not read, the end of the link included."""
            ...

        async def await_news(self) -> None:
            """Wait until there is; reads nothing."""

        def go_without_tls(self) -> None:
            """Forget that TLS was preferred: this server has none."""

else:
    _Base = object


class AsyncListening(_Base):
    """What a connection class gains by listening; a driver's adapter completes it."""

    _millpond: Session
    _millpond_plan: Plan
    _millpond_poll: Any = None
    _millpond_unread: Any = None  # a result whose end was not seen yet: an unbuffered one
    _millpond_tls_required = False
    _millpond_cut = False  # its link was broken here, under whoever waited for a reply
    _millpond_cursors: list[Any]  # lent since it was last given back
    collation: str | None = None
    encoding: Any
    new_result: ClassVar[Any]  # makes an empty result that keeps the status word of its last packet
    send_command: ClassVar[Any]  # the driver's own way to send a command

    # -- sending ---------------------------------------------------------------------------------------------------
    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Run a statement as the driver does, in one coroutine instead of four: each costs on the way in and out."""
        session = self._millpond
        text = sql if type(sql) is bytes else self.encoded(sql)  # or it fails, and nobody waits for a reply
        self.claim(session)
        sent = False
        try:
            session.judge(COM_QUERY, text)
            await self.send_command(COM_QUERY, text)
            sent = True
            session.sent(text)
            self._result = None
            result = self.new_result(self)
            await (start_unbuffered(result) if unbuffered else result.read())
        except Exception as error:
            self.hear_failure(error, len(text), sent=sent)
            raise
        finally:
            session.holder = 0
        self.take_in(result)
        return result.affected_rows

    async def _execute_command(self, command: int, sql: Any) -> None:
        session = self._millpond
        text = sql if type(sql) is bytes else self.encoded(sql)  # or it fails, and nobody waits for a reply
        self.claim(session)
        try:
            session.judge(command, text)
            await self.send_command(command, text)
        except BaseException:
            session.holder = 0
            raise
        session.sent(text)
        if command in UNHEARD:
            session.owed -= 1
            session.holder = 0

    def claim(self, session: Session) -> None:
        """Make sure that nobody else waits for a reply here, and say that this task does."""
        me = id(current_task())
        if session.holder and session.holder != me:
            raise used_by_two(self)
        if self._millpond_unread is not None:
            self.hear_unread()
            if self._millpond_unread is not None and self.is_awaited:  # a task that reads rows is no holder
                raise used_by_two(self)
        session.holder = me

    def encoded(self, sql: Any) -> bytes:
        """Return a text as it is sent."""
        encoding: str = self.encoding
        return sql.encode(encoding, "surrogateescape") if isinstance(sql, str) else b"".join((sql,))

    # -- hearing ---------------------------------------------------------------------------------------------------
    async def _read_query_result(self, unbuffered: bool = False) -> None:
        session = self._millpond
        self._result = None
        result = self.new_result(self)
        try:
            if unbuffered:
                await start_unbuffered(result)
            else:
                await result.read()
        except Exception as error:
            self.hear_error(error)
            raise
        finally:
            session.holder = 0
        self.take_in(result)

    def take_in(self, result: Any) -> None:
        """Keep a result, and hear what its last packet said, if that has been read."""
        self._result = result
        self._affected_rows = result.affected_rows
        if result.unbuffered_active:
            self._millpond_unread = result
        else:
            self.hear(result)

    async def _read_ok_packet(self) -> Any:
        session = self._millpond
        try:
            ok = await super()._read_ok_packet()
        except Exception as error:
            self.hear_error(error)
            raise
        finally:
            session.holder = 0
        session.note(ok.server_status, ok.warning_count)
        return ok

    async def set_charset(self, charset: str) -> None:
        """Set the character set; the driver reads the answer by itself."""
        session = self._millpond
        try:
            await super().set_charset(charset)
            session.owed -= 1
        except Exception as error:
            self.hear_error(error)
            raise
        finally:
            session.holder = 0

    async def show_warnings(self) -> Any:
        """Ask for the warnings of the last statement, of which it is still told how many rows it changed."""
        affected = self._affected_rows
        await self._execute_command(COM_QUERY, "SHOW WARNINGS")
        await self._read_query_result()
        rows = self._result.rows
        self._result, self._affected_rows = None, affected
        return rows

    def hear(self, result: Any) -> None:
        """Take in what the last packet of a result said."""
        session, status = self._millpond, result.server_status
        if status:
            self.server_status = status
        else:  # this server's results end in a way that the driver does not tell of
            session.dirt = session.dirt or "a result whose end was not told"
            status = self.server_status
        session.note(status, result.warning_count)

    def hear_unread(self) -> None:
        """Take in how an unbuffered result has ended, if it has."""
        result = self._millpond_unread
        if result is not None and not result.unbuffered_active:
            self._millpond_unread = None
            self.hear(result)

    def hear_error(self, error: Exception) -> None:
        """Take in an error; an ERR packet ends a reply, anything else leaves it where it was."""
        answered = is_of_driver(error) and self.link is not None and number_of(error) not in TOLD_HERE
        self._millpond.failed(error, answered=answered)

    def hear_failure(self, error: Exception, length: int, *, sent: bool) -> None:
        """Take in that a statement of so many bytes failed.

        Raises:
            Exception: what the server would have told, if that is why the link broke.
        """
        facts = self._millpond_plan.facts
        told = explained(error, length, float("inf") if facts is None else facts.packet_max)
        if told is error:
            if sent:  # else its reply is owed, and will not come
                self.hear_error(error)
            return
        self._millpond.failed(told, answered=False)
        self._millpond.owed = 0  # the server has had its last word
        raise told from error

    # -- what was left ---------------------------------------------------------------------------------------------
    def may_end_soon(self) -> bool:
        """Say whether a reply has begun that nobody reads, and of which not more is here than would be read."""
        session = self._millpond
        left = session.owed > 0 and not session.holder and self._result is not None and self.link is not None
        return left and not self.is_awaited and self.received <= DRAINED_BYTES_MAX

    async def finish(self) -> None:
        """Read what is left of a short reply; a procedure's ends with a packet that hardly anybody asks for."""
        session = self._millpond
        read_packet = getattr(self, "read_packet", None) or self._read_packet
        allowed = DRAINED_BYTES_MAX
        while session.owed > 0 and allowed > 0 and (result := self._result) is not None:
            if result.unbuffered_active:
                try:
                    reply = await read_packet()
                except Exception as error:
                    self.hear_error(error)
                    raise
                allowed -= len(reply.get_all_data())
                if result._check_packet_is_eof(reply):  # noqa: SLF001  the driver's own
                    result.unbuffered_active, result.connection = False, None
                    self.hear_unread()
            elif result.has_next:
                await self._read_query_result(unbuffered=True)
            else:
                return

    # -- sending ahead ---------------------------------------------------------------------------------------------
    def write_all(self, commands: Sequence[bytes]) -> None:
        """Send commands in one write; :meth:`read_reply` reads as many replies."""
        self._result = self._millpond_unread = None
        self._write_bytes(b"".join(commands))

    async def read_reply(self) -> Any:
        """Read one reply to its end, further results included; return its first, with the last status word.

        Raises:
            Exception: what the server answered, as the driver's own error.
        """
        self._next_seq_id = 1
        result = first = self.new_result(self)
        await result.read()
        while (result.server_status or 0) & MORE_RESULTS:
            result = self.new_result(self)
            await result.read()
        self.server_status = first.server_status = result.server_status or 0
        return first

    async def _request_authentication(self) -> Any:
        session = self._millpond
        if session.dirt != CONNECTING:  # its borrower had it closed, and a ping has connected it anew
            session.dirt = "another session"
            session.beyond_reset = True
        if not self.server_capabilities & CLIENT_SSL:
            if self._millpond_tls_required:
                kind = operational(self)
                raise kind(TLS_FAILED, "TLS is required, and this server has none")
            self.go_without_tls()
        return await super()._request_authentication()


async def start_unbuffered(result: Any) -> None:
    """Begin to read an unbuffered result; one that could not be begun is not to be read by its finalizer."""
    try:
        await result.init_unbuffered_query()
    except BaseException:
        result.unbuffered_active = False
        result.connection = None
        raise


async def read_or_error(conn: Any) -> Any:
    """Return a reply, or the error that it was; a link that broke is raised."""
    try:
        return await conn.read_reply()
    except Exception as error:
        if not is_of_driver(error) or conn.link is None or conn.link.is_closing():
            raise
        return error


def is_of_driver(error: BaseException) -> bool:
    """Say whether an error is one of the driver's own, by the classes of PEP 249."""
    return any(kind.__name__ == "MySQLError" for kind in type(error).__mro__)


def operational(conn: Any) -> Any:
    """Return the driver's class of operational errors."""
    return getattr(conn, "OperationalError", ConnectionError)


def used_by_two(conn: Any) -> ConcurrentUse:
    """Return the error that names both tasks."""
    names = {id(task): task.get_name() for task in asyncio.all_tasks()}
    session: Session = conn._millpond  # noqa: SLF001  our own
    task = asyncio.current_task()
    this = task.get_name() if task is not None else "a callback"
    how = f"another task reads rows over it, and {this!r} came in between"
    if session.holder:
        other = names.get(session.holder, "a task that has ended")
        how = f"{other!r} waits for a reply on it, and {this!r} sent a command"
    advice = "Let each task take its own connection from the pool."
    text = f"two tasks used one connection at the same time: {how}. {advice}"
    return joined(ConcurrentUse, getattr(conn, "InterfaceError", None))(text)


def refuse_without(parts: frozenset[str], kind: type[Any], driver: str) -> None:
    """Say so if a driver's class of connections lacks private parts that listening needs.

    Raises:
        DriverUnsuitable: it does; a session would pass for clean whatever was done with it.
    """
    missing = sorted(parts - set(dir(kind)))
    if missing:
        raise DriverUnsuitable(f"this version of {driver} cannot be listened to: it lacks {', '.join(missing)}")
