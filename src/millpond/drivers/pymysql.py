"""PyMySQL, to the limit of what it can be asked and told.

What this adapter does better than ``pymysql.connect`` and any DB-API adapter:
- It listens: what the server says of the session unasked, and what was sent, tell whether a session is as good as new.
  A clean one costs nothing at return; for any other the cleaning is sent at return, and its answer read at the next
  checkout.
- One deadline bounds a whole dial.  PyMySQL's ``connect_timeout`` covers TCP only, each address anew, and a server that
  accepts and stays silent is waited for without end; here the socket is ours, and each packet has what is left.
- One TLS context for all connections, and TLS sessions that are resumed where the server does that: making a context
  costs 45 to 90 ms of CPU, an ordinary connect 1 ms.  The set-up is one write and one wait.
- A poll of the descriptor tells a connection that the server has closed; the check of an idle one has a deadline.
- A reply that was left unread is seen: a short one is read to its end, a long one costs the connection.

Rules: PyMySQL's private parts are used where :class:`Parts` and :func:`can_listen` have found them, and nowhere else;
without them connections are overheard by public methods (``_pymysql_overhearing.py``), and dirt costs the connection.
PyMySQL 1.1 and 1.2 differ in TLS: 1.1 has none unless asked and, asked for it, goes on in the clear with a server that
has none; 1.2 uses it where the server can.  What was asked for as "required" is required with both.  How to connect is
in ``_pymysql_dialling.py``, what a session is set up and restored with in ``_pymysql_plan.py``, how a connection
listens in ``_pymysql_session.py``, what has come unasked in ``_pymysql_news.py``, and what its borrower may change on
it in ``_pymysql_looks.py``.
"""

from __future__ import annotations

import contextlib
import functools
import time
import types
from _thread import get_ident
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from millpond._cursors import CursorClasses
from millpond.errors import DriverMissing
from millpond.url import MYSQL_OPTIONS, Parser, boolean

from ._pymysql_dialling import ANSWER_S, Dialler, patient, take_mode, within
from ._pymysql_news import await_news, has_news, has_unread, is_quiet
from ._session import FAREWELL_S, IN_TRANSACTION, Session, Way
from ._watchdog import shut_down, unpatched_poll
from .dbapi import DbapiDriver, connection_of, run
from .settings import OnConnect, Reset

try:
    import pymysql
    from pymysql.connections import Connection
    from pymysql.cursors import SSCursor

    from . import _pymysql_overhearing as overhearing
    from ._pymysql_looks import keep_looks, look_at, restore_looks
    from ._pymysql_plan import CLIENT_SESSION_TRACK, ROLLBACK, Plan, read_or_error
    from ._pymysql_session import (
        Listening,
        can_listen,
        converted,
        fetch,
        listening,
    )
except ModuleNotFoundError as missing:
    raise DriverMissing('PyMySQL is not installed; install it with: pip install "millpond[pymysql]"') from missing

DRAIN_S = 0.05  # for what a borrower left unread; more of it costs the connection
OVERDUE_S = 1.0  # a ROLLBACK of what wrote nothing is answered at once, or the link is dead


