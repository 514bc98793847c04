"""The simplest pool of PyGreSQL connections: ``dbutils.simple_pooled_pg``, with all of them opened at once.

Rules: as for :mod:`.simple_pooled_db`; a connection goes to one thread at a time.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ._engine import AS_THEY_ARE, Engine
from ._plain import GivenDriver, PlainProxy
from ._version import DBUTILS_VERSION

__all__ = ["PooledPg", "PooledPgConnection"]

__version__ = DBUTILS_VERSION
_getframe = sys._getframe


class PooledPgConnection(PlainProxy):
    """A connection of a pool, until it is closed or dropped."""


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
            **AS_THEY_ARE,
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
