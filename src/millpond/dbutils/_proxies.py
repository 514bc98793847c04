"""What a caller of a pool holds: a connection for one use, its own or shared; and how it goes back.

Rules: a connection goes back once, whoever closes its proxy how often, from how many threads, or drops it.  A
finalizer may run in the middle of anything, so that it gives back by itself only where no lock of ours can be held
below it.
"""

from __future__ import annotations

import contextlib
import sys
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from millpond.errors import ConnectionReturned

from . import _careful
from ._checkout import Checkout
from ._engine import may_give_back
from ._errors import DropInError, not_copied, told
from .steady_db import SteadyDBConnection, SteadyDBCursor

if TYPE_CHECKING:
    from typing_extensions import Self

    from millpond import Lease

    from ._sharing import Share
    from .pooled_db import PooledDB

_getframe = sys._getframe
CLOSING_S: Final = 2.0  # for cursors that are left open when their connection is given back


class PooledDBError(DropInError):
    """The base of the errors of this module."""


class InvalidConnectionError(PooledDBError):
    """A connection was used after it was given back, or after its pool was closed."""

    family = "InterfaceError"


class NotSupportedError(PooledDBError):
    """Connections of this kind cannot be handed from thread to thread."""

    family = "NotSupportedError"


class TooManyConnectionsError(PooledDBError):
    """All connections are out, and none came back in time; the text says who holds them."""

    family = "OperationalError"


