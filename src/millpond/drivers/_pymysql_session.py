"""PyMySQL connections that listen: what their server says of the session unasked, and how a session is made as good as new.

Why: PyMySQL reads the status word of OK packets only, and forgets it with the next.  A connection of the class made here
keeps what every reply says in its :class:`~millpond.drivers._session.Session`, and can be told to send what cleans its
session without waiting for the answers.

Rules:
- Nothing is added per row of a result: the method that is called for each packet is replaced, not wrapped.
- What was sent ahead is read before any other reply.  A statement is written behind an unread ROLLBACK only if it is proved
  harmless; behind a reset nothing is ever written, because an error among its steps would let the statement run in a
  session that is not the caller's (wrong schema, wrong character set).  See docs/adr/008-commands-written-ahead.md.
- PyMySQL's private parts are used in this module and in ``pymysql.py`` only.  :func:`can_listen` looks for all of them, once per class;
  and :func:`hears` asks a connection that was set up whether it has heard its replies.

It must not decide when a session is cleaned, and it must not connect: that is the adapter's.
"""

from __future__ import annotations

import functools
import operator
import struct
import threading
from _thread import get_ident
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pymysql
from pymysql import err
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CLIENT, COMMAND

from millpond._sql import tokens
from millpond.errors import ConcurrentUse, joined

from ._session import AUTOCOMMIT, COM_QUERY, IN_TRANSACTION, MORE_RESULTS, STATE_CHANGED, UTF8, Session, brand_of

CLIENT_SESSION_TRACK: Final = 1 << 23
COM_RESET_CONNECTION: Final = 0x1F  # PyMySQL has no name for it
UNKNOWN_COMMAND: Final = 1047  # ER_UNKNOWN_COM_ERROR
UNKNOWN_VARIABLE: Final = 1193  # ER_UNKNOWN_SYSTEM_VARIABLE
LOST: Final = 2013  # CR_SERVER_LOST

# Whatever of these a version of PyMySQL lacks, none of its connections is listened to.
CONNECTION_PARTS: Final = frozenset(
    {"_execute_command", "_read_query_result", "_read_ok_packet", "_read_packet", "_write_bytes", "_force_close", "set_character_set"}
)
RESULT_PARTS: Final = frozenset({"_check_packet_is_eof", "init_unbuffered_query", "read"})

# What a borrower can change on the connection object itself, without a word to the server.
LOOKS: Final = (
    *("cursorclass", "charset", "collation", "encoding", "use_unicode", "autocommit_mode"),
    *("encoders", "decoders", "_read_timeout", "_write_timeout", "max_allowed_packet", "_local_infile"),
)
look_at: Final = operator.attrgetter(*LOOKS)


def packet(command: int, payload: bytes = b"") -> bytes:
    """Return a command as it goes over the wire; payloads here are far below the 16 MiB of one packet."""
    return struct.pack("<iB", len(payload) + 1, command) + payload


ROLLBACK: Final = packet(COM_QUERY, b"ROLLBACK")


class ListeningResult(MySQLResult):
    """A result that keeps the status word of its last packet, also where that is an EOF packet."""

    connection: Any
    server_status: int | None
    warning_count: int
    unbuffered_active: bool

    def _check_packet_is_eof(self, packet: Any) -> bool:
        if not packet.is_eof_packet():
            return False
        super()._check_packet_is_eof(packet)  # type: ignore[misc]  # private, and so not in the stubs
        self.server_status = int.from_bytes(packet.get_all_data()[3:5], "little")
        if self.unbuffered_active:
            self.connection.hear(self)
        return True


