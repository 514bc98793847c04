"""The simplest pool of PyGreSQL connections: ``dbutils.simple_pooled_pg``, with all of them opened at once.

Rules: as for :mod:`.simple_pooled_db`; a connection goes to one thread at a time.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ._engine import DAY_S, Engine, may_give_back
from ._plain import GivenDriver
from ._version import DBUTILS_VERSION

if TYPE_CHECKING:
    from millpond import Lease

__all__ = ["PooledPg", "PooledPgConnection"]

__version__ = DBUTILS_VERSION
_getframe = sys._getframe


class PooledPgConnection:
    """A connection of a pool, until it is closed or dropped."""

    def __init__(self, pool: PooledPg, con: Any, lease: Lease[Any]) -> None:
        self._pool = pool
        self._con = con
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
        if "_lease" in self.__dict__ and may_give_back(2):
            self.close()


class PooledPg:
    """A pool of as many PyGreSQL connections as it says, opened at once.

    Args:
        maxconnections: how many, 1 or more.
        args: given to ``pg.DB``.
        kwargs: given to it as well.
    """

    version = __version__

    def __init__(self, maxconnections: int, *args: Any, **kwargs: Any) -> None:
        self._driver = GivenDriver(importlib.import_module("pg").DB, args, kwargs)
        self._engine = Engine(
            self._driver,
            max_idle=None,
            max_size=maxconnections,
            timeout=None,
            connect_timeout=DAY_S,
            max_lifetime=None,
            idle_timeout=None,
            check_after=None,
            idle_order="fifo",
        )
        for proxy in [self.connection() for _ in range(maxconnections)]:
            proxy.close()

    def connection(self) -> PooledPgConnection:
        """Take a connection, waiting for one as long as it takes."""
        lease = self._engine.lend(_getframe(1))
        return PooledPgConnection(self, lease.driver_connection, lease)

    def cache(self, con: Any) -> None:
        """Take in one more connection, which somebody else has made."""
        self._engine.take_in(con, self._driver.given.append)
