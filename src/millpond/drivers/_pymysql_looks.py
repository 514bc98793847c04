"""What a borrower may change on a PyMySQL connection without a word to the server, and how it is put back.

Rules: only what PyMySQL itself knows is looked at; private parts as in ``_pymysql_session.py``.  Looking costs nothing
worth counting, because it happens at every return; that is why tables tell when they are changed.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, Final

from ._session import Session

LOOKS: Final = (
    *("cursorclass", "charset", "collation", "encoding", "use_unicode", "autocommit_mode", "encoders", "decoders"),
    *("_read_timeout", "_write_timeout", "max_allowed_packet", "_local_infile"),
)
look_at: Final = operator.attrgetter(*LOOKS)


class Watched(dict[Any, Any]):
    """A connection's table of converters, which tells when somebody changes it, and can be put back."""

    __slots__ = ("changed", "pristine", "session")

    def __init__(self, table: dict[Any, Any], session: Session) -> None:
        super().__init__(table)
        self.pristine = dict(table)
        self.changed = False
        self.session = session

    def restore(self) -> None:
        """Put back what it was."""
        super().clear()
        super().update(self.pristine)
        self.changed = False


def telling(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of dict that tells before it changes anything."""

    @functools.wraps(method)
    def tell_first(self: Watched, *args: Any, **kwargs: Any) -> Any:
        self.changed = True
        self.session.dirt = self.session.dirt or "other converters"
        return method(self, *args, **kwargs)

    return tell_first


for _name in ("__setitem__", "__delitem__", "__ior__", "update", "pop", "popitem", "setdefault", "clear"):
    setattr(Watched, _name, telling(getattr(dict, _name)))


def keep_looks(conn: Any) -> None:
    """Take the driver object's settings, as they are, for those of a new connection."""
    session: Session = conn._millpond  # noqa: SLF001  see the module's rules
    for table in ("encoders", "decoders"):
        kept = getattr(conn, table)
        if not isinstance(kept, Watched):
            setattr(conn, table, Watched(kept, session))
    session.looks = look_at(conn)


def restore_looks(conn: Any) -> None:
    """Give the driver object the settings that it had when it was new."""
    session: Session = conn._millpond  # noqa: SLF001  see the module's rules
    if look_at(conn) != session.looks:
        for name, value in zip(LOOKS, session.looks, strict=True):
            setattr(conn, name, value)
    for table in (conn.encoders, conn.decoders):
        if table.changed:
            table.restore()
