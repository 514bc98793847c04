"""What the adapters of asyncio's MySQL drivers share: connections that listen, and sessions made as good as new.

Why: asyncmy and aiomysql descend from PyMySQL and have kept its inner names.  So one mixin makes the connections of
both keep what every reply says (:class:`~millpond.drivers._session.Session`), and the steps of
:class:`~millpond.drivers._pymysql_plan.Plan` are held by tasks as they are by threads.

Rules:
- A connection that was cancelled while it waited for a reply owes that reply, and is never used again.
- Nothing is written behind a command whose answer is out: a session that was reset ahead waits for its answers first.
- A session whose driver does not tell how a result ended is never proved clean: it is rolled back at every return.
- A statement that nobody waits for any more is ended by a side connection, one at a time and outside the pool's size;
  never the session of a server that has begun to count anew (its own number would be the lower one).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import operator
import select
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from millpond.errors import ConcurrentUse, InvalidSetting, joined
from millpond.url import MYSQL_OPTIONS, SSL_MODES, Parser

from ._pymysql_plan import CLIENT_SESSION_TRACK, Plan, Steps
from ._session import COM_QUERY, IN_TRANSACTION, MORE_RESULTS, Session, Way, packet
from .aio import AiodbDriver, Remaining, answer_of
from .dbapi import OnConnect, Reset, shut_down
from .faults import number_of

T = TypeVar("T")
COM_QUIT: Final = packet(0x01)
UNHEARD: Final = frozenset({0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0xFA})  # prepared statements read by themselves
SILENT: Final = frozenset({0x18, 0x19})  # of these, those that are not answered
ANSWER_S: Final = 2.0  # the rest of an answer that has begun to come
FAREWELL_S: Final = 0.5
KILL_S: Final = 10.0  # the side connection, and each order to end a statement
KILLS_MAX: Final = 1000  # statements waiting to be ended; more than that is an outage, and they end by themselves
CONNECTING: Final = "connecting"
TOLD_HERE: Final = range(2000, 3000)  # errors that no server sends: drivers have made them themselves
current_task = asyncio.current_task
CLIENT_SSL: Final = 1 << 11
TLS_FAILED: Final = 2026  # CR_SSL_CONNECTION_ERROR
TLS_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password")

if TYPE_CHECKING:

    class _Base:
        """What the mixin needs of a driver's connection, private parts included."""

        server_status: int
        server_capabilities: int
        _result: Any
        _affected_rows: Any
        _next_seq_id: int

        async def _read_ok_packet(self) -> Any: ...
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
        try:
            session.judge(COM_QUERY, text)
            await self.send_command(COM_QUERY, text)
            session.sent(text)
            self._result = None
            result = self.new_result(self)
            try:
                await (start_unbuffered(result) if unbuffered else result.read())
            except Exception as error:
                self.hear_error(error)
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
        """Ask for the warnings of the last statement."""
        await self._execute_command(COM_QUERY, "SHOW WARNINGS")
        await self._read_query_result()
        return self._result.rows

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
        if not self.server_capabilities & CLIENT_SSL:
            if self._millpond_tls_required:
                kind = operational(self)
                raise kind(TLS_FAILED, "TLS is required, and this server has none")
            self.go_without_tls()
        return await super()._request_authentication()


class Severed:
    """What a lease tracks of a cursor: closing it takes its connection away."""

    __slots__ = ("_cursor", "_driver")

    def __init__(self, driver: AsyncMySQLDriver, cursor: Any) -> None:
        self._driver = driver
        self._cursor = cursor

    def close(self) -> None:
        """Let the cursor say that it is closed."""
        self._driver.sever(self._cursor)


async def start_unbuffered(result: Any) -> None:
    """Begin to read an unbuffered result; one that could not be begun is not to be read by its finalizer."""
    try:
        await result.init_unbuffered_query()
    except BaseException:
        result.unbuffered_active = False
        result.connection = None
        raise


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
    other = names.get(session.holder, "a task that has ended")
    text = (
        f"two tasks used one connection at the same time: {other!r} waits for a reply on it, and {this!r} sent a "
        "command. Let each task take its own connection from the pool."
    )
    return joined(ConcurrentUse, getattr(conn, "InterfaceError", None))(text)


