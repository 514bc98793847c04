"""mysql-connector-python connections that listen: both its implementations, the pure one and the one over a C library.

Why: this driver reads every status word.  The pure implementation hands each packet that has one to its protocol
object, the other shows the library's last word.

Rules:
- Private parts are used in this module, in ``_mysqlconnector_asking.py`` and in ``mysqlconnector.py`` only;
  :func:`can_listen` looks for all of them, once per class.
- Nothing is added per row of a result: a packet that ends one is looked at, and the statement that begins one.
- ``cursor()`` asks the server whether it is there, a command per cursor; here it is answered by what is known.  Whoever
  calls ``is_connected()`` or ``ping()`` himself still asks.

It must not send anything of our own, nor decide when a session is cleaned.
"""

from __future__ import annotations

import abc
import functools
import importlib
from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from . import faults
from ._model_session import limit_of
from ._mysqlconnector_asking import next_head, read_replies
from ._session import AUTOCOMMIT, COM_QUERY, NO_BACKSLASH_ESCAPES, Session, explained, mark_methods, used_by_two
from ._watched import DRAINED_ROWS_MAX

PURE_PARTS: Final = frozenset(
    {
        "_handle_result",
        "_handle_ok",
        "_get_connection",
        "_do_auth",
        "_send_cmd",
        "_execute_query",
        "get_rows",
        "cmd_query",
    }
)
C_PARTS: Final = frozenset({"cmd_query", "get_rows", "next_result", "free_result", "more_results", "unread_result"})
# Whatever a borrower may call that is no statement, or one that ``cmd_query`` does not see.
OTHER_COMMANDS: Final = (
    *("cmd_debug", "cmd_init_db", "cmd_query_iter", "cmd_refresh", "cmd_reset_connection"),
    *("cmd_shutdown", "cmd_statistics", "cmd_stmt_close", "cmd_stmt_execute", "cmd_stmt_fetch", "cmd_stmt_prepare"),
    *("cmd_stmt_reset", "cmd_stmt_send_long_data", "info_query", "reset_session", "shutdown"),
)
# After these the driver's own object is another one, or leads to another session, or to somebody else's.
BEYOND_RESET: Final = (
    *("cmd_change_user", "connect", "reconnect", "set_charset_collation", "set_converter_class", "set_unicode"),
)
OF_THE_LINK: Final = ("not available", "not connected", "lost connection", "closed", "timed out")
LOOKS: Final = (
    *("_autocommit", "_sql_mode", "_time_zone", "_raw", "_buffered", "_use_unicode", "_get_warnings"),
    *("_raise_on_warnings", "_client_flags", "_consume_results", "_read_timeout", "_write_timeout", "converter"),
)

if TYPE_CHECKING:

    class _Base:
        """What the mixin needs of the driver's connections, private parts included."""

        unread_result: bool
        more_results: bool
        database: Any
        _millpond_interface_error: type[BaseException]

        def cmd_query(self, query: Any, *args: Any, **kwargs: Any) -> Any: ...
        def cursor(self, *args: Any, **kwargs: Any) -> Any: ...
        @property
        def sql_mode(self) -> str: ...
        @property
        def use_unicode(self) -> bool: ...
        def set_unicode(self, value: bool = True) -> None: ...
        def is_connected(self) -> bool: ...
        def ping(self, *args: Any, **kwargs: Any) -> None: ...
        def close(self) -> None: ...
        def next_result(self) -> Any: ...
        def free_result(self) -> None: ...
        def commit(self) -> None: ...
        def rollback(self) -> None: ...
        def _get_connection(self) -> Any: ...
        def _do_auth(self, *args: Any, **kwargs: Any) -> Any: ...
        def _send_cmd(self, *args: Any, **kwargs: Any) -> Any: ...

    class _Protocol:
        """What is needed of the pure implementation's protocol object."""

        def parse_ok(self, packet: Any) -> dict[str, Any]: ...
        def parse_eof(self, packet: Any) -> dict[str, Any]: ...

else:
    _Protocol = object
    _Base = abc.ABC  # as the driver's own: only then may a connection be given the class made of both


