"""Where steady connections come from: a creator, and the adapter of its driver where that is known.

Why: one pool has one source.  It shares what is dear (a TLS context, what the server told of itself), bounds each
connect in time, and knows what the driver tells.  A driver that nobody knows is asked as DBUtils asks it.

Rules: a source opens and cleans; it keeps no connection.  The driver of a plain function is seen in its first
connection.
"""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from millpond.drivers import adapter_named
from millpond.drivers.base import Driver
from millpond.drivers.dbapi import module_of
from millpond.forks import LockOfProcess

from . import _parameters as parameters
from ._errors import refuse_unless
from ._libpq import LIBPQ, LibpqDriver
from ._witness import BY_WORDS, WITNESSES, Outside, name_of

CONNECT_S: Final = 10.0  # for a connect, where neither the program nor its arguments say


class Source:
    """What one pool, or one steady connection, is connected by.

    Args:
        creator: a DB-API module, something with a ``connect``, or a function that connects.
        args: given to it by position.
        kwargs: given to it by name.
        setsession: statements for each new session.
        reset: as for :class:`~millpond.dbutils.pooled_db.PooledDB`.
        shared: whether several threads may use a connection at the same time.

    Attributes:
        adapter: of the driver; None while it is not known.
        outside: tells whether no transaction is open, for known drivers.
        module: the driver's DB-API module, as far as it is known.
    """

    def __init__(
        self,
        creator: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        setsession: Any,
        reset: Any = True,
        *,
        shared: bool = False,
    ) -> None:
        self.creator = creator
        self.args = args
        self.kwargs = kwargs
        self.setsession = parameters.setsession_of(setsession)
        self.reset: Any = "auto" if reset is True else reset or "rollback"
        self.shared = shared
        self.adapter: Driver[Any] | None = None
        self.outside: Outside | None = None
        self.name: str | None = None
        self.reads_words = False  # statements tell what this driver does not
        self.own_check = False  # the program checks connections by a statement or function of its own
        self.is_plain = False  # the driver is known, and nothing of the program's own is asked at a checkout
        self.module = module_named_by(creator)
        self._learning = LockOfProcess()
        name = None if self.module is None else name_of(self.module)
        if name is not None:
            self._know(name)

    @property
    def connect_s(self) -> float:
        """Return the seconds that a connect may take."""
        asked = self.kwargs.get("connect_timeout")
        return float(asked) if isinstance(asked, (int, float)) and asked > 0 else CONNECT_S

    def open(self) -> Any:
        """Connect by the adapter; the session is set up."""
        assert self.adapter is not None, "bug: a driver that is not known has no adapter"
        return self.adapter.open(time.monotonic() + self.connect_s)

    def is_full(self, error: Exception) -> bool:
        """Say whether an error tells that the server is there, and has no room for another connection now."""
        return self.adapter is not None and self.adapter.classify(error).name == "SERVER_FULL"

    def is_lost(self, con: Any, error: Exception) -> bool:
        """Say whether an error tells that the link of a driver's connection is lost."""
        if isinstance(self.adapter, LibpqDriver):
            return self.adapter.is_lost(con, error)
        return self.adapter is not None and self.adapter.classify(error).name == "GONE"

    def is_aborted(self, con: Any) -> bool:
        """Say whether a commit would keep nothing, because a statement of the transaction has failed."""
        return isinstance(self.adapter, LibpqDriver) and self.adapter.is_aborted(con)

    def learn(self, con: Any) -> bool:
        """See by a first connection which driver it is; True if that is known, and the session is set up."""
        module = module_of(con)
        name = None if module is None else name_of(module)
        if module is None or name is None:
            return False
        with self._learning():
            if self.adapter is None:
                self.module = module
                self._know(name)
        assert self.adapter is not None, "bug: it was made a line above"
        set_up: Callable[..., Any] = self.adapter.set_up  # type: ignore[attr-defined]  # all adapters made here have it
        set_up(con, time.monotonic() + self.connect_s)
        return True

    def _know(self, name: str) -> None:
        """Make the adapter for the driver of that name."""
        source: Any = self.module
        direct = parameters.module_behind(self.creator) is self.module
        given = parameters.connect_args_of(name, self.args, self.kwargs) if direct else None
        if name == "pymysql" and given is not None and self.module is not None:
            parameters.refuse_unknown(given, self.module.connections.Connection)
        if given is None:  # a function of the program's own, or arguments whose places we do not know
            source, given = functools.partial(connect_of(self.creator), *self.args, **self.kwargs), {}
        if name == "sqlite" and self.shared and isinstance(source, types.ModuleType):
            # The adapter's own class listens to SQLite by a callback: it runs below the mutex of its connection, and
            # waits there for the interpreter's lock, whose holder may want the mutex.
            given.setdefault("factory", source.Connection)
            given.setdefault("cached_statements", 0)  # two threads that get one at once misuse it: an InterfaceError
        settings: dict[str, Any] = {"reset": self.reset, "on_connect": on_connect_of(self.setsession)}
        made: Driver[Any]
        if name in LIBPQ and self.module is not None:
            made = LibpqDriver(source, self.module, connect_args=given, shared=self.shared, **settings)
        else:
            made = adapter_named(name)(source, connect_args=given, **settings)
        self.outside = WITNESSES[name]
        self.reads_words = name in BY_WORDS
        self.is_plain = not self.own_check
        self.name = name
        if self.adapter is None:  # else a finalizer has connected meanwhile, and its connection knows that one
            self.adapter = made  # the last: whoever sees it finds the rest


def module_named_by(creator: Any) -> types.ModuleType | None:
    """Return the DB-API module behind a creator: itself, what it names as its ``dbapi``, or whose ``connect`` it is."""
    direct = parameters.module_behind(creator)
    if hasattr(direct, "OperationalError"):  # mysql.connector has a module named dbapi, which is none
        return direct
    named = getattr(creator, "dbapi", None)
    return named if isinstance(named, types.ModuleType) else direct


def connect_of(creator: Any) -> Callable[..., Any]:
    """Return the function that connects."""
    is_class_of_connections = isinstance(creator, type) and hasattr(creator, "cursor")
    connect: Any = None if is_class_of_connections else getattr(creator, "connect", None)
    found: Any = connect if callable(connect) else creator
    refuse_unless(callable(found), "creator", creator, "a DB-API 2 module, or a function that connects")
    function: Callable[..., Any] = found
    return function


def on_connect_of(statements: tuple[Any, ...] | None) -> tuple[str, ...] | Callable[[Any], None] | None:
    """Return what an adapter runs for each new session, and again after each reset that forgets it."""
    if not statements:
        return None
    if all(isinstance(statement, str) and statement.strip() for statement in statements):
        return statements
    return functools.partial(run_each, statements=statements)


def run_each(con: Any, statements: tuple[Any, ...]) -> None:
    """Run the statements of a new session; they need not be strings, as composed ones of psycopg are not."""
    cursor = con.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    finally:
        cursor.close()
