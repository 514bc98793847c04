"""Steady cursors: one of the driver's behind each, which is made anew where that is of no use any more.

Why: programs keep cursors as long as their connections, close them and go on to use them, chain their calls, and fetch
from them when the connection has gone back to its pool.  What is done then is said here, for every driver; how a
statement is run is the policy's of the connection (:mod:`._policy`).

Rules: whatever a cursor has as well as the driver's is found by ``__getattr__``, and set on that.  A cursor that would
fetch from its connection is noted by its checkout, which cuts it off.  Nothing in here knows a pool.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

from ._checkout import Checkout
from ._errors import DropInError, not_copied, told

if TYPE_CHECKING:
    from typing_extensions import Self

    from .steady_db import SteadyDBConnection

logger = logging.getLogger("millpond")

#: What a cursor may still be asked when its connection was given back: what it has got already.
LOCAL: Final = frozenset(
    {
        *("fetchone", "fetchmany", "fetchall", "scroll", "rowcount", "description", "lastrowid", "rownumber"),
        *("arraysize", "close", "messages", "statusmessage", "statement", "query"),
    }
)
#: Classes of drivers' cursors that have read all rows when ``execute`` returns; of others, found when they are seen.
LOCAL_ROWS: Final = {
    "pymysql": frozenset({"Cursor"}),
    "mysqlclient": frozenset({"CursorStoreResultMixIn"}),
    "psycopg": frozenset({"Cursor"}),
}
#: Classes made from these that have not.
REMOTE_ROWS: Final = frozenset({"SSCursor", "ServerCursor"})
HAVE_THEIR_ROWS: set[type[Any]] = set()


class SteadyDBError(DropInError):
    """The base of the errors of :mod:`.steady_db`."""


class InvalidCursorError(SteadyDBError):
    """A cursor cannot be used: it has no driver's cursor, or its connection was given back."""

    family = "InterfaceError"


class Steady:
    """What a steady cursor can be made of; a :class:`~millpond.dbutils.steady_db.SteadyDBConnection` is."""


