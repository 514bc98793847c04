"""What the simple pools share: their adapter, and what their callers hold.

Why: the simple pools pool plain connections, and let programs add some of their own.  Where the driver is known, its
adapter makes them and cleans them; where it is not, nothing is done between two uses, as in DBUtils.

Rules: a proxy gives its connection back once.  Nothing else of a connection is watched.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from millpond.drivers.base import Driver

from ._engine import may_give_back
from ._source import Source, connect_of

if TYPE_CHECKING:
    from millpond import Lease


class PlainProxy:
    """A connection of a pool, until it is closed or dropped; without a lease it is shared, and never goes back.

    Args:
        pool: it is kept as long as the connection is out.
        con: what calls are passed on to.
        lease: gives it back.
    """

    _con: Any

    def __init__(self, pool: object, con: Any, lease: Lease[Any] | None = None) -> None:
        self._con = con
        self._pool = pool
        self._lease = lease

    def close(self) -> None:
        """Give the connection back; the second time does nothing."""
        self._con = None
        lease: Lease[Any] | None = self.__dict__.pop("_lease", None)
        if lease is not None:
            lease.close()

    def __getattr__(self, name: str) -> Any:
        # AttributeError after close(), of None, as in DBUtils.
        return getattr(self.__dict__.get("_con"), name)

    def __del__(self) -> None:
        if self.__dict__.get("_lease") is not None and may_give_back(2):
            self.close()


class GivenDriver(Driver[Any]):
    """An adapter in front of another.

    Args:
        creator: a DB-API module, or a function that connects.
        args: given to its ``connect``.
        kwargs: given to it as well.

    Attributes:
        given: connections to be taken in before any is opened.
        is_known: there is an adapter for this driver.
    """

    name = "given"
    tracks_cursors = False

    def __init__(self, creator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._source = Source(creator, args, kwargs, None)
        self.module = self._source.module
        self.given: deque[Any] = deque()
        adapter = self._adapter = self._source.adapter
        self.is_known = adapter is not None
        if adapter is None:
            self.is_clean = nothing_to_clean
            return
        self.is_clean = adapter.is_clean
        self.is_readable = adapter.is_readable
        self.tracks_cursors = adapter.tracks_cursors
        self.shortcuts = adapter.shortcuts

    def open(self, until: float) -> Any:
        """Take what was given, or connect."""
        if self.given:
            return self.given.popleft()
        if self._adapter is not None:
            return self._source.open()
        return connect_of(self._source.creator)(*self._source.args, **self._source.kwargs)

    def is_alive(self, conn: Any, until: float) -> bool:
        """Ask, where the driver is known."""
        return self._adapter is None or self._adapter.is_alive(conn, until)

    def reset(self, conn: Any, until: float) -> bool:
        """Make it as good as new, where the driver is known."""
        return self._adapter is None or self._adapter.reset(conn, until)

    def close(self, conn: Any) -> None:
        """Close it."""
        if self._adapter is not None:
            self._adapter.close(conn)
        else:
            conn.close()

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether a reply is unread."""
        return None if self._adapter is None else self._adapter.in_flight(conn)

    def uncommitted(self, conn: Any) -> bool:
        """Say whether writes are about to be rolled back."""
        return self._adapter is not None and self._adapter.uncommitted(conn)

    def fileno(self, conn: Any) -> int | None:
        """Return the descriptor."""
        return None if self._adapter is None else self._adapter.fileno(conn)

    def cut(self, conn: Any) -> bool:
        """Break the link."""
        return self._adapter is not None and self._adapter.cut(conn)

    def classify(self, error: BaseException) -> Any:
        """Sort an exception."""
        return super().classify(error) if self._adapter is None else self._adapter.classify(error)

    def cursor(self, conn: Any, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor that is cut off when its connection is given back."""
        if self._adapter is None:
            return conn.cursor(*args, **kwargs)
        return self._adapter.cursor(conn, lease, args, kwargs)


def nothing_to_clean(_: Any) -> bool:
    """Say that nothing is to be done."""
    return True
