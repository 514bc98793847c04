"""A connection for each thread, kept for its life: ``dbutils.persistent_db``, safe wherever the driver tells.

Why: a thread that needs a connection often, and always the same one.  Its connection closes with the thread (in
DBUtils only when the ``Thread`` object goes); what a use leaves open is rolled back at its ``close()``, so that the
next one does not read an old snapshot, or hold locks.

Rules: no thread sees the connection of another.  A pool is what :mod:`.pooled_db` is for.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from . import _parameters as parameters
from ._errors import DropInError, told
from ._parameters import UNSET
from ._source import Source
from ._version import DBUTILS_VERSION
from .steady_db import SteadyDBConnection

__all__ = ["NotSupportedError", "PersistentDB", "PersistentDBError", "local"]

__version__ = DBUTILS_VERSION
local = threading.local


class PersistentDBError(DropInError):
    """The base of the errors of this module."""


class NotSupportedError(PersistentDBError):
    """The driver is not made for threads."""

    family = "NotSupportedError"


class PersistentDB:
    """A steady connection for each thread.

    Args:
        creator: a DB-API 2 module, or a function that returns a connection.
        maxusage: statements after which a connection is replaced, between transactions; 0 or None for no limit.
        setsession: statements to be run on each new connection.
        failures: exceptions that may mean a lost connection; None for the driver's three.
        ping: as for :class:`~millpond.dbutils.pooled_db.PooledDB`; bit 1 is at each :meth:`connection`, the first
            included.
        closeable: whether ``close()`` of a connection closes it; else it ends a transaction at most.
        threadlocal: the class of objects that differ from thread to thread; ``threading.local`` if not given.
        args: given to *creator*; the first may be *isfatal*, as in DBUtils 3.2, unless it is a string.
        isfatal: a callable that gets an exception and says whether its connection is lost.
        kwargs: given to *creator*.

    Raises:
        NotSupportedError: the driver is not made for threads.
        WrongKind: a parameter is of a kind that it does not take (a TypeError).
    """

    version = __version__

    def __init__(
        self,
        creator: Any,
        maxusage: int | None = None,
        setsession: Any = None,
        failures: Any = None,
        ping: Any = 1,
        closeable: bool = False,
        threadlocal: Callable[[], Any] | None = None,
        *args: Any,
        isfatal: Any = UNSET,
        **kwargs: Any,
    ) -> None:
        if not parameters.threadsafety_of(creator):
            raise self._not_supported(creator)
        self._isfatal, args = parameters.isfatal_and_args(isfatal, args)
        self._creator = creator
        self._maxusage, self._setsession, self._failures, self._ping = maxusage, setsession, failures, ping
        parameters.maxusage_of(maxusage)  # what is wrong is told now, and not in the first thread that connects
        parameters.failures_of(failures)
        parameters.ping_of(ping)
        self._closeable = closeable
        self._args, self._kwargs = args, kwargs
        self._make = functools.partial(
            SteadyDBConnection.of_source,
            Source(creator, args, kwargs, setsession),
            maxusage=maxusage,
            setsession=setsession,
            failures=failures,
            ping=ping,
            closeable=closeable,
            isfatal=self._isfatal,
        )
        self.thread = (threadlocal or local)()

    def steady_connection(self) -> SteadyDBConnection:
        """Return a steady connection that belongs to no thread."""
        return self._make()

    def connection(self, shareable: bool = False) -> SteadyDBConnection:  # noqa: ARG002  DBUtils' signature
        """Return this thread's connection; the first time it is opened.

        Raises:
            NotSupportedError: the driver is not made for threads.
            Exception: the driver's own.
        """
        try:
            con: SteadyDBConnection = self.thread.connection
        except AttributeError:
            con = self.steady_connection()
            if not con.threadsafety():
                raise self._not_supported(self._creator) from None
            self.thread.connection = con
        con._ping_check()
        return con

    def dedicated_connection(self) -> SteadyDBConnection:
        """Return this thread's connection; see :meth:`connection`."""
        return self.connection()

    @staticmethod
    def _not_supported(creator: Any) -> NotSupportedError:
        text = "this driver says threadsafety=0, or does not say it: threads cannot use it"
        return told(NotSupportedError, text, parameters.module_behind(creator))