class SteadyDBCursor:
    """A cursor of a steady connection.

    Everything that a cursor of the driver has, it has too.  Closed, it comes back to life when a statement is run by
    it.

    Args:
        con: a steady connection.
        args: given to the driver's own ``cursor``.
        kwargs: given to it as well.

    Raises:
        TypeError: *con* is no steady connection.
    """

    _cursor: Any = None
    _closed = True
    _no_failover = 0
    _holder: Any = None  # keeps a pooled connection from going back while this is in use
    _checkout: Checkout | None = None  # in which this was made
    _noted: Any = None  # by which that knows it
    _sizes: list[tuple[str, tuple[Any, ...]]] | None = None  # for the next statement
    _set: dict[str, Any] | None = None  # attributes of the driver's cursor that the program has set

    def __init__(self, con: SteadyDBConnection, *args: Any, **kwargs: Any) -> None:
        if not isinstance(con, Steady):  # pyright: ignore[reportUnnecessaryIsInstance]  # from programs
            raise TypeError(f"{con!r} is no SteadyDBConnection")
        values = self.__dict__  # past __setattr__, which is for the driver's cursor
        values["_con"] = con
        values["_args"] = args
        values["_kwargs"] = kwargs
        own = values["_cursor"] = con._policy.cursor(con, args, kwargs)
        values["_of"] = con._con  # the driver's connection that it belongs to
        values["_closed"] = False
        checkout = con._checkout
        if checkout is not None:
            values["_checkout"] = checkout
            if type(own) not in HAVE_THEIR_ROWS:
                values["_noted"] = self._note(checkout, own)

    def _note(self, checkout: Checkout, own: Any) -> Any:
        """Have this cut off when its connection goes back, if it would go on to fetch from it."""
        kind: type[Any] = own.__class__
        kinds = {base.__name__ for base in kind.__mro__}
        driver = self._con._source.name
        if driver in LOCAL_ROWS and kinds & LOCAL_ROWS[driver] and not kinds & REMOTE_ROWS:
            HAVE_THEIR_ROWS.add(kind)
            return None
        if driver == "psycopg2" and own.name is None:
            return None  # one class for both kinds: one with a name has its rows on the server
        return checkout.note(self)

    def __reduce__(self) -> Any:
        raise not_copied(self)

    # ------------------------------------------------------------------ running statements
    @property
    def execute(self) -> Callable[..., Any]:
        """Run a statement: ``execute(statement, parameters)``, and whatever else the driver's takes."""
        if self._cursor is None:  # as in _runner(), without its call: this is in every statement
            raise self._unusable()
        return functools.partial(self._con._policy.run, self, "execute")

    @property
    def executemany(self) -> Callable[..., Any]:
        """Run a statement for each of several sets of parameters."""
        return self._runner("executemany")

    @property
    def callproc(self) -> Callable[..., Any]:
        """Call a stored procedure."""
        return self._runner("callproc")

    def _runner(self, name: str) -> Callable[..., Any]:
        if self._cursor is None:
            raise self._unusable()
        return functools.partial(self._con._policy.run, self, name)

    def _unusable(self) -> InvalidCursorError:
        return told(InvalidCursorError, "this cursor has no cursor of the driver's behind it", self._con._dbapi)

    @contextlib.contextmanager
    def no_failover(self) -> Generator[Self]:
        """Let errors of statements that are run in this block be raised at once; blocks may be nested."""
        self._no_failover += 1
        try:
            yield self
        finally:
            self._no_failover -= 1

    def _check_held(self, name: str) -> None:
        """Make sure that the connection is still with who made this cursor."""
        checkout: Checkout | None = self._checkout
        if checkout is not None and not checkout.open and name not in LOCAL:
            raise told(
                InvalidCursorError,
                f"{name}() of a cursor whose connection was given back{checkout.ended_at}; take a new one",
                self._con._dbapi,
            )

    def _check_rows(self, name: str, checkout: Checkout) -> None:
        """Make sure that no rows are looked for that went with the connection: some drivers say that there are none."""
        if self._con._source.adapter is not None:
            where = checkout.ended_at
            text = f"{name}() of a cursor whose connection was given back{where}: what it had not read is gone"
            raise told(InvalidCursorError, text, self._con._dbapi)

    def _renew(self, cursor: Any, *, closed: bool | None = None) -> None:
        """Go on with another cursor of the driver's."""
        self.__dict__.update(_cursor=cursor, _of=self._con._con)
        if closed is not None:
            self.__dict__["_closed"] = closed
        for name, value in (self._set or {}).items():
            setattr(cursor, name, value)

    # ------------------------------------------------------------------ sizes
    def setinputsizes(self, sizes: Any) -> None:
        """Keep the sizes of parameters for the next statement."""
        self.__dict__["_sizes"] = [*(self._sizes or ()), ("setinputsizes", (sizes,))]

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Keep the size of large columns for the next statement."""
        given = (size,) if column is None else (size, column)
        self.__dict__["_sizes"] = [*(self._sizes or ()), ("setoutputsize", given)]

    def _setsizes(self, cursor: Any) -> None:
        """Tell a cursor of the driver's the sizes that were kept."""
        for method, given in self._sizes or ():
            getattr(cursor, method)(*given)

    def _clearsizes(self) -> None:
        """Forget the sizes: they were for one statement."""
        if self._sizes is not None:
            self.__dict__["_sizes"] = None

    # ------------------------------------------------------------------ the rest is the driver's
    @property
    def dbapi_cursor(self) -> Any:
        """The driver's own cursor.

        Raises:
            InvalidCursorError: there is none.
        """
        if self._cursor is None:
            raise self._unusable()
        self._check_held("dbapi_cursor")
        self._con._policy.touch(self._con)
        return self._cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        cursor = self.dbapi_cursor
        try:
            rows: Iterator[Any] = iter(cursor)
        except TypeError:
            rows = iter(cursor.fetchone, None)
        return self._each(rows)

    def _each(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield rows, and be there until the last of them: this may be all that keeps the cursor open."""
        for row in rows:  # noqa: UP028  "yield from" would close the driver's cursor with a loop that was left early
            yield row

    @property
    def stream(self) -> Callable[..., Iterator[Any]]:
        """Run a statement and yield its rows as they arrive, with drivers that can."""
        stream = self.__getattr__("stream")
        return lambda *args, **kwargs: self._each(stream(*args, **kwargs))

    @property
    def fetchone(self) -> Callable[..., Any]:
        """Return the next row; None if there is none."""
        return self._fetcher("fetchone")

    @property
    def fetchmany(self) -> Callable[..., Any]:
        """Return the next rows, as many as are asked for."""
        return self._fetcher("fetchmany")

    @property
    def fetchall(self) -> Callable[..., Any]:
        """Return all rows that are left."""
        return self._fetcher("fetchall")

    def _fetcher(self, name: str) -> Callable[..., Any]:
        """Return a method of the driver's cursor that holds this: in a chain of calls nothing else does."""
        if self._cursor is None:
            raise self._unusable()
        checkout = self._checkout
        if self._noted is not None and checkout is not None and not checkout.open:
            self._check_rows(name, checkout)
        fetch = functools.partial(getattr(self._cursor, name))
        fetch.__dict__["cursor"] = self
        return fetch

    def __getattr__(self, name: str) -> Any:
        cursor = self._cursor
        if cursor is None:
            raise self._unusable()
        if name in LOCAL:
            return getattr(cursor, name)
        if name.startswith(("execute", "call")):
            return self._runner(name)
        self._check_held(name)
        found = getattr(cursor, name)
        if callable(found):
            self._con._policy.touch(self._con)  # copy(), stream(), nextset(): whatever they do is not watched
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self.__dict__[name] = value
            return
        setattr(self.dbapi_cursor, name, value)
        self.__dict__["_set"] = {**(self._set or {}), name: value}

    def close(self) -> None:
        """Close the driver's cursor; what it says to that does not matter."""
        values = self.__dict__
        if not values.get("_closed", True):
            values["_closed"] = True
            try:
                self._cursor.close()
            except Exception as error:  # noqa: BLE001  dead, or closed already: it is gone either way
                logger.debug("a cursor could not be closed: %r", error)
            if self._checkout is not None and self._noted is not None:
                self._checkout.forget(self._noted)
        values["_holder"] = None  # the last of them may give the connection back just here

    def __del__(self) -> None:
        if not self._closed and not sys.is_finalizing():
            self.close()
