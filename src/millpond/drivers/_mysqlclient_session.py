"""mysqlclient connections that listen: what their server says of the session, read out of the C library.

Why: mysqlclient shows no status word and cannot reset a session.  The C library under it can do both: MariaDB
Connector/C tells the status word (``mariadb_get_info``), and it and MySQL's own client have ``mysql_reset_connection``.
The library is loaded already, and mysqlclient hands out the pointer that it wants (``_get_native_connection``), so both
are one ``ctypes`` call away.

Rules:
- The library's functions are called on an open connection only, and by whoever holds it.
- They are proved before they are trusted: for each new connection the adapter compares what they say with what
  mysqlclient says.
- Without them a statement is still judged by its text; a transaction is then assumed to be open, and a write to have
  changed something.
- Nothing is added per row: buffered results are looked at when they are stored, unbuffered ones when something follows.

It must not decide when a session is cleaned, and it must not connect.
"""

from __future__ import annotations

import ctypes
import functools
from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ._model_session import limit_of
from ._session import AUTOCOMMIT, COM_QUERY, IN_TRANSACTION, Session, explained, mark_methods, used_by_two

SERVER_STATUS: Final = 30  # enum mariadb_value of mysql.h
SOCKET: Final = 19
CAPSULE: Final = b"_mysql.connection.native_connection"
PARTS: Final = frozenset({"query", "store_result", "use_result", "next_result", "field_count", "warning_count"})
# Whatever a borrower may call that is no statement, or one that is not seen by ``query``.
OTHER_COMMANDS: Final = (
    *("autocommit", "dump_debug_info", "kill", "read_query_result", "select_db", "send_query"),
    *("set_character_set", "shutdown", "stat"),
)
# A reset leaves the session somebody else's, or taking several statements in one text.
BEYOND_RESET: Final = ("change_user", "set_server_option")
LINK_ERRORS: Final = frozenset({2000, 2006, 2013, 2026, 2055})  # of the library, once it has closed its descriptor
LOOKS: Final = ("cursorclass", "encoding", "_binary_prefix", "executemany_fallback")


class Native:
    """The C library under mysqlclient, as far as it has what is wanted."""

    def __init__(self, library: str) -> None:
        quick = ctypes.PyDLL(library)  # keeps the interpreter: these do no I/O
        slow = ctypes.CDLL(library)
        self._pointer: Any = ctypes.pythonapi.PyCapsule_GetPointer
        self._pointer.restype = ctypes.c_void_p
        self._pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        self._info: Any = getattr(quick, "mariadb_get_info", None)
        if self._info is not None:
            self._info.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
            self._info.restype = ctypes.c_ubyte
        self._reset: Any = getattr(slow, "mysql_reset_connection", None)
        if self._reset is not None:
            self._reset.argtypes = [ctypes.c_void_p]
            self._reset.restype = ctypes.c_int

    def pointer(self, conn: Any) -> int:
        """Return the address of the library's connection, which is a part of *conn* and lives as long."""
        address: int = self._pointer(conn._get_native_connection(), CAPSULE)  # noqa: SLF001  see the module's rules
        return address

    def reader(self, address: int, what: int) -> Callable[[], int] | None:
        """Return a function that reads a number of a connection; None if this library does not tell it."""
        if self._info is None:
            return None
        info, cell = self._info, ctypes.c_int(-1)
        reference = ctypes.byref(cell)
        if info(address, what, reference) != 0:
            return None

        def read() -> int:
            info(address, what, reference)
            return cell.value

        return read

    @property
    def can_reset(self) -> bool:
        """Say whether the library has COM_RESET_CONNECTION."""
        return self._reset is not None

    def reset(self, conn: Any) -> bool:
        """Send COM_RESET_CONNECTION and wait for the answer: did the server do it?"""
        return bool(conn.open) and self._reset(self.pointer(conn)) == 0


def native_of(module: Any) -> Native | None:
    """Return the library under ``MySQLdb._mysql``; None if this build does not lead to it."""
    try:
        return Native(module.__file__) if hasattr(module.connection, "_get_native_connection") else None
    except (OSError, AttributeError, TypeError):  # linked in another way, or no file to load
        return None


