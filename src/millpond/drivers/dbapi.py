"""Any DB-API 2 driver, by what PEP 249 promises; the other adapters build on this one.

Why: a pool has to work with drivers that nobody has written an adapter for.  What PEP 249 does not promise is looked
for once (``ping``, ``fileno``), and where it is missing the worst case is assumed: a rollback at every return, a
statement to find out whether the link is alive, no way to end a call that hangs.

Rules: a connection is asked, never wrapped.  Nothing is known about the dialect but ``SELECT 1``, and that only
where there is no ``ping``.  A driver whose module says that threads must not share it (``threadsafety`` 0) is refused.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from millpond._cursors import CursorClasses
from millpond.errors import DriverUnsuitable, InvalidSetting

from ._watchdog import Guard, shut_down, watchdog
from .base import LONGEST_S, Driver
from .settings import Configured, OnConnect, Reset

# How the deadline of a dial is told to drivers that take one: keyword, and the least whole number of seconds it may be.
CONNECT_TIMEOUTS: dict[str, tuple[str, int]] = {
    "MySQLdb": ("connect_timeout", 1),
    "mysql.connector": ("connection_timeout", 1),
    "mariadb": ("connect_timeout", 1),
    "psycopg": ("connect_timeout", 2),
    "psycopg2": ("connect_timeout", 2),
}


class DbapiDriver(Configured[Any], Driver[Any]):
    """Adapter for a DB-API module, or for a callable that connects.

    Args:
        source: a DB-API 2 module, or a callable that returns a connection; None for an adapter's own module.
        connect_args: keyword arguments for each connect; a ``password`` that is a callable is asked anew each time.
        reset: "auto" (what is needed), "always" (the same, never left out), "rollback" (nothing else), "none" or
            None, or a callable that gets the connection; if it returns False the connection is given up.
        on_connect: a statement, several, or a callable that gets the connection, run once for each new one.
        described: what the repr shows of where connections lead; no password.

    Raises:
        InvalidSetting: one of these is not what it can be.
        DriverUnsuitable: the module says that its connections cannot be used by several threads, one after another.
    """

    name = "dbapi"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "dial, where the driver takes a time-out; other calls, where fileno() tells what to shut down",
        "alive": "ping() that does not reconnect, or SELECT 1 and a rollback",
        "clean": "cannot tell: a rollback at every return",
        "reset": "rollback()",
        "in flight": "cannot tell",
        "cut": "its descriptor is shut down, where fileno() tells one",
        "errors": "by the names of PEP 249, by SQLSTATE or by the numbers of MySQL",
    }

    def __init__(
        self,
        source: types.ModuleType | Callable[..., Any] | None = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        if source is None:
            source = self.import_module()
        super().__init__(source, connect_args=connect_args, reset=reset, on_connect=on_connect, described=described)
        self._connect: Callable[..., Any]
        if isinstance(source, types.ModuleType):
            self._connect = source.connect
            self.learn_module(source)
        else:
            self._connect = source
        self._cursors = self.cursor_classes()

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import the driver that this adapter is for.

        Raises:
            DriverMissing: it is not installed; the message says how to install it.
        """
        raise InvalidSetting("source", None, "a DB-API module, or a callable that connects")

    def cursor_classes(self) -> CursorClasses:
        """Return how cursors of this driver are lent and cut off."""
        return CursorClasses()

    def learn_module(self, module: types.ModuleType) -> None:
        """Take *module* as the one whose connections these are, unless it forbids what a pool does."""
        self.module = module
        if getattr(module, "threadsafety", 1) == 0:
            raise DriverUnsuitable(
                f"{module.__name__} says threadsafety=0: its connections cannot be handed from thread to thread, "
                "so they cannot be pooled. Use a build of it, or another driver, with threadsafety of at least 1."
            )

    # -- opening ---------------------------------------------------------------------------------------------------
    def open(self, until: float) -> Any:
        """Connect, and run what is to be run on each new connection."""
        conn = self.dial(self.fresh_arguments(), until)
        try:
            found = module_of(conn) if self.module is None else None
            if found is not None:
                self.learn_module(found)
            self.set_up(conn, until)
        except BaseException:
            self.close(conn)
            raise
        return conn

    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Open a connection; a driver that takes a time-out for that is given what is left."""
        module = self._given
        if isinstance(module, types.ModuleType) and module.__name__ in CONNECT_TIMEOUTS:
            keyword, least = CONNECT_TIMEOUTS[module.__name__]
            arguments.setdefault(keyword, max(least, int(min(until - time.monotonic(), LONGEST_S))))
        return connection_of(self._connect(**arguments))

    def fresh_arguments(self) -> dict[str, Any]:
        """Return the arguments for one connect; a password that is a callable is asked now."""
        arguments = dict(self._connect_args)
        password = arguments.get("password")
        if callable(password):
            arguments["password"] = password()
        return arguments

    def set_up(self, conn: Any, until: float) -> None:
        """Run ``on_connect``; statements are committed, or the first rollback would undo them in some databases."""
        if self._on_connect is None:
            return
        if callable(self._on_connect):
            self._on_connect(conn)
            return
        run(conn, self._on_connect)
        if hasattr(conn, "commit"):
            conn.commit()

    # -- using -----------------------------------------------------------------------------------------------------
    def is_alive(self, conn: Any, until: float) -> bool:
        """Ask by ``ping``, told not to reconnect, or by a statement."""
        try:
            with self.bounded(conn, until):
                ping = getattr(conn, "ping", None)
                if ping is not None:
                    return bool(ping(**no_reconnect(conn.__class__)) is not False)
                run(conn, ("SELECT 1",))
                conn.rollback()  # or the statement's transaction would stay open while the connection is idle
        except Exception:  # noqa: BLE001  whatever it is, this connection has not answered
            return False
        return True

    def reset(self, conn: Any, until: float) -> bool:
        """Roll back, or do what the setting says; an exception means that the connection has to be given up."""
        if self._reset == "none":
            return True
        with self.bounded(conn, until):
            return self._reset(conn) is not False if callable(self._reset) else self.clean(conn, until)

    def bounded(self, conn: Any, until: float) -> Guard:
        """Return a context in which the connection is cut at *until*; where no descriptor is known, it is not."""
        return watchdog.guard(self.fileno(conn), until)

    def clean(self, conn: Any, until: float) -> bool:
        """Make the session as good as new, as far as this adapter can; by default a rollback."""
        rollback = getattr(conn, "rollback", None)
        if rollback is not None:  # PEP 249 leaves it out for databases without transactions
            rollback()
        return True

    def close(self, conn: Any) -> None:
        """Close; that the other end is gone already is no news here."""
        with contextlib.suppress(Exception):
            conn.close()

    # -- capabilities ----------------------------------------------------------------------------------------------
    def fileno(self, conn: Any) -> int | None:
        """Return the descriptor, where the connection tells it."""
        try:
            fd = conn.fileno()
        except Exception:  # noqa: BLE001  no such method, or closed
            return None
        return fd if isinstance(fd, int) and fd >= 0 else None

    def cut(self, conn: Any) -> bool:
        """Shut the socket down by a duplicate of its descriptor, which the holder's driver cannot have reused."""
        return shut_down(self.fileno(conn))

    def cursor(self, conn: Any, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own class for *lease*."""
        return self._cursors.lend(conn.cursor(*args, **kwargs), lease)


# -- what all adapters need ------------------------------------------------------------------------------------------
def run(conn: Any, statements: Sequence[str]) -> None:
    """Run statements, one after another, and read what they answer."""
    cursor = conn.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
            if cursor.description is not None:
                cursor.fetchall()
    finally:
        cursor.close()


def connection_of(made: Any) -> Any:
    """Return what a ``connect`` has made, if it is a connection.

    Raises:
        DriverUnsuitable: it is not; the message says what it is instead.
    """
    if hasattr(made, "cursor"):
        return made
    if inspect.iscoroutine(made):
        made.close()  # or Python would warn that it was never awaited
    shown = "None" if made is None else f"an object of the class {type(made).__name__}"
    remedy = "asyncio's connections are for millpond.AsyncPool" if inspect.isawaitable(made) else "it has no cursor()"
    raise DriverUnsuitable(f"source: what connects has returned {shown}, which is no DB-API connection: {remedy}")


def module_of(conn: Any) -> types.ModuleType | None:
    """Return the DB-API module that a connection comes from; None if it cannot be told."""
    for kind in type(conn).__mro__:
        parts = kind.__module__.split(".")
        for length in range(len(parts), 0, -1):
            module = sys.modules.get(".".join(parts[:length]))
            if module is not None and hasattr(module, "apilevel") and hasattr(module, "OperationalError"):
                return module
    return None


_no_reconnect: dict[type[Any], dict[str, Any]] = {}


def no_reconnect(kind: type[Any]) -> dict[str, Any]:
    """Return the arguments that keep ``ping`` from reconnecting, as PyMySQL 1.1 does by default."""
    known = _no_reconnect.get(kind)
    if known is None:
        try:
            accepted = inspect.signature(kind.ping).parameters
        except (TypeError, ValueError):  # C, without a signature; none of these is known to reconnect by default
            accepted = {}  # type: ignore[assignment]  # both are mappings of names
        known = _no_reconnect[kind] = {"reconnect": False} if "reconnect" in accepted else {}
    return known