if TYPE_CHECKING:

    class _Base:
        """What the mixin needs of PyMySQL's connection, private parts included."""

        charset: str
        collation: str | None
        autocommit_mode: bool | None
        sql_mode: str | None
        init_command: str | None
        encoding: str
        server_status: int
        server_version: str
        _sock: Any
        _result: Any
        _affected_rows: int
        _next_seq_id: int

        def connect(self, sock: Any = None) -> None: ...
        def set_character_set(self, charset: str, collation: str | None = None) -> None: ...
        def escape(self, obj: Any) -> str: ...
        def _execute_command(self, command: int, sql: Any) -> None: ...
        def _read_ok_packet(self) -> Any: ...
        def _read_packet(self) -> Any: ...
        def _write_bytes(self, data: bytes) -> None: ...
        def _force_close(self) -> None: ...

else:
    _Base = object


class Listening(_Base):
    """What a connection class gains by listening; made into a class by :func:`listening`."""

    _millpond: Session
    _millpond_plan: Plan | None = None  # of the set-up under way, or of the last one

    # -- connecting ------------------------------------------------------------------------------------------------
    def connect(self, sock: Any = None) -> None:
        """Connect as the driver does, but for its set-up: that goes in one write, and is read in one wait."""
        plan = self._millpond_plan
        had = self.__dict__.get("_millpond")
        self._millpond = session = Session()
        if plan is None:
            super().connect(sock)
            return
        held = (self.sql_mode, self.init_command)
        self.sql_mode = self.init_command = None  # they are in the plan, and the driver would send them once more
        session.dirt = "connecting"
        try:
            super().connect(sock)
        finally:
            self.sql_mode, self.init_command = held
        if had is not None:
            session.dirt = "reconnected by its borrower"
            session.beyond_reset = True

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Set the character set; while connecting this is where the whole set-up goes instead."""
        session = self._millpond
        if session.dirt == "connecting" and self._millpond_plan is not None:
            self._millpond_plan.set_up(self)
            return
        try:
            super().set_character_set(charset, collation)
        finally:
            session.holder = 0

    # -- sending ---------------------------------------------------------------------------------------------------
    def _execute_command(self, command: int, sql: Any) -> None:
        session = self._millpond
        me = get_ident()
        if session.holder and session.holder != me:
            raise used_by_two(session.holder, me)
        session.holder = me
        text = sql.encode(self.encoding, "surrogateescape") if isinstance(sql, str) else bytes(sql)
        try:
            session.judge(command, text)
            if session.pending and session.dirt:
                self.hear_rollback()
            super()._execute_command(command, text)
        except BaseException:
            session.holder = 0
            raise
        session.sent(text)

    # -- hearing ---------------------------------------------------------------------------------------------------
    def hear(self, result: Any) -> None:
        """Take in what the last packet of a result said."""
        self.server_status = result.server_status
        self._millpond.note(result.server_status, result.warning_count)

    def _read_query_result(self, unbuffered: bool = False) -> int:
        session = self._millpond
        try:
            if session.pending:
                self.hear_rollback()
            self._result = None
            result = ListeningResult(self)
            if unbuffered:
                start_unbuffered(result)
            else:
                result.read()
        except Exception as error:
            self.hear_error(error)
            raise
        finally:
            session.holder = 0
        self._result = result
        if result.server_status is not None:
            self.hear(result)
        return result.affected_rows  # type: ignore[no-any-return]

    def _read_ok_packet(self) -> Any:
        session = self._millpond
        try:
            if session.pending:
                self.hear_rollback()
            ok = super()._read_ok_packet()
        except Exception as error:
            self.hear_error(error)
            raise
        finally:
            session.holder = 0
        session.note(ok.server_status, ok.warning_count)
        return ok

    def show_warnings(self) -> Any:
        """Ask for the warnings of the last statement."""
        self._execute_command(COMMAND.COM_QUERY, "SHOW WARNINGS")
        self._read_query_result()
        return self._result.rows

    def hear_error(self, error: Exception) -> None:
        """Take in an error; an ERR packet ends a reply, anything else leaves it where it was."""
        answered = isinstance(error, err.MySQLError) and self._sock is not None
        self._millpond.failed(error, answered=answered)

    def hear_rollback(self) -> None:
        """Read the answer to the ROLLBACK that was sent when this connection was given back; it must be OK.

        Raises:
            OperationalError: it is not.  The connection is closed; what was written behind it counts for nothing.
        """
        session = self._millpond
        number, self._next_seq_id = self._next_seq_id, 1
        session.pending = False
        try:
            ok = super()._read_ok_packet()
        except err.MySQLError as error:
            self._force_close()
            session.beyond_reset = True
            raise err.OperationalError(LOST, f"{REFUSED}: {error}") from error
        if ok.server_status & IN_TRANSACTION:
            self._force_close()
            session.beyond_reset = True
            raise err.OperationalError(LOST, f"{REFUSED}: a transaction is still open")
        self._next_seq_id = number
        session.status = ok.server_status

    # -- sending ahead ---------------------------------------------------------------------------------------------
    def write_rollback(self) -> None:
        """Send a ROLLBACK and do not wait for its answer."""
        self._write_bytes(ROLLBACK)
        self._result = None
        self._millpond.pending = True

    def write_all(self, commands: Sequence[bytes]) -> None:
        """Send commands in one write; :meth:`read_all` reads as many replies."""
        self._result = None
        self._write_bytes(b"".join(commands))

    def read_reply(self) -> Any:
        """Read one reply to its end, further results included; return its first result, with the last status word.

        Raises:
            MySQLError: what the server answered.
        """
        self._next_seq_id = 1
        result = first = ListeningResult(self)
        result.read()
        seen = result.server_status or 0
        while (result.server_status or 0) & MORE_RESULTS:
            result = ListeningResult(self)
            result.read()
            seen |= result.server_status or 0
        self.server_status = first.server_status = result.server_status or 0
        return first


REFUSED: Final = (
    "the ROLLBACK that was sent when this connection was given back was not answered as it should be; the connection was closed"
)


def start_unbuffered(result: Any) -> None:
    """Begin to read an unbuffered result; one that could not be begun is not to be read by its finalizer."""
    try:
        result.init_unbuffered_query()
    except BaseException:
        result.unbuffered_active = False
        result.connection = None
        raise


def used_by_two(holder: int, me: int) -> ConcurrentUse:
    """Return the error that names both threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    other, this = names.get(holder, f"thread {holder}"), names.get(me, f"thread {me}")
    text = (
        f"two threads used one connection at the same time: {other!r} waits for a reply on it, and {this!r} sent a command. "
        "Let each thread take its own connection from the pool."
    )
    return joined(ConcurrentUse, err.InterfaceError)(text)