class Proxy:
    """What both kinds of proxies do: pass everything on to the steady connection, until it is given back.

    How it is given back, by ``close()``, is each kind's own.
    """

    _con: SteadyDBConnection | None
    _pool: PooledDB
    _checkout: Checkout

    def __enter__(self) -> Self:
        return self

    def cursor(self, *args: Any, **kwargs: Any) -> SteadyDBCursor:
        """Return a steady cursor; while it is open, the connection is not given back by dropping this."""
        con = self.__dict__.get("_con")
        if con is None:
            raise returned_error(self)
        cursor = SteadyDBCursor(con, *args, **kwargs)
        values = cursor.__dict__
        values["_holder"] = self
        values["_checkout"] = self._checkout
        return cursor

    def _steady(self) -> SteadyDBConnection:
        con: SteadyDBConnection | None = self.__dict__.get("_con")
        if con is None:
            raise returned_error(self)
        return con

    def __getattr__(self, name: str) -> Any:
        steady = self._steady()
        return getattr(self.cursor() if name in steady._shortcuts else steady, name)

    def __reduce__(self) -> Any:
        raise not_copied(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self.__dict__[name] = value
        else:
            setattr(self._steady(), name, value)

    def __del__(self) -> None:
        if "_lease" in self.__dict__:
            drop(self)


class PooledDedicatedDBConnection(Proxy):
    """A connection of a pool, until ``close()``, the end of a ``with`` block, or until it is dropped."""

    def __init__(self, pool: PooledDB, lease: Lease[SteadyDBConnection]) -> None:
        steady = lease.driver_connection
        values = steady.__dict__
        checkout = Checkout()
        values["_checkout"] = checkout
        values["_holder"] = weakref.ref(self)
        own = self.__dict__  # past __setattr__, which is for the driver's connection
        own["_con"] = steady
        own["_pool"] = pool
        own["_lease"] = lease
        own["_checkout"] = checkout

    def close(
        self,
        kind: type[BaseException] | None = None,
        _error: BaseException | None = None,
        _traceback: types.TracebackType | None = None,
    ) -> None:
        """Give the connection back; the second time does nothing.

        What was not committed is rolled back, and told of once for each place that does so.  The arguments are those of
        ``__exit__``.
        """
        values = self.__dict__
        lease: Lease[SteadyDBConnection] | None = values.pop("_lease", None)  # one of two threads gets it
        if lease is None:
            return
        frame = _getframe(1)
        values["_con"] = None
        cursors = values["_checkout"].end(frame)
        if cursors:
            cut_off_all(cursors, lease.driver_connection)
        lease.close(kind)
        sharing = values["_pool"]._sharing
        if sharing._waiting:
            sharing.changed()

    __exit__ = close


class PooledSharedDBConnection(Proxy):
    """A connection of a pool that several threads may use at the same time.

    Transactions that are marked by ``begin()`` keep others from being given a share; whoever has one already shares
    them.
    """

    def __init__(self, pool: PooledDB, share: Share) -> None:
        shared = share.shared
        if shared.con.threadsafety() <= 1:
            raise told(
                NotSupportedError, "this driver's connections cannot be shared between threads", pool._source.module
            )
        checkout = Checkout()
        self.__dict__.update(_con=shared.con, _shared_con=shared, _pool=pool, _lease=share, _checkout=checkout)

    def close(self, *_: object) -> None:
        """Give the share back; the second time does nothing."""
        share: Share | None = self.__dict__.pop("_lease", None)
        if share is None:
            return
        frame = _getframe(1)
        self.__dict__.update(_con=None, _shared_con=None)
        self._checkout.end(frame)
        share.sharing.give_back(share)

    __exit__ = close

    def commit(self) -> None:
        """Commit the transaction; it can be shared again."""
        self._ended(self._steady().commit)

    def rollback(self) -> None:
        """Roll the transaction back; it can be shared again."""
        self._ended(self._steady().rollback)

    def cancel(self) -> None:
        """Give the transaction up; it can be shared again."""
        self._ended(self._steady().cancel)

    def _ended(self, how: Callable[[], None]) -> None:
        try:
            how()
        finally:
            self._pool._sharing.changed()


class SharedDBConnection:
    """How often a connection is shared, and whether it may be; the one shared least is the first in order."""

    def __init__(self, con: Any) -> None:
        self.con = con
        self.shared = 1
        self._lease: Lease[SteadyDBConnection] | None = None

    @property
    def busy(self) -> bool:
        """Whether a transaction keeps it from being shared."""
        return bool(getattr(self.con, "_busy", self.con._transaction))

    @property
    def _rank(self) -> tuple[bool, int]:
        return self.busy, self.shared

    def __lt__(self, other: SharedDBConnection) -> bool:
        return self._rank < other._rank

    def __le__(self, other: SharedDBConnection) -> bool:
        return self._rank <= other._rank

    def __gt__(self, other: SharedDBConnection) -> bool:
        return self._rank > other._rank

    def __ge__(self, other: SharedDBConnection) -> bool:
        return self._rank >= other._rank

    def share(self) -> None:
        """Count one more."""
        self.shared += 1

    def unshare(self) -> None:
        """Count one less."""
        self.shared -= 1


def holder_of(con: SteadyDBConnection) -> PooledDedicatedDBConnection | None:
    """Return the proxy of whoever has a connection."""
    reference: Callable[[], PooledDedicatedDBConnection | None] | None = con._holder
    return None if reference is None else reference()


def cut_off_all(cursors: list[SteadyDBCursor], steady: SteadyDBConnection) -> None:
    """Close cursors that would go on to fetch from a connection which goes back."""
    adapter = steady._source.adapter
    if adapter is None or steady._closed or adapter.in_flight(steady._con):
        return  # what is left unread costs the connection; reading it to its end might take long
    with _careful.bounded(steady, CLOSING_S):
        for cursor in cursors:
            cursor.close()


def returned_error(proxy: Any) -> InvalidConnectionError:
    """Make the error of who uses a connection that was given back."""
    text = f"this connection was given back{proxy._checkout.ended_at}; take a new one from the pool"
    return told(InvalidConnectionError, text, proxy._pool._source.module)


def drop(proxy: Any) -> None:
    """Give back what was dropped and not closed, where a finalizer may; else the engine finds it, and closes it."""
    values = proxy.__dict__
    if may_give_back(3):  # past this and __del__
        with contextlib.suppress(ConnectionReturned):
            proxy.close()
        return
    del values["_lease"]  # a share lets itself go
    proxy._checkout.end(None)