class PyMySQLDriver(DbapiDriver):
    """Adapter for PyMySQL 1.1 and later.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`; ``connect_args`` are those of ``pymysql.connect``, where
        ``ssl`` may also be one of "disabled", "preferred", "required", "verify-ca" and "verify-identity",
        ``time_zone`` sets the session's, and ``write_ahead=False`` waits for each answer before the next command is
        written (for servers that cannot take several, such as Aurora MySQL 2).
    """

    name = "pymysql"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes, for dial, check and reset; host names are looked up by the system, which cannot be ended",
        "alive": "poll of the descriptor; COM_PING under a deadline",
        "clean": "yes: by statements, status words, warnings and errors (docs/session-cleanliness.md)",
        "reset": "COM_RESET_CONNECTION and all that it forgets, sent at return and read at the next checkout; "
        "ROLLBACK where nothing else is left",
        "in flight": "yes: short replies are read to their end, long ones cost the connection; two threads are told",
        "cut": "its descriptor is shut down",
        "errors": "by number",
        "private parts": "_sock, _result, _read_packet, _write_bytes, _execute_command and others of the connection: "
        "all in drivers/_pymysql_*.py, and proved once; without them a session that did more than read is replaced",
    }
    options: ClassVar[Mapping[str, Parser]] = {**MYSQL_OPTIONS, "write_ahead": boolean}
    #: Use PyMySQL's private parts where they are as expected.  A subclass may say no: then there are no resets.
    private_parts: ClassVar[bool] = True

    def __init__(
        self,
        source: types.ModuleType | Callable[..., Any] | None = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        super().__init__(source, connect_args=connect_args, reset=reset, on_connect=on_connect, described=described)
        self.module = pymysql
        self._dials = isinstance(self._given, types.ModuleType)
        arguments = self._connect_args
        ahead: bool = arguments.pop("write_ahead", True)
        statements: tuple[str, ...] = () if self._on_connect is None or callable(self._on_connect) else self._on_connect
        self._time_zone: str | None = arguments.pop("time_zone", None) if self._dials else None
        mode = take_mode(arguments) if self._dials else None
        self._overhears = True
        self._plan = Plan(time_zone=self._time_zone, statements=statements, ahead=ahead, clock=time.monotonic)
        self._listens = self.private_parts and can_listen(self._connect if self._dials else Connection)
        if self._listens and self._dials:
            kind: Any = self._connect
            self._connect = listening(kind)
        self._dialler = Dialler(self._connect, module=pymysql, mode=mode, prepare=self._prepare)
        if self._listens:
            self.fetch = fetch
        if self._listens and not callable(self._reset):
            self.is_clean = self._is_clean if self._reset in ("auto", "rollback") else None
            self.send_reset = self._send_reset if ahead else None
        if unpatched_poll() is not None:
            self.is_readable = self._is_readable

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Return PyMySQL."""
        return pymysql

    def cursor_classes(self) -> CursorClasses:
        """Unbuffered cursors read from the connection by themselves; the others have their rows already."""
        return CursorClasses(sever=detach, tracked=lambda kind: issubclass(kind, SSCursor))

    # -- opening ---------------------------------------------------------------------------------------------------
    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect by *until*, host names aside: TCP, TLS and handshake together."""
        if not self._dials:
            return connection_of(self._connect(**arguments))
        dial = self._dialler.dial if self.private_parts else self._dialler.plainly_dialled
        return dial(arguments, until)

    def _prepare(self, conn: Any) -> None:
        """Have a connection that is about to be made listen from its first packet on."""
        if self._listens:
            conn.client_flag |= CLIENT_SESSION_TRACK
            conn._millpond_plan = self._plan  # noqa: SLF001  our own

    def set_up(self, conn: Any, until: float) -> None:
        """Finish the set-up under the dial's deadline; of a connection that listens most is done."""
        if self._listens and not isinstance(conn, Listening) and not self._dials:
            converted(conn)
        if self.fileno(conn) is None:
            self.is_readable = None
        if not isinstance(conn, Listening):
            self._listens = False  # whoever makes these connections, nothing can be proved of them
            self.is_clean = self.send_reset = None
            self._set_up_plainly(conn, until)
            self._overhears = overhearing.overhear(conn)
            return
        heard: Any = conn
        session = heard._millpond  # noqa: SLF001  our own
        if not self._dials or callable(self._on_connect):  # for any other all is done
            with within(heard, until):
                if not self._dials:
                    self._plan.adopt(heard, self._another)
                if callable(self._on_connect):
                    self._on_connect(heard)
                    session.take_in_set_up()
                    self._plan.begin(heard, session, tracking=session.tracked)
        keep_looks(heard)

    def _another(self) -> Any | None:
        """Make one more connection by the caller's callable, that listens."""
        conn = self._connect(**self.fresh_arguments())
        return conn if converted(conn) else None

    def _set_up_plainly(self, conn: Any, until: float) -> None:
        """Set the time zone, and run ``on_connect``."""
        with within(conn, until):
            if self._time_zone is not None:
                with conn.cursor() as cursor:
                    cursor.execute("SET time_zone = %s", (self._time_zone,))
            if callable(self._on_connect):
                self._on_connect(conn)
            elif self._on_connect is not None:
                run(conn, self._on_connect)
                if getattr(conn, "server_status", IN_TRANSACTION) & IN_TRANSACTION:
                    conn.commit()

    # -- using -----------------------------------------------------------------------------------------------------
    def is_alive(self, conn: Any, until: float) -> bool:
        """Ping by *until*, without reconnecting."""
        try:
            with within(conn, until):
                conn.ping(reconnect=False)
        except Exception:  # noqa: BLE001  whatever it is, this connection has not answered
            return False
        return True

    def _is_clean(self, conn: Any) -> bool:
        """Say whether the session is proved to be as good as new; without I/O, at every return."""
        try:
            session: Session = conn._millpond  # noqa: SLF001  our own
        except AttributeError:
            return False
        if session.dirt or session.owed or session.status & IN_TRANSACTION or look_at(conn) != session.looks:
            return False
        conn._result = None  # noqa: SLF001  else an idle connection would keep all rows of its last statement
        return True

    def clean(self, conn: Any, until: float) -> bool:
        """Make the session as good as new by *until*."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:
            with within(conn, until):
                return self._clean_overheard(conn)
        commands = self._cleaning(conn, session)
        if isinstance(commands, bool):
            return commands
        with within(conn, until):
            if not self._plan.ahead:
                return self._is_good(conn, session, self._plan.converse(conn, commands))
            if self._is_rollback_ahead(session, commands):
                conn.write_rollback()
                return True
            return self._is_good(conn, session, self._plan.converse(conn, commands))

    def _clean_overheard(self, conn: Any) -> bool:
        """Roll back, and give the connection up if that is not all: without listening there are no resets."""
        conn.rollback()
        overheard = overhearing.session_of(conn)
        if overheard is None or self._reset == "rollback":
            return True
        if self._reset == "always" or not overhearing.is_as_new(conn):
            return False
        conn.query(overhearing.FORGET_WARNINGS)
        overheard.renew(0)
        return True

    def _send_reset(self, conn: Any) -> bool | None:
        """Send what makes the session as good as new; :meth:`collect` reads the answers, or the next command does."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:
            return self.clean(conn, time.monotonic() + ANSWER_S)
        commands = self._cleaning(conn, session)
        if isinstance(commands, bool):
            return commands
        try:
            if len(commands) == 1 and self._is_rollback_ahead(session, commands):
                conn.write_rollback()
                return True
            conn.write_all(commands)
        except pymysql.MySQLError:
            session.lost = True
            return False
        return None

    def _cleaning(self, conn: Any, session: Session) -> list[bytes] | bool:
        """Return what is to be sent; True if nothing, False if nothing would help."""
        if conn._sock is None:  # noqa: SLF001  see the module's rules
            return False
        keeps_looks = look_at(conn) == session.looks
        is_untouched = keeps_looks and not conn.encoders.changed and not conn.decoders.changed
        return self._plan.cleaning(
            conn,
            session,
            self._reset,
            is_clean=keeps_looks and not session.dirt and session.is_clean,
            keeps_looks=keeps_looks,
            restore=None if is_untouched else functools.partial(restore_looks, conn),
        )

    def _is_rollback_ahead(self, session: Session, commands: list[bytes]) -> bool:
        """Say whether the next command may be written behind these without waiting: see ADR 008."""
        return commands == [ROLLBACK] and session.needs_rollback_only

    def collect(self, conn: Any, until: float) -> bool | None:
        """Read the answers to what was sent, if they come by *until*; then look whether anything else has come."""
        session: Session = conn._millpond  # noqa: SLF001  our own
        try:
            session.oks += conn.take_oks(session.answers - session.oks)
            left = session.answers - session.oks
            if left and not has_unread(conn) and not await_news(conn, until):
                return None
            if left or callable(self._on_connect) or not self._plan.begin_again(conn, session):
                with patient(conn):
                    replies = [*[None] * session.oks, *(read_or_error(conn) for _ in range(left))]
                    if not self._is_good(conn, session, replies):
                        return False
            # A session that was killed after it had answered is not to be handed out; if all answers were plain,
            # nothing of that is in the driver's buffer.
            return (not left and not has_news(conn)) or is_quiet(conn)
        except Exception:  # noqa: BLE001  whatever it is, the answer was not that all is well
            session.lost = True
            self._plan.given_up(session)  # now: the next connection may be here before this one is closed
            return False

    def _is_good(self, conn: Any, session: Session, replies: list[Any]) -> bool:
        """Judge the answers, and begin the session anew."""
        if not self._plan.is_restored(conn, replies):
            return False
        if callable(self._on_connect) and len(replies) > 1:
            self._on_connect(conn)
            self._plan.begin(conn, session, tracking=session.tracked)
            keep_looks(conn)
        return True

    def close(self, conn: Any) -> None:
        """Send COM_QUIT without waiting, or a server would count an aborted client, and close."""
        result = getattr(conn, "_result", None)
        if getattr(result, "unbuffered_active", False):
            result.unbuffered_active = False  # type: ignore[union-attr]  # or its finalizer would read what is left
        session: Session | None = getattr(conn, "_millpond", None)
        if session is not None:
            self._plan.given_up(session)
            if session.holder not in (0, get_ident()):
                # Another thread waits in a command: a farewell would go through the same TLS at the same time, which is
                # no object for two, and that thread would wait for an answer that nobody wants.
                self.cut(conn)
        with contextlib.suppress(Exception), within(conn, time.monotonic() + FAREWELL_S):
            conn.close()

    def reset_way(self) -> str:
        """Return how sessions are made as good as new, as far as this is known yet; for people."""
        if callable(self._reset) or self._reset in ("none", "rollback"):
            return ""
        if not self._listens:
            return Way.OVERHEARD.value if self._overhears else Way.DEAF.value
        facts = self._plan.facts
        if facts is None:
            return ""
        tracked = "" if self._plan.tracks else ", after every write too: changes are not told"
        return facts.way.value + (tracked if facts.way is Way.RESET else "")

    # -- capabilities ----------------------------------------------------------------------------------------------
    def fileno(self, conn: Any) -> int | None:
        """Return the socket's descriptor."""
        sock = getattr(conn, "_sock", None)
        try:
            fd = -1 if sock is None else sock.fileno()
        except (OSError, AttributeError):
            return None
        return fd if fd >= 0 else None

    def _is_readable(self, conn: Any) -> bool:
        """Poll the descriptor, and look for what TLS has read and not handed on: an idle server says nothing."""
        session: Session | None = getattr(conn, "_millpond", None)
        if not has_news(conn):
            return bool(session and session.pending and time.monotonic() - session.sent_at > OVERDUE_S)
        if session is None or not session.pending:
            return True
        try:
            with patient(conn):
                emptied = conn.hear_rollback(has_come=True)
        except Exception:  # noqa: BLE001  whatever it is, this connection is not to be handed out
            return True
        return (not emptied or has_news(conn)) and not is_quiet(conn)

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether a command waits for its reply, or a long reply for a reader; a short one is read here."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:
            if not hasattr(conn, "_result"):
                return None
            result: Any = conn._result  # noqa: SLF001  see the module's rules
            return result is not None and bool(result.unbuffered_active or result.has_next)
        if not session.owed:
            return False
        if session.holder or conn._sock is None:  # noqa: SLF001  see the module's rules
            return not session.lost
        try:
            with within(conn, time.monotonic() + DRAIN_S):
                return not conn.drain()
        except Exception:  # noqa: BLE001  an error ends a reply as well; any other end is no end
            return session.owed > 0

    def is_harmless(self, conn: Any, text: str) -> bool:
        """Say whether a statement is proved to leave nothing behind, whatever literals stand for its places."""
        if not isinstance(conn, Listening):
            return False
        known: Any = conn
        session: Session = known._millpond  # noqa: SLF001  our own
        return session.is_harmless(text.encode(known.encoding, "surrogateescape"))

    def cursor(self, conn: Any, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own class for *lease*: as a cursor of our subclass from the beginning."""
        base = args[0] if args else kwargs.get("cursor")
        made = self._cursors.make(base or conn.cursorclass, conn.cursor, lease) if len(args) + len(kwargs) < 2 else None
        return super().cursor(conn, lease, args, kwargs) if made is None else made

    def uncommitted(self, conn: Any) -> bool:
        """Say whether writes would be lost by a rollback now."""
        session: Session | None = getattr(conn, "_millpond", None)
        if session is None:  # the last OK packet's word: after writes it is right
            return bool(getattr(conn, "server_status", 0) & IN_TRANSACTION)
        return session.wrote and session.uncommitted and conn._sock is not None  # noqa: SLF001  see the module's rules

    def is_broken(self, conn: Any) -> bool:
        """Say whether the link was seen to break while it was used; not if its borrower has closed it."""
        session: Session | None = getattr(conn, "_millpond", None) or overhearing.session_of(conn)
        return session is not None and session.lost

    def role_suspect(self, conn: Any) -> bool:
        """Say whether an error told that the server may have become read-only."""
        session: Session | None = getattr(conn, "_millpond", None) or overhearing.session_of(conn)
        return session is not None and session.role_suspect and not session.is_hopeless

    def has_lost_role(self, conn: Any, until: float) -> bool:
        """Ask whether the server, which took writes once, takes none now."""
        try:
            with within(conn, until):
                return self._plan.is_read_only(conn)
        except Exception:  # noqa: BLE001  it has not answered: that is no proof
            return False

    def cut(self, conn: Any) -> bool:
        """Shut the socket down under whoever reads from it."""
        fd = self.fileno(conn)
        return fd is not None and shut_down(fd)


# -- cursors ---------------------------------------------------------------------------------------------------------
def detach(cursor: Any, _: type[Any]) -> None:
    """Let go of an unbuffered result without reading it to its end, which may be long."""
    cursor._result = None  # noqa: SLF001  see the module's rules