if TYPE_CHECKING:

    class _Base:
        """What the mixin needs of mysqlclient's connection."""

        open: int
        InterfaceError: type[BaseException]

        def query(self, query: Any) -> None: ...
        def store_result(self) -> Any: ...
        def use_result(self) -> Any: ...
        def next_result(self) -> int: ...
        def field_count(self) -> int: ...
        def warning_count(self) -> int: ...
        def commit(self) -> None: ...
        def rollback(self) -> None: ...
        def ping(self, *args: Any) -> None: ...
        def close(self) -> None: ...

else:
    _Base = object


class Listening(_Base):
    """What a connection class gains by listening; made into a class by :func:`listening`.

    Attributes:
        _millpond: what is known of the session.
        _millpond_status: reads the status word.
        _millpond_unread: an unbuffered result was begun, and nothing has shown that it was read to its end.
        _millpond_awaited: a result was announced, and not fetched yet.
    """

    _millpond: Session
    _millpond_status: Callable[[], int]
    _millpond_unread: bool
    _millpond_awaited: bool
    _millpond_result: Any  # the unbuffered result: its destructor would read it to its end, so it lives as long as this

    # -- statements
    def query(self, query: Any) -> None:
        """Send a statement and read the head of its reply."""
        session = self._millpond
        text = query.encode("utf-8", "surrogateescape") if isinstance(query, str) else bytes(query)
        self._enter(COM_QUERY, text)
        try:
            super().query(query)
        except BaseException as error:
            told = explained(error, len(text), limit_of(self))
            self._fail(told)
            if told is not error:
                raise told from error
            raise
        self._hear_head(session)

    def commit(self) -> None:
        """Commit, as the library does it."""
        self._control(b"COMMIT", super().commit)

    def rollback(self) -> None:
        """Roll back, as the library does it."""
        self._control(b"ROLLBACK", super().rollback)

    def _control(self, text: bytes, call: Callable[[], None]) -> None:
        session = self._millpond
        self._enter(COM_QUERY, text)
        try:
            call()
        except BaseException as error:
            self._fail(error)
            raise
        self._hear_head(session)

    # -- results
    def store_result(self) -> Any:
        """Read the result that was announced to its end."""
        session = self._mine()
        try:
            result = super().store_result()
        except BaseException as error:
            self._fail(error)
            raise
        if self._millpond_awaited:
            self._millpond_awaited = False
            self._hear(session)
        session.holder = 0
        return result

    def use_result(self) -> Any:
        """Begin to read the result that was announced."""
        session = self._mine()
        try:
            result = super().use_result()
        except BaseException as error:
            self._fail(error)
            raise
        self._millpond_unread, self._millpond_awaited = self._millpond_awaited, False
        self._millpond_result = result if self._millpond_unread else None
        session.holder = 0
        return result

    def next_result(self) -> int:
        """Go on to the next result of the same statement."""
        session = self._mine()
        self._end_unread(session)
        try:
            answer = super().next_result()
        except BaseException as error:
            self._fail(error)
            raise
        if answer == 0:
            self._hear_head(session)
        return answer

    # -- the rest
    def ping(self, *args: Any) -> None:
        """Ping; one that may reconnect makes another session of this."""
        if any(args):
            self._millpond.dirt = "reconnected by its borrower"
            self._millpond.beyond_reset = True
        super().ping(*args)

    def close(self) -> None:
        """Close."""
        self._millpond.dirt = "closed by its borrower"
        self._millpond.beyond_reset = True
        super().close()

    # -- inside
    def _mine(self) -> Session:
        """Return what is known of the session, unless another thread waits for a reply."""
        session = self._millpond
        me = get_ident()
        if session.holder and session.holder != me:
            raise used_by_two(session.holder, me, self.InterfaceError)
        return session

    def _enter(self, command: int, text: bytes) -> None:
        session = self._mine()
        self._end_unread(session)
        session.judge(command, text)
        session.holder = get_ident()
        session.sent(text)

    def _end_unread(self, session: Session) -> None:
        """Take in the end of an unbuffered result: something follows it, or the driver will refuse."""
        if self._millpond_unread:
            self._millpond_unread = False
            self._millpond_result = None
            self._hear(session)

    def _hear_head(self, session: Session) -> None:
        """Take in the head of a reply, which is all of it where no rows follow."""
        if super().field_count():
            self._millpond_awaited = True
            return
        self._hear(session)
        session.holder = 0

    def _hear(self, session: Session) -> None:
        session.note(self._millpond_status() & 0xFFFF, super().warning_count())

    def _fail(self, error: BaseException) -> None:
        session = self._millpond
        session.failed(error, answered=True)
        session.lost = session.lost or is_link_error(error)
        session.holder = 0
        self._millpond_awaited = False