class Killer:
    """Ends statements that nobody waits for any more, over one side connection that lives while there are any."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._victims: deque[int] = deque(maxlen=KILLS_MAX)
        self._works = False

    async def kill(self, thread_id: int) -> None:
        """End a session; best effort, whoever calls second leaves it to the first."""
        self._victims.append(thread_id)
        if self._works:
            return
        self._works = True
        try:
            conn = await asyncio.wait_for(self._connect(), KILL_S)
            try:
                while self._victims:
                    await self._kill_one(conn, self._victims[0])
                    self._victims.popleft()
            finally:
                conn.close()
        finally:
            self._works = False

    @staticmethod
    async def _kill_one(conn: Any, victim: int) -> None:
        if victim >= conn.thread_id():  # this server has been started since, and counts anew
            return
        with contextlib.suppress(Exception):  # it has ended meanwhile
            await asyncio.wait_for(conn.query(f"KILL {victim}"), KILL_S)


class AsyncMySQLDriver(AiodbDriver[Any], abc.ABC):
    """What the adapters of asyncmy and aiomysql have in common."""

    options: ClassVar[Mapping[str, Parser]] = {
        name: read for name, read in MYSQL_OPTIONS.items() if name not in ("bind_address", "write_timeout")
    }
    unread_survives = True
    tracks_cursors = False  # they are cut off where a return is looked at: see cut_off
    #: What a borrower can change on the connection object without a word to the server.
    looks: ClassVar[tuple[str, ...]] = ()
    #: Our names of what is set at connect -> the driver's; set aside while it connects.
    set_aside: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        source: Any = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        super().__init__(source, connect_args=connect_args, reset=reset, on_connect=on_connect, described=described)
        arguments = self._connect_args
        self._dials = self._connect is getattr(self.module, "connect", None)
        self._time_zone: str | None = arguments.pop("time_zone", None) if self._dials else None
        self._tls: ssl.SSLContext | None = None
        self._tls_required = False
        if self._dials:
            self._take_tls(arguments)
        statements: tuple[str, ...] = () if callable(self._on_connect) else self._on_connect or ()
        self._plan = Plan(time_zone=self._time_zone, statements=statements, ahead=True, clock=time.monotonic)
        self._killer = Killer(self._connect_beside)
        self._look_at: Callable[[Any], Any] = operator.attrgetter(*self.looks)
        self._new_poll = getattr(select, "poll", None)
        # Where nobody asks at a return whether the session is clean, the pool cuts cursors off one by one.
        self.tracks_cursors = not self._dials or callable(self._reset) or self._reset == "none"
        self.is_readable = self._is_readable
        if self._dials and not callable(self._reset):
            self.send_reset = self._send_reset if self._reset != "none" else None
            self.is_clean = self._is_clean if self._reset in ("auto", "rollback") else None

    @classmethod
    @abc.abstractmethod
    def connection_class(cls) -> type[Any]:
        """Return the class of connections that listen."""

    # -- opening ---------------------------------------------------------------------------------------------------
    def _take_tls(self, arguments: dict[str, Any]) -> None:
        """Make one TLS context for all connections: making one costs some 50 ms of CPU, a connect a few."""
        mode = arguments.get("ssl")
        if arguments.pop("ssl_disabled", False) or mode == "disabled":
            arguments.pop("ssl", None)
        elif isinstance(mode, str) or any(arguments.get(name) for name in TLS_FILES):
            if isinstance(mode, str) and mode not in SSL_MODES:
                raise InvalidSetting("ssl", mode, f"one of {', '.join(SSL_MODES)}, or what the driver's connect takes")
            self._tls = context_of(arguments, str(mode or "verify-ca"))
            self._tls_required = mode != "preferred"
            arguments["ssl"] = self._tls
        elif mode is not None:
            self._tls_required = True
        for name in (*TLS_FILES, "ssl_verify_cert", "ssl_verify_identity"):
            arguments.pop(name, None)

    async def open(self, until: float) -> Any:
        """Connect, and set the session up in one write and one wait."""
        arguments = await self.fresh_arguments()
        if not self._dials:
            conn = await answer_of(self._connect(**arguments))
            await self._set_up_plainly(conn)
            return conn
        return await self._led(arguments, self._dial)

    async def _led(self, arguments: dict[str, Any], leads: Callable[[Any], Awaitable[None]]) -> Any:
        """Make a connection, and have *leads* connect it; one that fails at that is closed."""
        conn = self._new(arguments)
        try:
            await leads(conn)
        except BaseException:
            hang_up(conn, conn.link, runs=False)
            raise
        return conn

    def _new(self, arguments: dict[str, Any]) -> Any:
        """Make a connection that listens, and does not lead anywhere yet."""
        conn = self.connection_class()(**arguments)
        conn._millpond_tls_required = self._tls_required  # noqa: SLF001  our own
        conn._millpond = Session()  # noqa: SLF001
        conn._millpond_cursors = []  # noqa: SLF001
        conn._millpond.dirt = CONNECTING  # noqa: SLF001
        return conn

    async def _dial(self, conn: Any) -> None:
        session: Session = conn._millpond  # noqa: SLF001  our own
        held = {name: getattr(conn, name) for name in self.set_aside}
        for name, nothing in self.set_aside.items():
            setattr(conn, name, nothing)
        self.add_flags(conn, CLIENT_SESSION_TRACK)
        await self.shake_hands(conn)
        session.owed = session.holder = 0
        for name, value in held.items():
            setattr(conn, name, value)
        await self._hold(conn, self._plan.setting_up(conn))
        if callable(self._on_connect):
            await answer_of(self._on_connect(conn))
            session.take_in_set_up()
            await self._hold(conn, self._plan.beginning(conn, session, tracking=session.tracked))
        if not self.tells_ends(conn):
            session.way = Way.DEAF
            session.renew(session.status)
        session.looks = self._look_at(conn)

    @abc.abstractmethod
    def add_flags(self, conn: Any, flags: int) -> None:
        """Ask the server for more, before the handshake."""

    @abc.abstractmethod
    async def shake_hands(self, conn: Any) -> None:
        """Connect as the driver does."""

    def tells_ends(self, conn: Any) -> bool:
        """Say whether the driver tells how each result ends."""
        return True

    async def _set_up_plainly(self, conn: Any) -> None:
        """Run what is to be run on a connection that somebody else has made."""
        if callable(self._on_connect):
            await answer_of(self._on_connect(conn))
        elif self._on_connect is not None:
            for statement in self._on_connect:
                await conn.query(statement)
            await conn.commit()

    async def _connect_beside(self) -> Any:
        """Open a connection beside the pool's; TLS that is required is required of it as well."""
        arguments = await self.fresh_arguments()
        if not self._dials:
            return await answer_of(self._connect(**arguments))
        return await self._led(arguments, self.shake_hands)

    async def _hold(self, conn: Any, steps: Steps[T]) -> T:
        """Send what the steps ask for, and tell them the replies."""
        try:
            commands = next(steps)
            while True:
                conn.write_all(commands)
                commands = steps.send([await read_or_error(conn) for _ in commands])
        except StopIteration as end:
            result: T = end.value
            return result

    # -- using -----------------------------------------------------------------------------------------------------
    async def is_alive(self, conn: Any, until: float) -> bool:
        """Ping, without reconnecting."""
        try:
            await conn.ping(reconnect=False)
        except Exception:  # noqa: BLE001  whatever it is, this connection has not answered
            return False
        return True

    def _is_clean(self, conn: Any) -> bool:
        """Say whether the session is proved to be as good as new; without I/O, at every return."""
        if conn._millpond_cursors:  # noqa: SLF001  our own
            self.cut_off(conn)
        session: Session = conn._millpond  # noqa: SLF001  our own
        if conn._millpond_unread is not None:  # noqa: SLF001
            conn.hear_unread()
        if session.dirt or session.owed or session.status & IN_TRANSACTION or self._look_at(conn) != session.looks:
            return False
        conn._result = None  # noqa: SLF001  else an idle connection would keep all rows of its last statement
        return conn.link is not None  # its borrower may have closed it

    async def clean(self, conn: Any, until: float) -> bool:
        """Make the session as good as new."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:  # nothing is known of it
            await conn.rollback()
            return True
        commands = self._cleaning(conn, session)
        if isinstance(commands, bool):
            return commands
        conn.write_all(commands)
        return await self._is_good(conn, session, [await read_or_error(conn) for _ in commands])

    def _send_reset(self, conn: Any) -> bool | None:
        """Send what makes the session as good as new; :meth:`collect` reads the answers."""
        session: Session = conn._millpond  # noqa: SLF001  our own
        commands = self._cleaning(conn, session)
        if isinstance(commands, bool):
            return commands
        try:
            conn.write_all(commands)
        except Exception:  # noqa: BLE001  the link is gone
            session.lost = True
            return False
        session.answers = len(commands)
        session.sent_at = time.monotonic()
        return None

    def _cleaning(self, conn: Any, session: Session) -> list[bytes] | bool:
        """Return what is to be sent; True if nothing, False if nothing would help."""
        self.cut_off(conn)
        if conn.link is None:
            return False
        return self._plan.cleaning(
            conn,
            session,
            self._reset,
            is_clean=self._is_clean(conn),
            keeps_looks=self._look_at(conn) == session.looks,
            restore=functools.partial(self._restore_looks, conn, session),
        )

    def _restore_looks(self, conn: Any, session: Session) -> None:
        """Give the connection object its first settings back, and forget what a reset takes from the server's side."""
        for name, value in zip(self.looks, session.looks, strict=True):
            if getattr(conn, name) is not value:
                setattr(conn, name, value)
        self.forget_statements(conn)

    def note_cursor(self, conn: Any, cursor: Any, lease: Any) -> None:
        """Have a cursor cut off when its connection is given back."""
        if self.tracks_cursors:
            lease._track(Severed(self, cursor))  # noqa: SLF001  the lease's side of the same machinery
        else:
            conn._millpond_cursors.append(cursor)  # noqa: SLF001  our own

    def cut_off(self, conn: Any) -> None:
        """Let the cursors that were lent say that they are closed; nothing is waited for."""
        for cursor in conn._millpond_cursors:  # noqa: SLF001  our own
            self.sever(cursor)
        conn._millpond_cursors.clear()  # noqa: SLF001

    @abc.abstractmethod
    def sever(self, cursor: Any) -> None:
        """Take a cursor's connection away."""

    def forget_statements(self, conn: Any) -> None:
        """Forget what a reset takes from the server's side of the connection."""

    async def collect(self, conn: Any, until: float) -> bool | None:
        """Read the answers to what was sent, if they come by *until*; then look whether anything else has come."""
        session: Session = conn._millpond  # noqa: SLF001  our own
        if session.lost or conn.link is None:  # by whoever was called away in the middle of reading it
            return False
        if not await self._comes(conn, until):
            return None
        try:
            good = await self._is_good(conn, session, [await read_or_error(conn) for _ in range(session.answers)])
        except BaseException as error:
            session.lost = True
            if isinstance(error, Exception):  # whatever it is, the answer was not that all is well
                return False
            session.answers = 0  # whoever was called away says nothing against resets
            raise
        return good and not self._is_readable(conn)

    async def _comes(self, conn: Any, until: float) -> bool:
        """Wait until something has come; a wait that is cancelled has read nothing."""
        if conn.has_news():
            return True
        waiting = asyncio.get_running_loop().create_task(conn.await_news())
        try:
            await asyncio.wait((waiting,), timeout=max(0.0, until - time.monotonic()))
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))  # or it would still be in the way of the next who reads
        return bool(conn.has_news())

    async def _is_good(self, conn: Any, session: Session, replies: list[Any]) -> bool:
        """Judge the answers, and begin the session anew."""
        if not await self._hold(conn, self._plan.judging(conn, replies)):
            return False
        if callable(self._on_connect) and len(replies) > 1:
            await answer_of(self._on_connect(conn))
            await self._hold(conn, self._plan.beginning(conn, session, tracking=session.tracked))
            session.looks = self._look_at(conn)
        return True

    def close(self, conn: Any) -> Awaitable[object] | None:
        """Say goodbye without waiting, and close; what runs on the server for nobody any more is ended there."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is not None:
            self._plan.given_up(session)
        runs = session is not None and session.owed > 0 and session.dirt != CONNECTING
        if session is not None and session.lost:  # the server has ended it, or is out of reach; but for a link cut here
            runs = runs and conn._millpond_cut  # noqa: SLF001  our own
        thread_id = conn.thread_id() if runs else 0
        link = conn.link if session is not None else None
        wait_gone = conn.wait_gone if link is not None else None
        hang_up(conn, link, runs=runs)
        if link is None and not runs:
            return None
        return Remaining(functools.partial(self._see_off, link, wait_gone, thread_id))

    async def _see_off(self, link: Any, wait_gone: Callable[[], Awaitable[None]] | None, thread_id: int) -> None:
        """Wait until what was written has gone, and end what runs."""
        if thread_id:
            with contextlib.suppress(Exception):  # no side connection is to be had: it ends by itself
                await self._killer.kill(thread_id)
        if wait_gone is not None:
            going = asyncio.ensure_future(quietly(wait_gone))
            try:
                await asyncio.wait((going,), timeout=FAREWELL_S)
            finally:
                if not going.done():
                    going.cancel()
                    link.abort()

    # -- capabilities ----------------------------------------------------------------------------------------------
    def fileno(self, conn: Any) -> int | None:
        """Return the socket's descriptor."""
        link = getattr(conn, "link", None)
        sock = None if link is None else link.get_extra_info("socket")
        try:
            fd = -1 if sock is None else sock.fileno()
        except (OSError, AttributeError):
            return None
        return fd if fd >= 0 else None

    def _is_readable(self, conn: Any) -> bool:
        """Look at what the loop has received, then poll the descriptor: an idle server says nothing."""
        if not isinstance(conn, AsyncListening):
            return bool(getattr(conn, "closed", False))
        if conn.link is None or conn.link.is_closing() or conn.has_news():
            return True
        poll = conn._millpond_poll  # noqa: SLF001  our own
        if poll is None:
            fd = self.fileno(conn)
            if fd is None or self._new_poll is None:
                return False
            poll = conn._millpond_poll = self._new_poll()  # noqa: SLF001
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether a command waits for its reply, or a reply for a reader."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:
            return None
        conn.hear_unread()
        return session.owed > 0 or conn.link is None

    def uncommitted(self, conn: Any) -> bool:
        """Say whether writes would be lost by a rollback now."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:  # the last OK packet's word: after writes it is right
            return bool(getattr(conn, "server_status", 0) & IN_TRANSACTION)
        return session.uncommitted and conn.link is not None

    def is_broken(self, conn: Any) -> bool:
        """Say whether the link was seen to break while it was used; not if its borrower has closed it."""
        session: Session | None = getattr(conn, "_millpond", None)
        return session is not None and session.lost

    def role_suspect(self, conn: Any) -> bool:
        """Say whether an error told that the server may have become read-only."""
        session: Session | None = getattr(conn, "_millpond", None)
        return session is not None and session.role_suspect

    async def has_lost_role(self, conn: Any, until: float) -> bool:
        """Ask whether the server, which took writes once, takes none now."""
        try:
            return await self._hold(conn, self._plan.asking_role())
        except Exception:  # noqa: BLE001  it has not answered: that is no proof
            return False

    def reset_way(self) -> str:
        """Return how sessions are made as good as new, as far as this is known yet; for people."""
        if callable(self._reset) or self._reset in ("none", "rollback"):
            return ""
        if not self._dials:
            return Way.DEAF.value
        return "" if self._plan.facts is None else self._plan.facts.way.value

    def cut(self, conn: Any) -> bool:
        """Shut the socket down under whoever reads from it; what runs is ended when the connection is closed."""
        if isinstance(conn, AsyncListening):
            conn._millpond_cut = True  # noqa: SLF001  our own
        fd = self.fileno(conn)
        return fd is not None and shut_down(fd)


def hang_up(conn: Any, link: Any, *, runs: bool) -> None:
    """Say goodbye, unless the server is busy with what was sent before, and close."""
    if link is not None and not runs and not link.is_closing():
        with contextlib.suppress(Exception):
            link.write(COM_QUIT)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        conn.close()


async def quietly(wait_gone: Callable[[], Awaitable[None]]) -> None:
    """Wait until a socket was let go of; that its link was broken before is no news."""
    with contextlib.suppress(Exception):
        await wait_gone()


async def read_or_error(conn: Any) -> Any:
    """Return a reply, or the error that it was; a link that broke is raised."""
    try:
        return await conn.read_reply()
    except Exception as error:
        if not is_of_driver(error) or conn.link is None or conn.link.is_closing():
            raise
        return error


def context_of(arguments: Mapping[str, Any], mode: str) -> ssl.SSLContext:
    """Return the TLS context for one of our modes."""
    context = ssl.create_default_context(cafile=arguments.get("ssl_ca"))
    # Python 3.13 made this the default, and the certificates that servers make for themselves do not pass it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == "verify-identity" or bool(arguments.get("ssl_verify_identity"))
    if mode in ("preferred", "required"):
        context.verify_mode = ssl.CERT_NONE
    if arguments.get("ssl_cert") is not None:
        context.load_cert_chain(arguments["ssl_cert"], arguments.get("ssl_key"), arguments.get("ssl_key_password"))
    return context