class Listening(_Base):
    """What both implementations gain by listening."""

    _millpond: Session
    _millpond_quiet = False  # is_connected() is asked by cursor(), not by its borrower
    _sql_mode: str | None
    _use_unicode: bool

    @property
    def autocommit(self) -> bool:
        """Whether each statement is committed as it is done, by the last status word; the driver asks the server."""
        return bool(self._millpond.status & AUTOCOMMIT)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        cast("Any", super(Listening, type(self))).autocommit.fset(self, value)

    @property
    def sql_mode(self) -> str:
        """The mode by which values are quoted: what the driver remembers, unless the server says otherwise."""
        escapes = not self._millpond.status & NO_BACKSLASH_ESCAPES
        if self._sql_mode is not None and escapes == ("NO_BACKSLASH_ESCAPES" in self._sql_mode):
            self._sql_mode = None
        return super().sql_mode

    @sql_mode.setter
    def sql_mode(self, value: Any) -> None:
        cast("Any", super(Listening, type(self))).sql_mode.fset(self, value)

    @property
    def use_unicode(self) -> bool:
        """Whether text comes as str; the driver keeps that in its converter too, or in its library."""
        return bool(getattr(super(), "use_unicode", self._use_unicode))  # 8.4 has only set_unicode()

    @use_unicode.setter
    def use_unicode(self, value: bool) -> None:
        self._millpond.dirt = self._millpond.dirt or "text comes in another form"
        self._millpond.beyond_reset = True
        of_driver: Any = getattr(super(Listening, type(self)), "use_unicode", None)
        if of_driver is None:
            self.set_unicode(value)
        else:
            of_driver.fset(self, value)

    def cmd_query(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Send a statement and read the head of its reply."""
        text = query.encode("utf-8", "surrogateescape") if isinstance(query, str) else bytes(query)
        session = self._enter(text)
        try:
            answer = super().cmd_query(query, *args, **kwargs)
        except BaseException as error:
            told = explained(error, len(text), limit_of(self))
            take_in(session, told)
            if told is not error:
                raise told from error
            raise
        finally:
            session.holder = 0
        self._heard()
        return answer

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Make a cursor, without asking the server whether it is there."""
        self._millpond_quiet = True
        try:
            return super().cursor(*args, **kwargs)
        finally:
            self._millpond_quiet = False

    def is_connected(self) -> bool:
        """Say whether the connection is open; whoever asks this himself has it asked of the server."""
        return self._is_open() if self._millpond_quiet else super().is_connected()

    def ping(self, reconnect: bool = False, attempts: int = 1, delay: int = 0) -> None:
        """Ping; one that may reconnect makes another session of this."""
        if reconnect:
            self._millpond.dirt = "reconnected by its borrower"
            self._millpond.beyond_reset = True
        super().ping(reconnect, attempts, delay)

    def close(self) -> None:
        """Close."""
        self._millpond.dirt = "closed by its borrower"
        self._millpond.beyond_reset = True
        super().close()

    disconnect = close

    def _enter(self, text: bytes) -> Session:
        session = self._millpond
        me = get_ident()
        if session.holder and session.holder != me:
            raise used_by_two(session.holder, me, self._millpond_interface_error)
        session.judge(COM_QUERY, text)
        session.holder = me
        session.sent(text)
        return session

    def _heard(self) -> None:
        """Take in what the last reply said, where nothing else does."""

    if TYPE_CHECKING:  # each implementation has its own

        def _is_open(self) -> bool: ...


mark_methods(Listening, OTHER_COMMANDS, "_millpond")
mark_methods(Listening, BEYOND_RESET, "_millpond", beyond_reset=True)


class ListeningPure(Listening):
    """The pure implementation's part: what its protocol reads is heard, and its sockets are ours to prepare.

    Attributes:
        _millpond_prepare: gets each new socket of the driver's before it is connected.
        _millpond_admit: asked before credentials are sent; raises if this server must not get them.
        _millpond_collected: the driver's own statements for a new session, while it is made.
    """

    _socket: Any
    _protocol: Any
    _have_next_result: bool
    _millpond_prepare: Callable[[Any], None] | None = None
    _millpond_admit: Callable[[Any], None] | None = None
    _millpond_collected: list[str] | None = None

    def cmd_query(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Send a statement; while connecting, keep it: the driver would send and wait for one after another."""
        if self._millpond_collected is None:
            return super().cmd_query(query, *args, **kwargs)
        self._millpond_collected.append(query if isinstance(query, str) else bytes(query).decode())
        return {}

    def _get_connection(self) -> Any:
        sock = super()._get_connection()
        if self._millpond_prepare is not None:
            self._millpond_prepare(sock)
        return sock

    def _send_cmd(self, *args: Any, **kwargs: Any) -> Any:
        if self._have_next_result:  # the driver sends all the same, and takes each answer for another's from then on
            self._millpond.dirt = "a statement was sent before all results of the last one were read"
            self._millpond.beyond_reset = True
        return super()._send_cmd(*args, **kwargs)

    def _do_auth(self, *args: Any, **kwargs: Any) -> Any:
        if self._millpond_admit is not None:
            self._millpond_admit(self)
        return super()._do_auth(*args, **kwargs)

    def _is_open(self) -> bool:
        sock = getattr(self._socket, "sock", None)
        return sock is not None and sock.fileno() >= 0


class ListeningC(Listening):
    """The part of the implementation over a C library: its last word is looked at when something follows it."""

    _cmysql: Any
    _millpond_unheard = False

    def _execute_query(self, query: Any) -> Any:
        return self.cmd_query(query)

    def _enter(self, text: bytes) -> Session:
        if self._millpond_unheard:
            self._millpond_unheard = False
            self._hear()
        return super()._enter(text)

    def _heard(self) -> None:
        if self.unread_result:
            self._millpond_unheard = True
        else:
            self._hear()

    def _hear(self) -> None:
        self._millpond.note(self._cmysql.st_server_status(), self._cmysql.warning_count())

    @property
    def database(self) -> Any:
        """The current schema, asked of the server."""
        return super().database

    @database.setter
    def database(self, value: Any) -> None:
        self._millpond.dirt = self._millpond.dirt or "another schema"
        super(ListeningC, type(self)).database.fset(self, value)

    def commit(self) -> None:
        """Commit, as the library does it."""
        self._control(b"COMMIT", super().commit)

    def rollback(self) -> None:
        """Roll back, as the library does it."""
        self._control(b"ROLLBACK", super().rollback)

    def _control(self, text: bytes, call: Callable[[], None]) -> None:
        session = self._enter(text)
        try:
            call()
        except BaseException as error:
            take_in(session, error)
            raise
        finally:
            session.holder = 0
        self._hear()

    def _is_open(self) -> bool:
        return self._cmysql is not None


class ListeningProtocol(_Protocol):
    """What the pure implementation's protocol object gains: each packet with a status word is told of."""

    _millpond: Session

    def parse_ok(self, packet: Any) -> Any:
        """Read an OK packet."""
        told = super().parse_ok(packet)
        self._millpond.note(told["status_flag"], told["warning_count"])
        return told

    def parse_eof(self, packet: Any) -> Any:
        """Read an EOF packet."""
        told = super().parse_eof(packet)
        self._millpond.note(told["status_flag"], told["warning_count"])
        return told


def is_misuse(error: BaseException) -> bool:
    """Say whether an error is the driver's own about how it was called: no number, and nothing said of the link."""
    return faults.number_of(error) <= 0 and not any(words in str(error).lower() for words in OF_THE_LINK)


def take_in(session: Session, error: BaseException) -> None:
    """Take in what a statement raised."""
    was_lost = session.lost
    session.failed(error, answered=True)
    if is_misuse(error):
        session.lost = was_lost


def is_pure(kind: Any) -> bool:
    """Say whether these connections are the pure implementation's."""
    pure: type[Any] = importlib.import_module("mysql.connector.connection").MySQLConnection
    return issubclass(kind, pure)


@functools.lru_cache(maxsize=64)
def can_listen(kind: Any) -> bool:
    """Say whether this class of connections has all the parts that listening needs."""
    return set(dir(kind)) >= (PURE_PARTS if is_pure(kind) else C_PARTS)


@functools.lru_cache(maxsize=64)
def listening(kind: Any) -> type[Any]:
    """Return the class of *kind*'s connections that listen."""
    known: type[Any] = kind
    if issubclass(known, Listening):
        return known
    mixin = ListeningPure if is_pure(kind) else ListeningC
    members = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (mixin, kind), members)


@functools.lru_cache(maxsize=64)
def listening_protocol(kind: Any) -> type[Any]:
    """Return the class of protocol objects that tell."""
    known: type[Any] = kind
    return known if issubclass(known, ListeningProtocol) else type(known.__name__, (ListeningProtocol, known), {})


def begin(conn: Any) -> Session | None:
    """Make a connected connection listen; None if it cannot."""
    kind = conn.__class__
    if not can_listen(kind):
        return None
    session = Session()
    try:
        conn.__class__ = listening(kind)
        if isinstance(conn, ListeningPure):
            protocol: Any = conn._protocol
            protocol.__class__ = listening_protocol(protocol.__class__)
            protocol._millpond = session
    except TypeError:  # another layout
        return None
    conn.__dict__["_millpond_interface_error"] = importlib.import_module("mysql.connector").InterfaceError
    conn.__dict__["_millpond"] = session
    return session


def is_unread(conn: Any) -> bool:
    """Say whether a part of a reply is left."""
    if isinstance(conn, ListeningC):
        if conn._cmysql is None:
            return False
        if not conn.unread_result and conn._millpond_unheard:
            conn._millpond_unheard = False
            conn._hear()
        return bool(conn.unread_result or conn.more_results)
    return bool(conn.unread_result or getattr(conn, "_have_next_result", False))


def drain(conn: Any) -> bool:
    """Read a short rest of a result, and those that follow it; False if more is left."""
    if conn.unread_result:
        conn.get_rows(count=DRAINED_ROWS_MAX, raw=True)
        if conn.unread_result:
            return False
    if isinstance(conn, ListeningC):
        while conn.more_results:
            conn.next_result()
            conn.free_result()
        conn._hear()
        return True
    if conn._have_next_result:
        read_replies(conn, next_head(conn))
    return True


def detach(cursor: Any, _: type[Any]) -> None:
    """Let go of a cursor without reading what is left for it, or telling the server anything."""
    cursor._connection = None