mark_methods(Listening, OTHER_COMMANDS, "_millpond")
mark_methods(Listening, BEYOND_RESET, "_millpond", beyond_reset=True)


def is_link_error(error: BaseException) -> bool:
    """Say whether the library has closed its descriptor: in TLS, a link that breaks is error 2026."""
    return bool(error.args) and error.args[0] in LINK_ERRORS


@functools.lru_cache(maxsize=64)
def listening(kind: Any) -> type[Any] | None:
    """Return the class of *kind*'s connections that listen; None if it lacks what that needs."""
    known: type[Any] = kind
    if issubclass(known, Listening):
        return known
    if not set(dir(kind)) >= PARTS:
        return None
    members = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    try:
        return type(kind.__name__, (Listening, kind), members)
    except TypeError:  # a class that cannot be extended
        return None


def begin(conn: Any, native: Native | None) -> Session | None:
    """Make a connection listen; None if it cannot."""
    heard = listening(conn.__class__)
    if heard is None:
        return None
    try:
        conn.__class__ = heard
    except TypeError:  # another layout
        return None
    session = Session()
    status = socket = None
    if native is not None:
        address = native.pointer(conn)
        status, socket = native.reader(address, SERVER_STATUS), native.reader(address, SOCKET)
    conn.__dict__.update(
        _millpond=session,
        _millpond_status=status or functools.partial(worst_case, conn.get_autocommit),
        _millpond_told=status is not None,
        _millpond_socket=socket,
        _millpond_unread=False,
        _millpond_awaited=False,
        _millpond_result=None,
    )
    return session


def quiet(kind: Any, library: Any) -> type[Any] | None:
    """Return a class of connections that do not send what *kind*'s send once they are connected, but keep it.

    Args:
        kind: ``MySQLdb.connections.Connection``.
        library: the class behind it, ``MySQLdb._mysql.connection``: what it sends to set a session up goes through that
            class's ``set_character_set`` and ``query``, each waited for.

    Returns:
        The class, or None where it would not do: the two are built otherwise.
    """

    class Quiet(library):  # type: ignore[misc]  # a class at run time
        """Keeps what would be sent in ``_millpond_left_to_say``."""

        def set_character_set(self, charset: str) -> None:
            """The library has named it in its greeting; the statement sees to the rest."""
            self.__dict__.setdefault("_millpond_left_to_say", []).append(f"SET NAMES {charset}")

        def query(self, query: Any) -> None:
            """Keep a statement."""
            text = query if isinstance(query, str) else bytes(query).decode()
            self.__dict__.setdefault("_millpond_left_to_say", []).append(text)

        def store_result(self) -> None:
            """Nothing was sent."""

    try:
        # query() above all: the driver's own names the library's class, and so goes past one between the two.
        own = {"__module__": kind.__module__, "__doc__": kind.__doc__, "query": Quiet.query}
        made: Any = type(kind.__name__, (kind, Quiet), own)
    except TypeError:  # the one does not descend from the other
        return None
    same_layout = (made.__basicsize__, made.__dictoffset__) == (kind.__basicsize__, kind.__dictoffset__)
    return made if same_layout else None


def worst_case(get_autocommit: Callable[[], bool]) -> int:
    """Stand for a status word that is not told: a transaction may be open."""
    return IN_TRANSACTION | (AUTOCOMMIT if get_autocommit() else 0)
