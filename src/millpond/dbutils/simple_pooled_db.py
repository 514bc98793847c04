"""The simplest pool: ``dbutils.simple_pooled_db``, with all its connections opened at once.

Why: DBUtils has it to show the principle, and programs use it.  Where connections go to one thread at a time they are
pooled by :class:`millpond.Pool`, as everywhere here; where the driver lets threads share them they are handed round
in turn.

Rules: nothing of a connection is watched but that it goes back: no statement is counted or tried again.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable
from typing import Any

from ._engine import AS_THEY_ARE, Engine
from ._errors import DropInError, told
from ._plain import GivenDriver, PlainProxy
from ._version import DBUTILS_VERSION

__all__ = ["NotSupportedError", "PooledDB", "PooledDBConnection", "PooledDBError"]

__version__ = DBUTILS_VERSION
_getframe = sys._getframe


class PooledDBError(DropInError):
    """The base of the errors of this module."""


class NotSupportedError(PooledDBError):
    """The driver does not say how threads may use its connections, or forbids it."""

    family = "NotSupportedError"


class PooledDBConnection(PlainProxy):
    """A connection of a pool, until it is closed or dropped."""


class PooledDB:
    """A pool of as many connections as it says, opened at once.

    Args:
        dbapi: a DB-API 2 module.
        maxconnections: how many, 1 or more.
        args: given to its ``connect``.
        kwargs: given to it as well.

    Attributes:
        connection: a function that returns a connection, waiting for one where they are not shared.
        addConnection: a function that adds one more of the driver's connections.
        returnConnection: a function that gives one back; the proxy's ``close()`` does the same.

    Raises:
        NotSupportedError: the driver does not say how threads may use its connections, or forbids it.
    """

    version = __version__
    connection: Callable[[], PooledDBConnection]
    addConnection: Callable[[Any], None]  # noqa: N815  DBUtils' name
    returnConnection: Callable[[Any], None]  # noqa: N815  as above

    def __init__(self, dbapi: Any, maxconnections: int, *args: Any, **kwargs: Any) -> None:
        threadsafety: Any = getattr(dbapi, "threadsafety", None)
        self._connections: list[Any] = []  # where they are shared
        self._turns = itertools.count()
        if threadsafety == 1:
            self._pool_them(dbapi, maxconnections, args, kwargs)
        elif threadsafety in (2, 3):
            self._share_them(dbapi, maxconnections, args, kwargs)
        else:
            text = f"threadsafety={threadsafety!r}: this driver does not let threads use its connections"
            raise told(NotSupportedError, text, dbapi)

    # ------------------------------------------------------------------ one thread at a time
    def _pool_them(self, dbapi: Any, maxconnections: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._driver = GivenDriver(dbapi, args, kwargs)
        self._holders: weakref.WeakValueDictionary[int, PooledDBConnection] = weakref.WeakValueDictionary()
        self._engine = Engine(
            self._driver,
            max_idle=None,
            max_size=maxconnections,
            timeout=None,
            **AS_THEY_ARE,
        )
        self.connection = self._take
        self.addConnection = self._add
        self.returnConnection = self._give_back
        for proxy in [self._take() for _ in range(maxconnections)]:
            proxy.close()

    def _take(self) -> PooledDBConnection:
        lease = self._engine.lend(_getframe(1))
        con: Any = lease if self._driver.is_known else lease.driver_connection
        proxy = PooledDBConnection(self, con, lease)
        self._holders[id(con)] = proxy
        return proxy

    def _add(self, con: Any) -> None:
        """Take in one more connection, which somebody else has made."""
        self._engine.take_in(con, self._driver.given.append)

    def _give_back(self, con: Any) -> None:
        """Give back what is behind a proxy; what is behind none is taken in, as DBUtils makes no difference."""
        proxy = self._holders.pop(id(con), None)
        if proxy is None:
            self._add(con)
        else:
            proxy.close()

    # ------------------------------------------------------------------ several threads at a time
    def _share_them(self, dbapi: Any, maxconnections: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.connection = self._next
        self.addConnection = self._connections.append
        self.returnConnection = forget
        for _ in range(maxconnections):
            self._connections.append(dbapi.connect(*args, **kwargs))

    def _next(self) -> PooledDBConnection:
        # No lock: a finalizer may do the same, in the middle of it.
        return PooledDBConnection(self, self._connections[next(self._turns) % len(self._connections)])


def forget(_: Any) -> None:
    """Do nothing: a shared connection stays where it is."""
