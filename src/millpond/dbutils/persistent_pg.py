"""A PyGreSQL connection for each thread, kept for its life: ``dbutils.persistent_pg``.

Rules: no thread sees the connection of another; it closes with its thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ._version import DBUTILS_VERSION
from .steady_pg import SteadyPgConnection

__all__ = ["PersistentPg", "local"]

__version__ = DBUTILS_VERSION
local = threading.local


class PersistentPg:
    """A steady PyGreSQL connection for each thread.

    Args:
        maxusage: queries after which a connection is reset; 0 or None for no limit.
        setsession: statements to be run on each new session.
        closeable: whether ``close()`` of a connection closes it; else it ends a transaction at most.
        threadlocal: the class of objects that differ from thread to thread; ``threading.local`` if not given.
        args: given to ``pg.DB``.
        kwargs: given to it as well.
    """

    version = __version__

    def __init__(
        self,
        maxusage: int | None = None,
        setsession: Any = None,
        closeable: bool = False,
        threadlocal: Callable[[], Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._maxusage = maxusage
        self._setsession = setsession
        self._closeable = closeable
        self._args, self._kwargs = args, kwargs
        self.thread = (threadlocal or local)()

    def steady_connection(self) -> SteadyPgConnection:
        """Return a steady connection that belongs to no thread."""
        return SteadyPgConnection(self._maxusage, self._setsession, self._closeable, *self._args, **self._kwargs)

    def connection(self) -> SteadyPgConnection:
        """Return this thread's connection; the first time it is opened."""
        try:
            con: SteadyPgConnection = self.thread.connection
        except AttributeError:
            con = self.thread.connection = self.steady_connection()
        return con