# -- classes ---------------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=256)
def can_listen(kind: type[Any]) -> bool:
    """Say whether this class of connections has all the parts that listening needs."""
    return (
        issubclass(kind, Connection)
        and set(dir(kind)) >= CONNECTION_PARTS
        and set(dir(MySQLResult)) >= RESULT_PARTS
        and hasattr(CLIENT, "MULTI_STATEMENTS")
    )


@functools.lru_cache(maxsize=256)
def listening(kind: type[Any]) -> type[Any]:
    """Return the class of *kind*'s connections that listen."""
    if issubclass(kind, Listening):
        return kind
    members = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (Listening, kind), members)


def converted(conn: Any) -> bool:
    """Make a connection that somebody else has made listen, if it can."""
    kind = type(conn)
    if not can_listen(kind) or conn._sock is None:  # noqa: SLF001  see the module's rules
        return False
    try:
        conn.__class__ = listening(kind)
    except TypeError:  # another layout: slots, or a class of C
        return False
    conn._millpond = Session()  # noqa: SLF001
    return True


# -- making a session what it should be --------------------------------------------------------------------------------
class Facts:
    """What a server gives each new session of a user, and a reset does not give back.

    Attributes:
        init_connect: the server's own statements for new sessions; none for a user whom the server spares them.
        role: what makes the role be as at connect.
        read_only: the server took no writes.
        direct: nobody stands between: the server that greeted is the one that answers.
    """

    __slots__ = ("direct", "init_connect", "read_at", "read_only", "role")

    def __init__(self, read_at: float) -> None:
        self.read_at = read_at
        self.init_connect: tuple[bytes, ...] = ()
        self.role: bytes | None = None
        self.read_only = False
        self.direct = True


