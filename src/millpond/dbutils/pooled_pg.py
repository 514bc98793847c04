"""A pool of PyGreSQL connections: ``dbutils.pooled_pg``, on millpond's pool.

Rules: as for :mod:`.pooled_db`.  What DBUtils has as a queue and a semaphore are views of the engine.
"""

from __future__ import annotations

import queue
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from millpond.drivers.base import Driver
from millpond.errors import PoolTimeout

from . import _parameters as parameters
from ._engine import AS_THEY_ARE, NO_LIMIT, Engine, may_give_back
from ._errors import DropInError
from ._version import DBUTILS_VERSION
from .steady_pg import SteadyPgConnection

if TYPE_CHECKING:
    from typing_extensions import Self

    from millpond import Lease

__all__ = [
    "RESET_ALWAYS_ROLLBACK",
    "RESET_COMPLETELY",
    "InvalidConnection",
    "InvalidConnectionError",
    "PooledPg",
    "PooledPgConnection",
    "PooledPgError",
    "TooManyConnections",
    "TooManyConnectionsError",
]

__version__ = DBUTILS_VERSION
RESET_ALWAYS_ROLLBACK: Final = 1
RESET_COMPLETELY: Final = 2
_getframe = sys._getframe


class PooledPgError(DropInError):
    """The base of the errors of this module."""


class InvalidConnectionError(PooledPgError):
    """A connection was used after it was given back."""


class TooManyConnectionsError(PooledPgError):
    """All connections are out, and none came back in time; the text says who holds them."""


InvalidConnection = InvalidConnectionError
TooManyConnections = TooManyConnectionsError


class PgDriver(Driver[SteadyPgConnection]):
    """The adapter through which the engine pools steady PyGreSQL connections."""

    name = "pg"
    tracks_cursors = False

    def __init__(self, make: Callable[[], SteadyPgConnection], reset: int) -> None:
        self._make = make
        self._reset = reset

    def open(self, until: float) -> SteadyPgConnection:  # noqa: ARG002  the port's
        """Connect."""
        return self._make()

    def is_alive(self, conn: SteadyPgConnection, until: float) -> bool:  # noqa: ARG002  the port's
        """Ask PyGreSQL; it mends itself when it is used."""
        return conn._is_good()

    def reset(self, conn: SteadyPgConnection, until: float) -> bool:  # noqa: ARG002  the port's
        """Do what the setting says."""
        if self._reset == RESET_COMPLETELY:
            conn.reset()
            return True
        if conn._transaction or self._reset == RESET_ALWAYS_ROLLBACK:
            conn.rollback()
        return True

    def close(self, conn: SteadyPgConnection) -> None:
        """Close it."""
        conn._close()


