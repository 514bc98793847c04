"""PyMySQL connections that listen: they keep what their server says of the session unasked.

Why: PyMySQL reads the status word of OK packets only, and forgets it with the next.  A connection of a class made here
keeps what every reply says in its :class:`~millpond.drivers._session.Session`, and can be told to send what cleans its
session without waiting for the answers.

Rules:
- Nothing is added per row of a result (``_pymysql_replies.py``): the method that is called for each packet is replaced,
  not wrapped.
- What was sent ahead is read before any other reply.  A statement is written behind an unread ROLLBACK only if it is
  proved harmless; behind a reset nothing is ever written, because an error among its steps would let the statement run
  in a session that is not the caller's.  See docs/adr/008-commands-written-ahead.md.
- PyMySQL's private parts are used in this module, in ``_pymysql_*.py`` beside it and in ``pymysql.py`` only.
  :func:`can_listen` looks for all of them and has them proved (``_pymysql_proof.py``), once per class.

It must not decide when a session is cleaned, and it must not connect: that is the adapter's.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
import types
from _thread import get_ident
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pymysql import converters, err
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import COMMAND
from pymysql.cursors import Cursor

from ._pymysql_plan import ROLLBACK, Plan
from ._pymysql_proof import proves_itself
from ._pymysql_replies import ListeningResult, OwnResult, plain_oks
from ._session import (
    COM_QUERY,
    CONNECTING,
    DRAINED_BYTES_MAX,
    IN_TRANSACTION,
    MORE_RESULTS,
    NO_BACKSLASH_ESCAPES,
    Session,
    explained,
    used_by_two,
)

LOST: Final = 2013  # CR_SERVER_LOST

# Whatever of these a version of PyMySQL lacks, none of its connections is listened to.
CONNECTION_PARTS: Final = frozenset(
    {
        *("_execute_command", "_read_query_result", "_read_ok_packet", "_read_packet", "_write_bytes", "_force_close"),
        *("set_character_set", "connect", "close", "escape"),
    }
)
RESULT_PARTS: Final = frozenset({"_check_packet_is_eof", "_get_descriptions", "init_unbuffered_query", "read"})

# A status word with nothing beside these says that there is nothing to take note of: autocommit is on, no good index or
# no index was used.
QUIET: Final = 0x0002 | 0x0010 | 0x0020 | NO_BACKSLASH_ESCAPES
# What becomes a literal by PyMySQL's own encoders, unless the caller has replaced them.
PLAIN_VALUES: Final[frozenset[type[Any]]] = frozenset(
    (int, str, float, bool, type(None), Decimal, dt.date, dt.datetime, dt.time, dt.timedelta)
)


REFUSED: Final = (
    "the ROLLBACK that was sent when this connection was given back was not answered as it should be; "
    "the connection was closed"
)


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
        encoders: dict[Any, Any]
        decoders: dict[Any, Any]
        _sock: Any
        _rfile: Any
        _result: Any
        _affected_rows: int
        _next_seq_id: int

        def connect(self, sock: Any = None) -> None: ...
        def close(self) -> None: ...
        def set_character_set(self, charset: str, collation: str | None = None) -> None: ...
        def escape(self, obj: Any, mapping: Any = None) -> str: ...
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
    _millpond_length = 0  # of the last command
    _plainly = False  # values of plain types are encoded by PyMySQL's own encoders, as far as was looked
    _millpond_plan: Plan | None = None  # of the set-up under way, or of the last one

    # -- connecting ------------------------------------------------------------------------------------------------
    def connect(self, sock: Any = None) -> None:
        """Connect as the driver does, but for its set-up: that goes in one write, and is read in one wait."""
        plan = self._millpond_plan
        is_first = "_millpond" not in self.__dict__
        self._millpond = session = Session()
        if plan is None:
            super().connect(sock)
            return
        held = (self.sql_mode, self.init_command, self.autocommit_mode)
        session.dirt = CONNECTING
        try:
            super().connect(sock)
        finally:
            self.sql_mode, self.init_command, self.autocommit_mode = held
        if not is_first:
            session.dirt = "reconnected by its borrower"
            session.beyond_reset = True

    def close(self) -> None:
        """Close; its borrower may do so, also by the driver's own ``with`` block, and the next one must not have it."""
        session: Session | None = self.__dict__.get("_millpond")
        if session is not None:
            session.dirt = "closed by its borrower"
            session.beyond_reset = True
        super().close()

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Set the character set; while connecting this is where the whole set-up goes instead."""
        session = self._millpond
        if session.dirt == CONNECTING and self._millpond_plan is not None:
            self._millpond_plan.set_up(self)
            # Or the driver would send them once more, autocommit over what the caller's statements say; see connect().
            self.sql_mode = self.init_command = self.autocommit_mode = None
            return
        owed = session.owed
        try:
            super().set_character_set(charset, collation)
            session.owed -= 1  # it reads its reply by itself
        except Exception as error:
            # What is left of an earlier reply is counted by whoever reads it.
            answered = session.owed > owed and isinstance(error, err.MySQLError) and self._sock is not None
            session.failed(error, answered=answered)
            raise
        finally:
            session.holder = 0

    # -- sending ---------------------------------------------------------------------------------------------------
    def _execute_command(self, command: int, sql: Any) -> None:
        session = self._millpond
        me = get_ident()
        if session.holder and session.holder != me:
            raise used_by_two(session.holder, me, err.InterfaceError)
        # What is no text is refused before anything is noted; bytes() would make zeros of a number.
        text = sql.encode(self.encoding, "surrogateescape") if isinstance(sql, str) else b"".join((sql,))
        session.owed += 1  # from here on it is not clean, wherever this is broken off
        session.holder = me
        try:
            if session.pending:
                session.weigh(command, text)
                if session.dirt:
                    self.hear_rollback()
                super()._execute_command(command, text)
            else:
                super()._execute_command(command, text)
                session.weigh(command, text)  # in the time in which the server is at work
        except BaseException as error:
            if isinstance(error, err.MySQLError) and self._sock is not None:
                session.owed -= 1  # what was left of an earlier reply was an error: nothing has been sent
            session.holder = 0
            self.explain(error, len(text))
            raise
        self._millpond_length = len(text)
        session.holder = me  # reading what was left of an earlier reply has let go of it
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
            result: Any = ListeningResult(self)  # type: ignore[arg-type]  # the stubs ask for PyMySQL's own class
            if unbuffered:
                start_unbuffered(result)
            else:
                result.read()
        except Exception as error:
            self.hear_failure(error)
            raise
        finally:
            session.holder = 0
        self._result = result
        if result.server_status is not None:
            self.hear(result)
        return result.affected_rows  # type: ignore[no-any-return]  # private

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

    def _encodes_plainly(self) -> bool:
        theirs, own = self.encoders, converters.encoders
        self._plainly = all(theirs.get(kind) is own.get(kind) for kind in PLAIN_VALUES)
        return self._plainly

    def show_warnings(self) -> Any:
        """Ask for the warnings of the last statement."""
        self._execute_command(COMMAND.COM_QUERY, "SHOW WARNINGS")
        self._read_query_result()
        rows = self._result.rows
        self._result = None  # it is no statement's: insert_id() would have nothing to tell
        return rows

    def hear_error(self, error: BaseException) -> None:
        """Take in an error; an ERR packet ends a reply, anything else leaves it where it was."""
        answered = isinstance(error, err.MySQLError) and self._sock is not None
        self._millpond.failed(error, answered=answered)

    def hear_failure(self, error: BaseException) -> None:
        """Take in the error that a statement ended with, and raise a better one if there is one."""
        self.explain(error, self._millpond_length)
        self.hear_error(error)

    def explain(self, error: BaseException, length: int) -> None:
        """Raise what a server would have told of a statement that was too long, if that is why the link broke."""
        plan = self._millpond_plan
        limit = float("inf") if plan is None or plan.facts is None else plan.facts.packet_max
        told = explained(error, length, limit)
        if told is not error:
            self.hear_error(told)
            raise told from error

    def hear_rollback(self, *, has_come: bool = False) -> bool:
        """Read the answer to the ROLLBACK that was sent when this connection was given back; it must be OK.

        Args:
            has_come: it need not be waited for.

        Returns:
            Nothing more than that answer is in the driver's buffer, as far as was looked.

        Raises:
            OperationalError: it is not.  The connection is closed; what was written behind it counts for nothing.
        """
        session = self._millpond
        session.pending = False
        is_read = has_come and self.take_oks(1, has_come=True) == 1
        status = self.server_status if is_read else self._slowly_heard(session)
        if status & IN_TRANSACTION:
            if self._millpond_plan is not None:
                self._millpond_plan.chains = True
            self._give_up(session)
            raise err.OperationalError(LOST, f"{REFUSED}: a transaction is still open")
        session.status = status
        return is_read

    def _slowly_heard(self, session: Session) -> int:
        number, self._next_seq_id = self._next_seq_id, 1
        try:
            ok = super()._read_ok_packet()
        except err.MySQLError as error:
            self._give_up(session)
            raise err.OperationalError(LOST, f"{REFUSED}: {error}") from error
        self._next_seq_id = number
        return int(ok.server_status)

    def _give_up(self, session: Session) -> None:
        self._force_close()
        session.lost = True

    def drain(self) -> bool:
        """Read to its end what is left of a reply, if that is short; False if it is not, or nobody knows what is left.

        The caller bounds the time.
        """
        session = self._millpond
        allowed = DRAINED_BYTES_MAX
        while session.owed > 0:
            result = self._result
            if result is None or session.holder:
                return False
            while result.unbuffered_active:
                reply = self._read_packet()
                allowed -= len(reply.get_all_data())
                if result._check_packet_is_eof(reply):  # noqa: SLF001  see the module's rules
                    result.unbuffered_active, result.connection = False, None
                elif allowed < 0:
                    return False
            if not result.has_next:
                break
            self._read_query_result(unbuffered=True)
        return session.owed == 0

    # -- sending ahead ---------------------------------------------------------------------------------------------
    def write_rollback(self) -> None:
        """Send a ROLLBACK, whose answer is read before that of the next command."""
        session = self._millpond
        self.write_all([ROLLBACK])
        session.answers = 0
        session.pending = True
        session.status &= ~IN_TRANSACTION
        self.server_status = session.status

    def write_all(self, commands: Sequence[bytes]) -> None:
        """Send commands in one write; each :meth:`read_reply` reads one of their replies."""
        session = self._millpond
        self._result = None
        session.answers = len(commands)
        session.oks = 0
        session.sent_at = time.monotonic()
        self._write_bytes(b"".join(commands))

    def take_oks(self, count: int, *, has_come: bool = False) -> int:
        """Read answers that are a plain OK packet, as far as they have come; return how many were read.

        Answers to a reset are nothing else, and all have come when a borrower does: that is one call of the system
        instead of one a packet.  What else there is, or has come in part, stays unread for :meth:`read_reply`.  If
        all were read, nothing is left in the driver's buffer.

        Args:
            count: how many there can be, 1 or more.
            has_come: the descriptor was seen to be readable, so that one look into the buffer does not wait.
        """
        sock, rfile = self._sock, self._rfile
        if has_come and not hasattr(sock, "pending"):  # under TLS it may be a part of a record, and be waited for
            data = rfile.peek(1)
            taken, length, status = plain_oks(data, count)
            if not taken or (taken == count and length < len(data)):
                return 0
            rfile.read(length)
            self.server_status = status
            return taken
        allowed_s = sock.gettimeout()
        left = count
        try:
            sock.settimeout(0)
            while left:
                data = rfile.peek(1)
                oks, length, status = plain_oks(data, left)
                if not oks or (oks == left and length < len(data)):
                    break
                rfile.read(length)  # from the buffer, without asking the system
                self.server_status = status
                left -= oks
        except OSError:  # nothing has come; or the link is broken, and whoever reads next is told so again
            return count - left
        finally:
            sock.settimeout(allowed_s)
        return count - left

    def read_reply(self) -> Any:
        """Read one reply to its end, further results included; return its first result, with the last status word.

        Raises:
            MySQLError: what the server answered.
        """
        self._next_seq_id = 1
        result: Any = OwnResult(self)  # type: ignore[arg-type]  # as above
        first = result
        result.read()
        while (result.server_status or 0) & MORE_RESULTS:
            result = OwnResult(self)  # type: ignore[arg-type]  # as above
            result.read()
        self.server_status = first.server_status = result.server_status or 0
        return first


def fetch(conn: Any, text: str, values: Sequence[Any] | None) -> tuple[Sequence[Any], Any]:
    """Read all rows of a statement that was proved harmless, and its columns; bind values as a cursor does.

    A cursor, and a look at the text for each set of values, cost a tenth of a short statement's time.  To the server
    values are literals; where the caller may have encoded them in a way of his own, the text is looked at.
    """
    session: Session | None = getattr(conn, "_millpond", None)
    if session is None:  # a callable that makes connections of several kinds
        return fetch_by_cursor(conn, text, values)
    is_proved = True
    if values is not None:
        is_proved = PLAIN_VALUES.issuperset(map(type, values)) and (conn._plainly or conn._encodes_plainly())  # noqa: SLF001  see the module's rules
        escape, encoders = conn.escape, conn.encoders
        text %= tuple([escape(value, encoders) for value in values])
    if not is_proved or session.holder or session.pending:
        return fetch_in_steps(conn, text)
    data = text.encode(conn.encoding, "surrogateescape")  # from here on: those steps, where nothing else is on its way
    session.owed += 1  # first of all, and ended last: see _execute_command()
    session.holder = get_ident()
    session.text, session.limited = b"", False
    try:
        plain: Any = super(Listening, conn)
        conn._millpond_length = len(data)  # noqa: SLF001  as above
        plain._execute_command(COM_QUERY, data)  # noqa: SLF001  as above
        result: Any = ListeningResult(conn)
        result.read()
    except Exception as error:
        conn.hear_failure(error)
        raise
    finally:
        session.holder = 0
    conn._result = result  # noqa: SLF001  see the module's rules
    conn.server_status = status = result.server_status or 0
    if status & ~QUIET or result.warning_count:
        session.note(status, result.warning_count)
    else:
        session.status, session.wrote = status, False
        session.owed -= 1
    return result.rows, result.description


def fetch_in_steps(conn: Any, text: str) -> tuple[Sequence[Any], Any]:
    """Read all rows of a statement of which nothing is known, values included."""
    conn._execute_command(COM_QUERY, text)  # noqa: SLF001  see the module's rules
    conn._read_query_result()  # noqa: SLF001  see the module's rules
    result = conn._result  # noqa: SLF001  see the module's rules
    return result.rows, result.description


def fetch_by_cursor(conn: Any, text: str, values: Sequence[Any] | None) -> tuple[Sequence[Any], Any]:
    """Read all rows of a statement as anybody would."""
    cursor: Any = Cursor(conn)
    cursor.execute(text, values)
    return cursor.fetchall(), cursor.description


def start_unbuffered(result: Any) -> None:
    """Begin to read an unbuffered result; one that could not be begun is not to be read by its finalizer."""
    try:
        result.init_unbuffered_query()
    except BaseException:
        result.unbuffered_active = False
        result.connection = None
        raise


# -- classes ---------------------------------------------------------------------------------------------------------
@functools.cache
def can_listen(kind: Any) -> bool:
    """Say whether this is a class of connections that has all the parts that listening needs, and uses them."""
    parts: set[str] = set(dir(kind))
    return (
        is_connection_class(kind)
        and parts >= CONNECTION_PARTS
        and set(dir(MySQLResult)) >= RESULT_PARTS
        and proves_itself(listening(kind))
    )


def is_connection_class(kind: Any) -> bool:
    """Say whether this is PyMySQL's class of connections, or one made from it."""
    return isinstance(kind, type) and issubclass(kind, Connection)


@functools.lru_cache(maxsize=256)
def listening(kind: type[Any]) -> type[Any]:
    """Return the class of *kind*'s connections that listen."""
    if issubclass(kind, Listening):
        return kind

    def members(namespace: dict[str, Any]) -> None:
        namespace.update({"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__})

    return types.new_class(kind.__name__, (Listening, kind), exec_body=members)


def converted(conn: Any) -> bool:
    """Make a connection that somebody else has made listen, if it can."""
    kind: Any = type(conn)  # pyright: ignore[reportUnknownVariableType]  # a caller's own
    if not can_listen(kind) or getattr(conn, "_sock", None) is None:
        return False
    try:
        conn.__class__ = listening(kind)
    except TypeError:  # another layout: slots, or a class of C
        return False
    conn._millpond = Session()  # noqa: SLF001  see the module's rules
    return True
