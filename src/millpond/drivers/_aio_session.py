"""What the adapters of asyncio's MySQL drivers share: sessions set up, made as good as new, and given up.

Why: the connections of both keep what every reply says (``_aio_listening.py``), so the steps of
:class:`~millpond.drivers._pymysql_plan.Plan` are held by tasks as they are by threads.

Rules:
- Nothing is written behind a command whose answer is out: a session that was reset ahead waits for its answers first.
- A session whose driver does not tell how a result ended is never proved clean: it is rolled back at every return.
- How connections are parted with is in ``_aio_parting.py``.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import operator
import select
import ssl
import sys
import time
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from millpond.errors import InvalidSetting
from millpond.url import MYSQL_OPTIONS, SSL_MODES, Parser

from ._aio_listening import AsyncListening, read_or_error
from ._aio_parting import Killer, Leaving, hang_up
from ._pymysql_plan import CLIENT_SESSION_TRACK, Plan, Steps
from ._session import CONNECTING, IN_TRANSACTION, Session, Way
from ._watchdog import shut_down
from .aio import AiodbDriver, answer_of
from .faults import is_of_tls
from .settings import OnConnect, Reset

T = TypeVar("T")
CURSORS = 64  # lent over one connection before those that nobody has any more are weeded out
TLS_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password")


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
        self._make_tls: Callable[[], ssl.SSLContext] | None = None
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
            files = {name: arguments.get(name) for name in (*TLS_FILES, "ssl_verify_identity")}
            self._make_tls = functools.partial(context_of, files, str(mode or "verify-ca"))
            self._tls_required = mode != "preferred"
            arguments["ssl"] = self._make_tls()
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
        except BaseException as error:
            hang_up(conn, conn.link, runs=False)
            if self._make_tls is not None and is_of_tls(error):
                with contextlib.suppress(OSError):  # files are just being replaced: the next failure reads them again
                    self._connect_args["ssl"] = self._make_tls()
            raise
        return conn

    def _new(self, arguments: dict[str, Any]) -> Any:
        """Make a connection that listens, and does not lead anywhere yet."""
        conn = self.connection_class()(**arguments)
        conn._millpond_tls_required = self._tls_required  # noqa: SLF001  our own
        conn._millpond = Session()  # noqa: SLF001  our own
        conn._millpond_plan = self._plan  # noqa: SLF001  our own
        conn._millpond_cursors = []  # noqa: SLF001  our own
        conn._millpond.dirt = CONNECTING  # noqa: SLF001  our own
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
        if conn._millpond_unread is not None:  # noqa: SLF001  our own
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
            lent: list[Any] = conn._millpond_cursors  # noqa: SLF001  our own
            lent.append(cursor)
            if len(lent) >= CURSORS:
                self.weed(lent)

    def weed(self, lent: list[Any]) -> None:
        """Forget the cursors that nobody can use any more: a connection may be lent for a million statements."""
        if not len(lent) & (len(lent) - 1):  # at each power of two
            lent[:] = in_use(lent)

    def cut_off(self, conn: Any) -> None:
        """Let the cursors that were lent say that they are closed; nothing is waited for."""
        for cursor in conn._millpond_cursors:  # noqa: SLF001  our own
            self.sever(cursor)
        conn._millpond_cursors.clear()  # noqa: SLF001  our own

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
        if not waiting.cancelled():
            waiting.exception()  # a link that broke is news like any other
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
        link = conn.link if session is not None else None
        # Where no loop runs there is nobody to hear an answer out.
        hears_out = link is not None and not runs and session is not None and session.answers > 0
        hears_out = hears_out and _get_running_loop() is not None
        wait_gone = conn.wait_gone if link is not None else None
        kill: Callable[[], Awaitable[None]] | None = None
        if runs and session is not None and session.way is not Way.ROLLBACK:  # a proxy's number is nobody's there
            kill = functools.partial(self._killer.kill, conn.thread_id())
        hang_up(conn, link, runs=runs, hears_out=hears_out)
        return Leaving(link, wait_gone, conn if hears_out else None, kill) or None

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
            poll = conn._millpond_poll = self._new_poll()  # noqa: SLF001  our own
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether a command waits for its reply, or a reply for a reader."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:
            return None
        conn.hear_unread()
        return session.owed > 0 or conn.link is None

    def may_end_soon(self, conn: Any) -> bool:
        """Say whether a reply that its borrower has left may be read to its end in a moment."""
        return isinstance(conn, AsyncListening) and conn.may_end_soon()

    async def finish(self, conn: Any) -> None:
        """Read it to its end; whoever is called away from that has closed the link."""
        await conn.finish()

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


class Severed:
    """What a lease tracks of a cursor: closing it takes its connection away."""

    __slots__ = ("_cursor", "_driver")

    def __init__(self, driver: AsyncMySQLDriver, cursor: Any) -> None:
        self._driver = driver
        self._cursor = cursor

    def close(self) -> None:
        """Let the cursor say that it is closed."""
        self._driver.sever(self._cursor)

    def unless_dropped(self) -> Severed | None:
        """Return it, or None if nobody else has the cursor any more; leases ask from time to time."""
        return self if references is None or self.holders() > UNHELD.holders() else None

    def holders(self) -> int:
        """Count who has the cursor."""
        assert references is not None, "bug: nobody counts here"
        return references(self._cursor)


# CPython's count: asyncmy's cursors allow no weak references.  Elsewhere all are kept until the return.
references: Callable[[Any], int] | None = getattr(sys, "getrefcount", None)
UNHELD: Final = Severed(None, object())  # type: ignore[arg-type]  # for its holders, of which it is the only one


def in_use(cursors: list[Any]) -> list[Any]:
    """Return those that somebody may still run a statement on: whoever holds one, besides the list itself."""
    if references is None:
        return cursors
    unheld = object()
    held = [references(cursor) for cursor in (*cursors, unheld)]
    return [cursor for cursor, times in zip(cursors, held, strict=False) if times > held[-1]]