ASK_FACTS: Final = b"SELECT @@init_connect, @@global.read_only, CONNECTION_ID()"
ASK_ROLE: Final = b"SELECT CURRENT_ROLE()"
ASK_SPARED: Final = (
    b"SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ('SUPER', 'CONNECTION_ADMIN', 'CONNECTION ADMIN')"
)


class Plan:
    """How one adapter's sessions are set up, and made as good as new.

    Args:
        time_zone: the session's, or None for the server's.
        statements: run for each new session, and again after each reset.
        ahead: commands may be written without waiting for the answer to the one before.
        clock: seconds; facts are read anew when they are older than ``FACTS_S``.
    """

    FACTS_S: Final = 60.0

    def __init__(self, *, time_zone: str | None, statements: Sequence[str], ahead: bool, clock: Any) -> None:
        self.time_zone = time_zone
        self.statements = tuple(statements)
        self.ahead = ahead
        self.clock = clock
        self.tracking_works = True  # until a server does not know the variable
        self.facts: Facts | None = None

    # -- a new session ---------------------------------------------------------------------------------------------
    def set_up(self, conn: Any) -> None:
        """Set up the session of a connection that has just shaken hands."""
        session: Session = conn._millpond  # noqa: SLF001  the same body: see the module's rules
        session.brand = brand_of(conn.server_version)
        session.utf8 = conn.charset in UTF8
        facts = self.facts
        asks = facts is None or self.clock() - facts.read_at > self.FACTS_S
        tracking = self.tracking_works and bool(conn.client_flag & conn.server_capabilities & CLIENT_SESSION_TRACK)
        own = self.own_statements(conn, tracking=tracking)
        texts = [*own, *((ASK_FACTS, ASK_ROLE) if asks else ())]
        replies = self.converse(conn, [packet(COM_QUERY, text) for text in texts])
        if isinstance(replies[0], err.MySQLError) and replies[0].args[0] == UNKNOWN_VARIABLE and tracking:
            self.tracking_works = tracking = False
            again = self.own_statements(conn, tracking=False)
            replies[: len(again)] = self.converse(conn, [packet(COM_QUERY, text) for text in again])
        for reply in replies[: len(own)]:
            if isinstance(reply, Exception):
                raise reply
        if asks:
            self.learn(conn, replies[-2], replies[-1])
        status = conn.server_status
        if status & IN_TRANSACTION:  # what somebody's statements began is theirs to keep
            self.converse(conn, [packet(COM_QUERY, b"COMMIT")])
        session.tracked = tracking
        session.renew(conn.server_status)

    def own_statements(self, conn: Any, *, tracking: bool) -> list[bytes]:
        """Return the statements that make a session of this adapter out of the server's own: one SET, and the caller's."""
        more = [conn.init_command] if conn.init_command is not None else []
        more += self.statements
        return [self.set_statement(conn, tracking=tracking), *(text.encode(conn.encoding) for text in more)]

    def set_statement(self, conn: Any, *, tracking: bool) -> bytes:
        parts = [f"NAMES {conn.charset} COLLATE {conn.collation}" if conn.collation else f"NAMES {conn.charset}"]
        if conn.autocommit_mode is not None:
            parts.append(f"autocommit = {int(bool(conn.autocommit_mode))}")
        if conn.sql_mode is not None:
            parts.append(f"sql_mode = {conn.escape(conn.sql_mode)}")
        if self.time_zone is not None:
            parts.append(f"time_zone = {conn.escape(self.time_zone)}")
        if tracking:
            parts.append("session_track_state_change = 1")
        return f"SET {', '.join(parts)}".encode(conn.encoding)

    def learn(self, conn: Any, about: Any, role: Any) -> None:
        """Read the facts out of the two replies; a server that does not know about roles has none."""
        facts = Facts(self.clock())
        if isinstance(about, Exception):
            raise about
        init_connect, read_only, thread = about.rows[0]
        facts.read_only = read_only in (1, "1", "ON", b"1")
        facts.direct = int(thread) == conn.server_thread_id[0]
        if init_connect and not self.is_spared(conn):
            facts.init_connect = tuple(part.encode(conn.encoding) for part in split(as_text(init_connect)))
        if not isinstance(role, Exception):
            facts.role = set_role(as_text(role.rows[0][0] or "NONE"), brand_of(conn.server_version)).encode(conn.encoding)
        self.facts = facts

    def is_spared(self, conn: Any) -> bool:
        """Ask whether this user has a privilege that spares it ``init_connect``."""
        (reply,) = self.converse(conn, [packet(COM_QUERY, ASK_SPARED)])
        return isinstance(reply, Exception) or bool(reply.rows[0][0])

    # -- as good as new --------------------------------------------------------------------------------------------
    def commands(self, conn: Any) -> list[bytes]:
        """Return what makes a session as good as new; the first is the reset itself."""
        session: Session = conn._millpond  # noqa: SLF001
        facts = self.facts
        own = [packet(COM_QUERY, text) for text in self.own_statements(conn, tracking=session.tracked)]
        steps = [packet(COM_RESET_CONNECTION), own[0]]
        if facts is not None and facts.role is not None:
            steps.append(packet(COM_QUERY, facts.role))
        if conn.db:
            schema = conn.db.encode(conn.encoding) if isinstance(conn.db, str) else conn.db
            steps.append(packet(COMMAND.COM_INIT_DB, schema))
        if facts is not None and facts.init_connect:  # the server runs them first of all, and ours win
            steps += [packet(COM_QUERY, text) for text in facts.init_connect]
            steps.append(own[0])
        return steps + own[1:]

    def converse(self, conn: Any, commands: Sequence[bytes]) -> list[Any]:
        """Send commands and read their replies, each a result or the error that was answered."""
        if self.ahead:
            conn.write_all(commands)
            return [read_or_error(conn) for _ in commands]
        replies: list[Any] = []
        for command in commands:
            conn.write_all([command])
            replies.append(read_or_error(conn))
        return replies