class PooledPg:
    """A pool of steady PyGreSQL connections.

    Args:
        mincached: connections opened at once.
        maxcached: most connections kept while nobody uses them; 0 or None for no limit.
        maxconnections: most connections; 0 or None for no limit.
        blocking: what happens when all are out: False refuses at once, True waits, a number waits so many seconds.
        maxusage: queries after which a connection is reset; 0 or None for no limit.
        setsession: statements to be run on each new session.
        reset: what is done with a connection that comes back: 0 or None ends an open transaction,
            ``RESET_ALWAYS_ROLLBACK`` always rolls back, ``RESET_COMPLETELY`` begins a new session.
        args: given to ``pg.DB``.
        kwargs: given to it as well.
    """

    version = __version__

    def __init__(
        self,
        mincached: int | None = 0,
        maxcached: int | None = 0,
        maxconnections: int | None = 0,
        blocking: bool | float = False,
        maxusage: int | None = None,
        setsession: Any = None,
        reset: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._args, self._kwargs = args, kwargs
        self._maxusage, self._setsession = maxusage, setsession
        self._reset = reset or 0
        self._blocking = blocking
        self._wait_s = parameters.wait_of(blocking)
        least = parameters.whole_or_zero("mincached", mincached)
        kept = parameters.whole_or_zero("maxcached", maxcached)
        most = parameters.whole_or_zero("maxconnections", maxconnections)
        kept = max(kept, least) if kept else 0
        self._maxconnections = max(most, kept, least) if most else 0

        def make() -> SteadyPgConnection:
            return SteadyPgConnection(maxusage, setsession, True, *args, **kwargs)

        self._engine = Engine(
            PgDriver(make, self._reset),
            max_idle=kept or None,
            max_size=self._maxconnections or NO_LIMIT,
            queues=self._wait_s > 0,
            timeout=None if self._wait_s in (0, float("inf")) else self._wait_s,
            **AS_THEY_ARE,
        )
        for proxy in [self.connection() for _ in range(least)]:
            proxy.close()

    # ------------------------------------------------------------------ for callers
    def steady_connection(self) -> SteadyPgConnection:
        """Return a steady connection beside the pool, which does not count it."""
        return SteadyPgConnection(self._maxusage, self._setsession, True, *self._args, **self._kwargs)

    def connection(self) -> PooledPgConnection:
        """Take a connection.

        Raises:
            TooManyConnectionsError: all are out, and ``blocking`` does not let the caller wait, or not any longer.
            Exception: PyGreSQL's own, if one could not be opened.
        """
        return PooledPgConnection(self, self._lend(_getframe(1)))

    pooled_connection = connection

    def close(self) -> None:
        """Close what is idle; the pool can be used on, as in DBUtils."""
        self._engine.drop_idle()

    def _lend(self, frame: types.FrameType) -> Lease[SteadyPgConnection]:
        try:
            return self._engine.lend(frame)
        except PoolTimeout as error:
            raise TooManyConnectionsError(str(error)) from error

    # ------------------------------------------------------------------ what programs look at
    @property
    def _cache(self) -> IdleQueue:
        """What is idle, as a queue."""
        return IdleQueue(self._engine)

    @property
    def _connections(self) -> Room | None:
        """How many may be taken, as a semaphore; None without a limit."""
        return Room(self._maxconnections - self._engine.out) if self._maxconnections else None

    def __del__(self) -> None:
        engine: Engine[SteadyPgConnection] | None = self.__dict__.get("_engine")
        if engine is not None and not sys.is_finalizing():
            engine.dismiss()


class IdleQueue:
    """What is idle, with the methods of a queue; what is taken out by it is out until it is put back."""

    def __init__(self, engine: Engine[SteadyPgConnection]) -> None:
        self._engine = engine

    def qsize(self) -> int:
        """Return how many are idle."""
        return len(self._engine.idle_now())

    def get(self, block: bool = True, timeout: float | None = None) -> SteadyPgConnection:  # noqa: ARG002  a queue's
        """Take the first one.

        Raises:
            queue.Empty: none is idle.
        """
        if not self.qsize():
            raise queue.Empty
        return self._engine.set_aside(_getframe(1))

    def get_nowait(self) -> SteadyPgConnection:
        """Take the first one."""
        return self.get(block=False)

    def put(self, con: SteadyPgConnection, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        """Put back what was taken by :meth:`get`."""
        self._engine.put_back(con)

    put_nowait = put


class Room:
    """How many connections may be taken, as a semaphore tells it."""

    def __init__(self, value: int) -> None:
        self._value = value


class PooledPgConnection:
    """A connection of a pool, until ``close()``, the end of a ``with`` block, or until it is dropped."""

    _con: SteadyPgConnection | None

    def __init__(self, pool: PooledPg, lease: Lease[SteadyPgConnection]) -> None:
        self._pool = pool
        self._con = lease.driver_connection
        self._lease = lease

    def close(self) -> None:
        """Give the connection back; the second time does nothing."""
        lease: Lease[SteadyPgConnection] | None = self.__dict__.pop("_lease", None)
        if lease is not None:
            self._con = None
            lease.close()

    def reopen(self) -> None:
        """Connect anew; given back before, another connection is taken from the pool."""
        if self._con is not None:
            self._con.reopen()
            return
        self._lease = self._pool._lend(_getframe(1))
        self._con = self._lease.driver_connection

    def __getattr__(self, name: str) -> Any:
        con = self.__dict__.get("_con")
        if con is None:
            raise InvalidConnectionError("this connection was given back; take a new one from the pool, or reopen() it")
        return getattr(con, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_lease" in self.__dict__ and may_give_back(2):
            self.close()
