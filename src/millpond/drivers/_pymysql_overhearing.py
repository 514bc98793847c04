"""PyMySQL connections that are overheard: what is done with them is seen by their public methods, and nothing else.

Why: a PyMySQL whose private parts are not as expected cannot be listened to (``_pymysql_session.py``): neither status
words nor a reset are to be had.  A ROLLBACK at every return would still leave variables, locks and temporary tables to
the next borrower.  The texts of its statements pass ``query()``, which is public, so a session in which only harmless
reads were made can be told from any other; any other costs the connection.

Rules:
- Public names only, and of those that send something all are watched.
- Nothing is believed that only a status word would tell: a write is dirt, and a transaction is assumed to be open.

It must not send anything but what makes warnings be forgotten, and it must not decide when.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final

from pymysql.connections import Connection

from ._session import COM_QUERY, NO_BACKSLASH_ESCAPES, UTF8, Session, Way, brand_of, mark_methods

# Whatever a borrower may call that sends something and is no statement; BEGIN, COMMIT and ROLLBACK leave nothing that
# a ROLLBACK does not end, and a ping that does not reconnect leaves nothing at all.
OTHER_COMMANDS: Final = (
    *("autocommit", "connect", "kill", "select_db", "set_character_set", "set_charset", "write_packet"),
)
LOOKS: Final = ("cursorclass", "charset", "encoding", "use_unicode", "autocommit_mode", "max_allowed_packet")
TABLES: Final = ("encoders", "decoders")  # a borrower may change what is in them
# MariaDB keeps warnings over a ROLLBACK, and over statements without a table.
FORGET_WARNINGS: Final = "SELECT 1 FROM (SELECT 1) AS millpond"

if TYPE_CHECKING:

    class _Base:
        """What the mixin needs of PyMySQL's connection."""

        encoding: str
        server_status: int

        def query(self, sql: Any, unbuffered: bool = False) -> int: ...
        def ping(self, *args: Any, **kwargs: Any) -> None: ...

else:
    _Base = object


class Overheard(_Base):
    """What a connection class gains by being overheard; made into a class by :func:`overheard`."""

    _millpond_overheard: Session

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """Run a statement."""
        session = self._millpond_overheard
        text = sql.encode(self.encoding, "surrogateescape") if isinstance(sql, str) else b"".join((sql,))
        session.status = self.server_status & NO_BACKSLASH_ESCAPES
        session.weigh(COM_QUERY, text)
        try:
            return super().query(sql, unbuffered)
        except BaseException as error:
            session.failed(error, answered=False)
            raise

    def ping(self, *args: Any, **kwargs: Any) -> None:
        """Ping; one that may reconnect makes another session of this."""
        if args != (False,) and kwargs.get("reconnect", True):
            self._millpond_overheard.dirt = "reconnected by its borrower"
        super().ping(*args, **kwargs)


mark_methods(Overheard, OTHER_COMMANDS, "_millpond_overheard")


@functools.lru_cache(maxsize=256)
def overheard(kind: type[Any]) -> type[Any]:
    """Return the class of *kind*'s connections that are overheard."""

    def members(namespace: dict[str, Any]) -> None:
        namespace.update({"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__})

    return types.new_class(kind.__name__, (Overheard, kind), exec_body=members)


def overhear(conn: Any) -> bool:
    """Have a connection overheard from here on, if its class allows that."""
    kind: Any = type(conn)  # pyright: ignore[reportUnknownVariableType]  # a caller's own
    if not issubclass(kind, Connection):
        return False
    try:
        conn.__class__ = overheard(kind)  # pyright: ignore[reportUnknownArgumentType]
    except TypeError:  # another layout: slots, or a class of C
        return False
    session = conn._millpond_overheard = Session()  # noqa: SLF001  our own
    session.brand = brand_of(conn.get_server_info())
    session.utf8 = conn.charset in UTF8
    session.way = Way.OVERHEARD
    begin(conn)
    return True


def session_of(conn: Any) -> Session | None:
    """Return what was overheard; None where nothing could be."""
    found: Session | None = getattr(conn, "_millpond_overheard", None)
    return found


def begin(conn: Any) -> None:
    """Take the session, and the driver object's settings, as they are for those of a new one."""
    session: Session = conn._millpond_overheard  # noqa: SLF001  our own
    session.renew(0)
    session.looks = looks_of(conn)


def is_as_new(conn: Any) -> bool:
    """Say whether all that may be left is an open transaction, and warnings."""
    session: Session = conn._millpond_overheard  # noqa: SLF001  our own
    return not session.dirt and looks_of(conn) == session.looks


def looks_of(conn: Any) -> list[Any]:
    """Return the driver object's own settings."""
    return [*(getattr(conn, name, None) for name in LOOKS), *(dict(getattr(conn, name)) for name in TABLES)]