def read_or_error(conn: Any) -> Any:
    """Return a reply, or the error that it was; a link that broke is raised."""
    try:
        return conn.read_reply()
    except err.MySQLError as error:
        if conn._sock is None:  # noqa: SLF001  see the module's rules
            raise
        return error


def as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)


def set_role(active: str, brand: str) -> str:
    """Return the statement that makes *active*, as CURRENT_ROLE() tells it, the active role or roles."""
    if active.upper() == "NONE":
        return "SET ROLE NONE"
    if brand == "mysql":  # it tells them quoted
        return f"SET ROLE {active}"
    return "SET ROLE `{}`".format(active.replace("`", "``"))


def split(statements: str) -> list[str]:
    """Return the single statements of a text in which they are divided by semicolons."""
    found: list[str] = []
    began_at = 0
    for kind, start, end in tokens.code_tokens(statements, tokens.Dialect.MYSQL):
        if kind == tokens.SEMICOLON:
            found.append(statements[began_at:start])
            began_at = end
    found.append(statements[began_at:])
    return [text.strip() for text in found if text.strip()]


def hears(conn: Any) -> bool:
    """Say whether a connection that was set up has heard its replies: the proof that listening works in this version."""
    session: Session = conn._millpond  # noqa: SLF001
    return not session.dirt and bool(conn.server_status) == bool(session.status)


__all__ = ["AUTOCOMMIT", "STATE_CHANGED", "Facts", "Listening", "ListeningResult", "Plan", "can_listen", "converted", "hears", "listening", "pymysql"]
