"""Connections and cursors that mend themselves: ``dbutils.steady_db``, safe wherever the driver tells.

Why: a connection that is kept for long is found dead one day, and a program wants to go on.  DBUtils goes on by
sending a statement again, on another connection if need be; so a statement may run three times, and half of a
transaction may be committed.  With a driver that is known here a dead connection is replaced *before* something is
sent, outside of transactions, and nothing is ever sent twice (:mod:`._careful`).  With any other, DBUtils' ways hold
(:mod:`._stubborn`).

Rules: names that begin with an underscore are DBUtils' where programs and tests look at them (``_con``, ``_usage``,
``_transaction`` and others); they stay.  Nothing in here knows a pool.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from millpond.forks import everyone_in, point_nowhere

from . import _careful, _stubborn
from . import _parameters as parameters
from ._checkout import Checkout
from ._errors import not_copied
from ._parameters import UNSET
from ._source import Source, connect_of, run_each
from ._steady_cursor import InvalidCursorError, Steady, SteadyDBCursor, SteadyDBError
from ._version import DBUTILS_VERSION
from ._witness import Activity

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._policy import Policy

__all__ = [
    "InvalidCursor",
    "InvalidCursorError",
    "SteadyDBConnection",
    "SteadyDBCursor",
    "SteadyDBError",
    "TransactionLostError",
    "connect",
]

__version__ = DBUTILS_VERSION
logger = logging.getLogger("millpond")

FAILURES: Final = ("OperationalError", "InterfaceError", "InternalError")


class TransactionLostError(SteadyDBError):
    """The link was lost in a transaction, of which nothing was kept; ``rollback()`` lets the program go on."""

    family = "OperationalError"


InvalidCursor = InvalidCursorError


def connect(
    creator: Any,
    maxusage: int | None = None,
    setsession: Any = None,
    failures: Any = None,
    ping: Any = 1,
    closeable: bool = True,
    *args: Any,
    isfatal: Any = UNSET,
    **kwargs: Any,
) -> SteadyDBConnection:
    """Return a steady connection.

    Args:
        creator: a DB-API 2 module, or a function that returns a connection.
        maxusage: statements after which it is replaced, outside of transactions; 0 or None for no limit.
        setsession: statements to be run on each new connection.
        failures: exceptions that may mean a lost connection; None for the driver's three.
        ping: when it is checked: bits 1 (when asked for), 2 (at ``cursor()``), 4 (at ``execute()``); or what to
            check it by, a statement or a function that gets the connection; or a pair of both.
        closeable: whether ``close()`` closes it; else it ends a transaction at most.
        args: given to *creator*; the first may be *isfatal*, as in DBUtils 3.2, unless it is a string.
        isfatal: a callable that gets an exception and says whether its connection is lost.
        kwargs: given to *creator*.

    Raises:
        WrongKind: a parameter is of a kind that it does not take (a TypeError).
        Exception: the driver's own.
    """
    return SteadyDBConnection(
        creator, maxusage, setsession, failures, ping, closeable, *args, isfatal=isfatal, **kwargs
    )


class SteadyDBConnection(Steady):
    """A connection that is replaced when it is lost or worn out.

    Args: as for :func:`connect`.
    """

    version = __version__

    _con: Any = None
    _closed = True
    _transaction = False
    _usage = 0
    _dbapi: types.ModuleType | None = None
    _threadsafety: int | None = None
    _lost: BaseException | None = None  # the link was lost in a transaction that the program has not given up yet
    _lost_error = TransactionLostError  # of what it is told then, by a policy that does not know this module
    _checkout: Checkout | None = None  # knows the cursors of one use of a pool, or of a connection that may be worn
    _pooled = False  # a pool replaces it, between two checkouts
    _holder: Any = None  # weak reference to the pool's proxy that has it

    def __init__(
        self,
        creator: Any,
        maxusage: int | None = None,
        setsession: Any = None,
        failures: Any = None,
        ping: Any = 1,
        closeable: bool = True,
        *args: Any,
        isfatal: Any = UNSET,
        **kwargs: Any,
    ) -> None:
        isfatal, args = parameters.isfatal_and_args(isfatal, args)
        source = Source(creator, args, kwargs, setsession)
        self._set_up(source, maxusage, setsession, failures, ping, closeable, isfatal)

    @classmethod
    def of_source(
        cls, source: Source, *, maxusage: Any, setsession: Any, failures: Any, ping: Any, closeable: bool, isfatal: Any
    ) -> Self:
        """Make one of the connections that a pool has from one source."""
        made = cls.__new__(cls)
        made._set_up(source, maxusage, setsession, failures, ping, closeable, isfatal)
        return made

    def _set_up(
        self, source: Source, maxusage: Any, setsession: Any, failures: Any, ping: Any, closeable: bool, isfatal: Any
    ) -> None:
        self._creator = connect_of(source.creator)
        self._source = source
        self._maxusage = parameters.maxusage_of(maxusage)
        self._due = self._maxusage
        self._setsession_sql = setsession
        self._failures: Any = parameters.failures_of(failures)
        self._isfatal = isfatal
        self._ping, self._pinger = parameters.ping_of(ping)
        self._closeable = closeable
        self._args, self._kwargs = source.args, source.kwargs
        self._activity = Activity()
        if self._maxusage:
            self._checkout = Checkout()  # a pool makes one for each use instead
        self._answered_at = 0.0
        self._looked_at = 0.0  # its socket, and nothing bad was seen
        self._fetched = False  # it was handed out before
        self._altered: dict[str, Any] = {}  # attributes of the driver's connection that were set: how they were
        self._policy: Policy = _stubborn if source.adapter is None else _careful
        self._store(self._create())
        _alive.add(self)

    # ------------------------------------------------------------------ what it is
    def dbapi(self) -> types.ModuleType:
        """Return the DB-API module of the driver.

        Raises:
            AttributeError: it cannot be told; name it as ``creator.dbapi``.
        """
        if self._dbapi is None:
            raise AttributeError("the DB-API module cannot be told: set creator.dbapi")
        return self._dbapi

    @property
    def dbapi_connection(self) -> Any:
        """The driver's own connection, as it is now; what is done by it is neither counted nor mended."""
        self._policy.touch(self)
        return self._con

    def threadsafety(self) -> int:
        """Return how the driver's connections may be shared between threads.

        Raises:
            AttributeError: it cannot be told; name it as ``creator.threadsafety``.
        """
        if self._threadsafety is not None:
            return self._threadsafety
        if self._dbapi is None:
            raise AttributeError("the threadsafety cannot be told: set creator.dbapi or creator.threadsafety")
        return 0

    @property
    def _busy(self) -> bool:
        """Whether a transaction is, or may be, open."""
        return self._policy.in_transaction(self)

    @property
    def _shortcuts(self) -> tuple[str, ...]:
        """Methods of the driver's connections that make a cursor and run a statement by it: done here by ours."""
        adapter = self._source.adapter
        return () if adapter is None else adapter.shortcuts

    def __reduce__(self) -> Any:
        raise not_copied(self)

    # ------------------------------------------------------------------ connecting
    def _create(self) -> Any:
        """Return a new connection of the driver's, whose session is set up."""
        source = self._source
        con = self._creator(*self._args, **self._kwargs) if source.adapter is None else source.open()
        try:
            if source.adapter is None and not source.learn(con):
                self._identify(con)
                if source.setsession:
                    run_each(con, source.setsession)
            else:
                self._policy = _careful
                self._dbapi = source.module
                self._threadsafety = getattr(source.module, "threadsafety", 1)
                if self._failures is None:
                    self._failures = tuple(getattr(source.module, name) for name in FAILURES)
        except BaseException:
            with contextlib.suppress(Exception):
                con.close()
            raise
        return con

    def _identify(self, con: Any) -> None:
        """Find out what a connection of an unknown driver is."""
        if self._dbapi is None:
            self._dbapi = _stubborn.module_of(self._creator, self._source.creator, con)
        if self._threadsafety is None:
            owner = con if self._dbapi is None else self._dbapi
            self._threadsafety = getattr(owner, "threadsafety", None)
        if self._failures is None:
            self._failures = _stubborn.failures_of((self._dbapi, self._creator, con), FAILURES)

    def _store(self, con: Any) -> None:
        """Take a new connection of the driver's as the one to be used."""
        self._con = con
        self._closed = False
        self._transaction = False
        self._usage = 0
        self._due = self._maxusage
        self._activity = Activity()
        self._altered.clear()
        self._answered_at = time.monotonic()

    def _close(self) -> None:
        """Close, whatever ``closeable`` says; twice is harmless."""
        if not self._closed:
            self._policy.part(self, self._con)
            self._transaction = False
            self._closed = True

    def close(self) -> None:
        """Close it, if it may be closed; else end the transaction that is open."""
        if self._closeable:
            self._close()
        else:
            self._policy.leave(self)

    # ------------------------------------------------------------------ using
    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()

    def begin(self, *args: Any, **kwargs: Any) -> None:
        """Begin a transaction: until it has ended the connection is not replaced, and every error is raised.

        The arguments are for the driver's own ``begin``, if it has one.
        """
        self._policy.begin(self, args, kwargs)

    def commit(self) -> None:
        """Commit the transaction."""
        self._policy.commit(self)

    def rollback(self) -> None:
        """Roll the transaction back."""
        self._policy.rollback(self)

    def cancel(self) -> None:
        """Give the transaction up, by the driver's own ``cancel`` if it has one."""
        self._transaction = False
        cancel = getattr(self._con, "cancel", None)
        if cancel is not None:
            cancel()

    def ping(self, *args: Any, **kwargs: Any) -> Any:
        """Call the driver's own ``ping``."""
        return self._policy.ping(self, args, kwargs)

    def cursor(self, *args: Any, **kwargs: Any) -> SteadyDBCursor:
        """Return a steady cursor; the arguments are for the driver's own ``cursor``."""
        return SteadyDBCursor(self, *args, **kwargs)

    def _cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor of the driver's."""
        return self._policy.cursor(self, args, kwargs)

    def _ping_check(self, ping: int = 1, reconnect: bool = True) -> bool | None:
        """Check whether it is alive, if that is asked for now, and replace it if it is not.

        Returns:
            Whether it is alive; None if nobody asked, or it cannot be told.
        """
        return self._policy.ping_check(self, ping, reconnect)

    def __getattr__(self, name: str) -> Any:
        # Only for what a steady connection has not itself: insert_id(), server_status, autocommit and the like.
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in self._shortcuts:
            return getattr(self.cursor(), name)
        found = getattr(self._con, name)
        if callable(found):
            self._policy.touch(self)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in METHODS:
            object.__setattr__(self, name, value)
        else:
            self._alter(name, value)

    def _alter(self, name: str, value: Any) -> None:
        """Set an attribute of the driver's connection, and remember how it was."""
        con = self._con
        was = getattr(con, name, UNSET)
        if callable(was) and not callable(value):
            raise AttributeError(  # noqa: TRY004  what setting an attribute that cannot be set raises
                f"{name} is a method of this driver's connections: call {name}({value!r}) instead of setting it"
            )
        setattr(con, name, value)
        self._altered.setdefault(name, was)

    def _restore(self) -> None:
        """Set the attributes of the driver's connection back."""
        altered, self._altered = self._altered, {}
        for name, was in altered.items():
            if was is UNSET:
                delattr(self._con, name)
            else:
                setattr(self._con, name, was)

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        with contextlib.suppress(Exception):  # half made, or its driver is on its way out
            self._close()


#: What is a connection's own, though it can be set on an instance.
METHODS: Final = frozenset(name for name in vars(SteadyDBConnection) if not name.startswith("__"))
_alive: weakref.WeakSet[SteadyDBConnection] = weakref.WeakSet()
_inherited: list[Any] = []  # a fork's: never closed, or their destructors would end the parent's sessions


def _after_fork_in_child() -> None:
    """Let go of the parent's connections without a word to its server."""
    for steady in everyone_in(_alive):
        if steady._closed:
            continue
        was_in_transaction = steady._busy  # by begin() or by a statement; asked while it counts as open
        _inherited.append(steady._con)
        silence(steady)
        steady._closed = True
        if was_in_transaction:
            steady._lost = ConnectionAbortedError("this process was forked in the middle of the transaction")
        steady._transaction = False


def silence(steady: SteadyDBConnection) -> None:
    """Point the descriptor of an inherited connection at nothing."""
    adapter = steady._source.adapter
    try:
        fd = steady._con.fileno() if adapter is None else adapter.fileno(steady._con)
    except Exception as error:  # noqa: BLE001  this driver has no descriptor that can be seen
        logger.debug("an inherited connection has no descriptor: %r", error)
        return
    if fd is not None:
        point_nowhere(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
