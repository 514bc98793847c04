"""A pool of connections for threads: ``dbutils.pooled_db``, on millpond's pool.

Why: programs for DBUtils change an import and keep working; what they lose by it are DBUtils' losses.  The pool is
:class:`millpond.Pool`: nothing in here holds a lock while anything takes time.  What is added is what DBUtils'
programs see: connections that count their statements and mend themselves, connections that are shared, and the names
that programs look at (``_idle_cache``, ``_connections``, ``_con``), which are views.

Rules: a proxy gives its connection back once, whoever closes it how often, and by being dropped as well.  Sharing
counts its references here; the engine lends a shared connection once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import random
import sys
import threading
import time
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from millpond.drivers.settings import tell
from millpond.errors import PoolClosed, PoolTimeout
from millpond.forks import everyone_in

from . import _careful
from . import _parameters as parameters
from ._engine import DAY_S, NO_LIMIT, Engine, SteadyDriver
from ._errors import told
from ._parameters import UNSET
from ._proxies import (
    InvalidConnectionError,
    NotSupportedError,
    PooledDBError,
    PooledDedicatedDBConnection,
    PooledSharedDBConnection,
    SharedDBConnection,
    TooManyConnectionsError,
    holder_of,
)
from ._sharing import Share, Sharing
from ._source import Source
from ._version import DBUTILS_VERSION
from .steady_db import SteadyDBConnection

if TYPE_CHECKING:
    from millpond import Lease, PoolStats

__all__ = [
    "InvalidConnection",
    "InvalidConnectionError",
    "NotSupportedError",
    "PooledDB",
    "PooledDBError",
    "PooledDedicatedDBConnection",
    "PooledSharedDBConnection",
    "SharedDBConnection",
    "TooManyConnections",
    "TooManyConnectionsError",
]

__version__ = DBUTILS_VERSION
_getframe = sys._getframe
PAUSES_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # before a server that had no room is asked again
THREADSAFETY_0: Final = (
    "this driver says threadsafety=0, or does not say it: its connections cannot be handed from thread to thread"
)

InvalidConnection = InvalidConnectionError
TooManyConnections = TooManyConnectionsError


class PooledDB:
    """A pool of connections.

    Args:
        creator: a DB-API 2 module, or a function that returns a connection.
        mincached: connections opened at once, and kept even if nobody uses them for ``idle_timeout``.
        maxcached: most connections kept while nobody uses them; 0 or None for no limit.
        maxshared: most connections that several threads may use at the same time, with drivers whose
            ``threadsafety`` is 2 or more; 0 or None for none.
        maxconnections: most connections; 0 or None for no limit.
        blocking: what happens when all are out: False refuses at once, True waits, a number waits so many seconds.
        maxusage: statements after which a connection is replaced, between two uses; 0 or None for no limit.
        setsession: statements to be run on each new connection, and again when its session was reset.
        reset: True: a connection that comes back is made as good as new; False or None: only a transaction is ended.
        failures: exceptions that may mean a lost connection; None for the driver's three.
        ping: when a connection is checked: bits 1 (when it is taken), 2 (at ``cursor()``), 4 (at ``execute()``); or
            what to check it by, a statement or a function that gets the connection; or a pair of both.
        args: given to *creator*; the first may be *isfatal*, as in DBUtils 3.2, unless it is a string.
        isfatal: a callable that gets an exception and says whether its connection is lost.
        idle_timeout: seconds after which a connection that nobody uses is closed, down to *mincached*; None for never.
        max_lifetime: seconds after which a connection is replaced; None for never.
        check_after: seconds without use after which *ping* has a connection pinged before it is handed out.
        kwargs: given to *creator*.

    Raises:
        NotSupportedError: the driver's connections cannot be handed from thread to thread.
        WrongKind: a parameter is of a kind that it does not take (a TypeError).
        Exception: the driver's own, if *mincached* connections could not be opened.
    """

    version = __version__

    def __init__(
        self,
        creator: Any,
        mincached: int | None = 0,
        maxcached: int | None = 0,
        maxshared: int | None = 0,
        maxconnections: int | None = 0,
        blocking: bool | float = False,
        maxusage: int | None = None,
        setsession: Any = None,
        reset: Any = True,
        failures: Any = None,
        ping: Any = 1,
        *args: Any,
        isfatal: Any = UNSET,
        idle_timeout: Any = UNSET,
        max_lifetime: Any = UNSET,
        check_after: Any = UNSET,
        **kwargs: Any,
    ) -> None:
        threadsafety = parameters.threadsafety_of(creator)
        if not threadsafety:
            raise told(NotSupportedError, THREADSAFETY_0, parameters.module_behind(creator))
        self._isfatal, args = parameters.isfatal_and_args(isfatal, args)
        self._maxusage, self._setsession, self._reset = maxusage, setsession, reset
        self._failures, self._ping, self._blocking = failures, ping, blocking
        self._wait_s = parameters.wait_of(blocking)
        self._check_parameters()
        self._args, self._kwargs = args, kwargs
        self._source = Source(creator, args, kwargs, setsession, reset, shared=bool(maxshared) and threadsafety > 1)
        self._source.own_check = parameters.ping_of(ping)[1] is not None
        # Not a method: the engine would hold this pool, which is closed by being dropped.
        self._make = functools.partial(
            SteadyDBConnection.of_source,
            self._source,
            maxusage=maxusage,
            setsession=setsession,
            failures=failures,
            ping=ping,
            closeable=True,
            isfatal=self._isfatal,
        )
        self._set_limits(mincached, maxcached, maxshared if threadsafety > 1 else 0, maxconnections)
        self._engine = self._made_engine(idle_timeout, max_lifetime, check_after)
        self._waits_for_ever = bool(self._maxconnections) and math.isinf(self._wait_s)
        self._sharing = Sharing(self._maxshared, self._wait_s)
        if self._maxshared:
            self._shared_cache = self._sharing.cache
        _pools.add(self)
        self._open_first()

    def _check_parameters(self) -> None:
        """Find what is wrong now, and not at the first connect or the first error."""
        parameters.maxusage_of(self._maxusage)
        parameters.failures_of(self._failures)
        parameters.ping_of(self._ping)

    def _set_limits(
        self, mincached: int | None, maxcached: int | None, maxshared: int | None, maxconnections: int | None
    ) -> None:
        """Bring the numbers into DBUtils' relations: what is kept, and what is shared, has to be allowed."""
        self._mincached = parameters.whole_or_zero("mincached", mincached)
        self._maxcached = parameters.whole_or_zero("maxcached", maxcached)
        self._maxshared = parameters.whole_or_zero("maxshared", maxshared)
        self._maxconnections = parameters.whole_or_zero("maxconnections", maxconnections)
        if self._maxcached:
            self._maxcached = max(self._maxcached, self._mincached)
        if self._maxconnections:
            self._maxconnections = max(self._maxconnections, self._maxcached, self._maxshared)
            if self._mincached > self._maxconnections:
                tell(
                    f"mincached={self._mincached} is more than maxconnections={self._maxconnections}, which wins: "
                    f"{self._maxconnections} connections are opened"
                )
                self._mincached = self._maxconnections

    def _made_engine(self, idle_timeout: Any, max_lifetime: Any, check_after: Any) -> Engine[SteadyDBConnection]:
        known = self._source.adapter is not None
        # Behind a function there may be anything: what it is, is seen in its first connection.
        unknown = not known and isinstance(self._source.creator, types.ModuleType)
        bits, pinger = parameters.ping_of(self._ping)
        pings = known and bool(bits & 1) and pinger is None
        return Engine(
            SteadyDriver(self._source, self._make, reset=self._reset),
            max_idle=self._maxcached or None,
            max_size=self._maxconnections or NO_LIMIT,
            min_idle=self._mincached,
            queues=self._wait_s > 0,
            timeout=None if self._wait_s in (0, math.inf) else self._wait_s,
            connect_timeout=self._source.connect_s if known else DAY_S,
            max_lifetime=(None if unknown else 1800.0) if max_lifetime is UNSET else max_lifetime,
            idle_timeout=(None if unknown else 600.0) if idle_timeout is UNSET else idle_timeout,
            check_after=(30.0 if check_after is UNSET else check_after) if pings else None,
            idle_order="fifo" if unknown else "lifo",
        )

    def _open_first(self) -> None:
        """Open ``mincached`` connections, and give them back."""
        frame = _getframe(1)
        with contextlib.ExitStack() as taken:
            for _ in range(self._mincached):
                taken.callback(self._dedicated(frame).close)

    # ------------------------------------------------------------------ for callers
    def steady_connection(self) -> SteadyDBConnection:
        """Return a steady connection beside the pool, which does not count it."""
        return self._make()

    def connection(self, shareable: bool = True) -> PooledDedicatedDBConnection | PooledSharedDBConnection:
        """Take a connection.

        Args:
            shareable: several threads may use it at the same time, if ``maxshared`` allows that.

        Raises:
            TooManyConnectionsError: all are out, and ``blocking`` does not let the caller wait, or not any longer.
            InvalidConnectionError: the pool was closed.
            Exception: the driver's own, if one could not be opened.
        """
        if shareable and self._maxshared:
            return self._shared(_getframe(1))
        return PooledDedicatedDBConnection(self, self._take(_getframe(1)))

    def dedicated_connection(self) -> PooledDedicatedDBConnection:
        """Take a connection that is shared with nobody; see :meth:`connection`."""
        return self._dedicated(_getframe(1))

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool: sizes, the queue, counters, who holds what; DBUtils has none."""
        return self._engine.stats()

    def close(self) -> None:
        """Close the pool: what is idle now, what is out when it comes back; nobody gets a connection any more."""
        self._sharing.close()
        self._engine.retire()

    def cache(self, con: SteadyDBConnection) -> None:
        """Give a connection back, by the steady connection behind it; its proxy's ``close()`` does the same."""
        holder: PooledDedicatedDBConnection | None = holder_of(con)
        if holder is not None:
            holder.close()

    def unshare(self, con: SharedDBConnection) -> None:
        """Let go of one share of a shared connection; the last one gives it back."""
        self._sharing.give_back(Share(self._sharing, con))

    # ------------------------------------------------------------------ what programs look at
    @property
    def _idle_cache(self) -> list[SteadyDBConnection]:
        """What is idle: a view, as a new list."""
        return self._engine.idle_now()

    @property
    def _connections(self) -> int:
        """How many are handed out; a shared one counts once."""
        return self._engine.out

    # ------------------------------------------------------------------ one for one
    def _dedicated(self, frame: types.FrameType) -> PooledDedicatedDBConnection:
        return PooledDedicatedDBConnection(self, self._take(frame))

    def _take(
        self, frame: types.FrameType, *, waits: bool = True, outwaits: bool = True, timeout: float | None = None
    ) -> Lease[SteadyDBConnection]:
        """Take a connection from the engine, and see to it that it is as ``ping`` and ``maxusage`` promise.

        Args:
            frame: the caller's.
            waits: for what others hold.
            outwaits: waits for a server that has no room, if ``blocking`` says so.
            timeout: seconds to wait for what others hold; None for those of ``blocking``.
        """
        try:
            lease = self._lend(frame, waits, timeout)
        except Exception as error:
            if not outwaits or not self._wait_s or not self._source.is_full(error):
                raise
            lease = self._outwait(frame, error, waits)
        slot = lease._slot
        slot.code = frame.f_code
        slot.instruction = frame.f_lasti
        values = slot.conn.__dict__  # past __setattr__, which is for the driver's connection
        values["_looked_at"] = slot.leased_at
        if values["_fetched"] and self._source.is_plain and not 0 < values["_due"] <= values["_usage"]:
            return lease
        try:
            self._make_ready(slot.conn)
        except BaseException:
            lease.close()
            raise
        return lease

    def _lend(self, frame: types.FrameType, waits: bool, timeout: float | None = None) -> Lease[SteadyDBConnection]:
        """Take a connection from the engine; its refusals have the names that programs know."""
        try:
            if self._waits_for_ever:
                self._refuse_to_wait_for_itself()
            return self._engine.connection(timeout) if waits else self._engine.lend_at_once(frame)
        except PoolTimeout as error:
            raise told(TooManyConnectionsError, str(error), self._source.module) from error
        except PoolClosed as error:
            raise self._closed_error() from error

    def _outwait(self, frame: types.FrameType, refused: Exception, waits: bool) -> Lease[SteadyDBConnection]:
        """The server has no room for another connection: take one of this pool's own when it comes back.

        Nobody tells when that is, nor when the server has room again: both are tried after pauses that grow.
        """
        until = time.monotonic() + self._wait_s
        never = threading.Event()
        for pause_s in itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])):
            left_s = until - time.monotonic()
            others = self._engine.out and (threading.active_count() > 1 or self._engine.idle_now())
            if left_s <= 0 or not others:
                break
            never.wait(min(left_s, pause_s * random.uniform(0.5, 1)))  # noqa: S311  no secret: callers apart from others
            try:
                return self._lend(frame, waits)
            except Exception as error:
                if not self._source.is_full(error):
                    raise
        raise refused

    def _refuse_to_wait_for_itself(self) -> None:
        """Say so if the only thread of the program is about to wait for what it holds itself."""
        if self._engine.out < self._maxconnections or threading.active_count() > 1:
            return
        me = threading.get_ident()
        holders = self._engine.holders()
        if len(holders) >= self._maxconnections and set(holders) == {me} and not self._engine.idle_now():
            text = (
                f"this thread holds all {len(holders)} connections that maxconnections allows, and no other is there "
                "to give one back: it would wait for ever. Close one before taking another, or raise maxconnections"
            )
            raise told(TooManyConnectionsError, text, self._source.module)

    def _make_ready(self, steady: SteadyDBConnection) -> None:
        """Check and replace what is fetched from the pool; not what was opened just now."""
        if not steady._fetched:
            if steady.threadsafety() == 0:
                raise told(NotSupportedError, THREADSAFETY_0, self._source.module)
            steady._fetched = True
            return
        if self._source.adapter is None or steady._pinger is not None:
            steady._ping_check()
        if self._source.adapter is not None and 0 < steady._due <= steady._usage:
            _careful.replace_worn(steady)

    def _closed_error(self) -> InvalidConnectionError:
        return told(InvalidConnectionError, "this pool was closed: make a new one", self._source.module)

    # ------------------------------------------------------------------ one for several
    def _shared(self, frame: types.FrameType) -> PooledSharedDBConnection:
        share = self._sharing.take(self, frame)
        try:
            if share.shared.shared > 1:
                share.shared.con._ping_check()
            return PooledSharedDBConnection(self, share)
        except BaseException:
            self._sharing.give_back(share)
            raise

    def _has_room(self) -> bool:
        """Say whether a connection can be had without waiting for one."""
        return not self._maxconnections or self._engine.out < self._maxconnections or bool(self._engine.idle_now())

    def _after_fork(self) -> None:
        self._sharing.begin_anew()

    def __del__(self) -> None:
        # Proxies hold their pool: when it goes, none is left, and everything is idle.
        engine: Engine[SteadyDBConnection] | None = self.__dict__.get("_engine")
        if engine is not None and not sys.is_finalizing():
            engine.dismiss()


_pools: weakref.WeakSet[PooledDB] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in everyone_in(_pools):
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
