"""aiosqlite: SQLite for tasks, each connection in a thread of its own.

What a session is, how it is proved clean and made as good as new is :mod:`millpond.drivers.sqlite`'s; what takes time
is run in the connection's thread.

Rules: a call that was cancelled goes on in that thread, so a connection knows what it still has to do, and is
interrupted and given up when it comes back in the middle of it.  Cursors are cut off when a connection is made as good
as new, which is at the return of every connection that has lent one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sqlite3
import types
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from millpond._core.states import Fault
from millpond.errors import DriverMissing
from millpond.url import URL, Parser

from .aio import AiodbDriver, answer_of
from .dbapi import OnConnect, Reset
from .sqlite import SQLiteDriver

MAKERS = ("cursor", "execute", "executemany", "executescript")


class AiosqliteDriver(AiodbDriver[Any]):
    """Adapter for aiosqlite 0.20 and later.

    Args: as for :class:`~millpond.drivers.aio.AiodbDriver`; ``connect_args`` are those of ``aiosqlite.connect``, and
        ``journal_mode`` and ``foreign_keys`` beside them.
    """

    name = "aiosqlite"
    tracks_cursors = False
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes: what is not done in time is interrupted",
        "alive": "SELECT 1, in this process",
        "clean": "as sqlite, unless a cursor was lent",
        "reset": "as sqlite, in the connection's thread",
        "in flight": "yes: what its thread has not done yet; it is interrupted",
        "cut": "no; a running statement is interrupted",
        "errors": "as sqlite",
    }
    options: ClassVar[Mapping[str, Parser]] = SQLiteDriver.options
    _class: ClassVar[type[Any] | None] = None

    def __init__(
        self,
        source: Any = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        super().__init__(source, connect_args=None, reset=reset, on_connect=on_connect, described=described)
        arguments = dict(connect_args or {})
        self._chunk: int = arguments.pop("iter_chunk_size", 64)
        self._dials = self._connect is getattr(self.module, "connect", None)
        self.module = sqlite3  # whose exception classes it raises
        statements = None if callable(on_connect) else on_connect
        # Its anchor keeps a database in memory alive; what it would do takes place in a connection's thread.
        self._inner = SQLiteDriver(
            sqlite3 if self._dials else self._connect,
            connect_args=arguments,
            reset="auto" if callable(reset) else reset,
            on_connect=statements,
            described=described,
        )
        if not callable(self._reset) and self._inner.is_clean is not None:
            self.is_clean = self._is_clean

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import aiosqlite."""
        try:
            return importlib.import_module("aiosqlite")
        except ImportError as error:
            text = 'aiosqlite is not installed; install it with: pip install "millpond[aiosqlite]"'
            raise DriverMissing(text) from error

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the arguments for ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite://`` (in memory)."""
        return SQLiteDriver.arguments_of(url)

    @classmethod
    def connection_class(cls) -> type[Any]:
        """Return the class of aiosqlite's connections that know what they still have to do."""
        if cls._class is None:
            core: Any = importlib.import_module("aiosqlite.core")
            context: Any = importlib.import_module("aiosqlite.context")
            members = {name: context.contextmanager(noting(name, core.Connection)) for name in MAKERS}
            cls._class = type("Connection", (Counting, core.Connection), members)
        return cls._class

    async def open(self, until: float) -> Any:
        """Start the connection's thread, and open the file in it."""
        if not self._dials:
            conn = await answer_of(self._connect())
        else:
            arguments = self._inner.fresh_arguments()
            conn = self.connection_class()(lambda: sqlite3.connect(**arguments), self._chunk)
            await conn
        try:
            await conn._execute(self._inner.set_up, conn._conn, until)  # noqa: SLF001  its way into its thread
            if callable(self._on_connect):
                await answer_of(self._on_connect(conn))
                await conn.commit()
        except BaseException:
            self.close(conn)
            raise
        return conn

    async def is_alive(self, conn: Any, until: float) -> bool:
        """Ask for a constant."""
        try:
            alive: bool = await conn._execute(self._inner.is_alive, conn._conn, until)  # noqa: SLF001
        except ValueError:  # closed
            return False
        return alive

    def _is_clean(self, conn: Any) -> bool:
        """Say whether nothing was left in it; while cursors may be open that is not proved."""
        raw = raw_of(conn)
        is_clean = self._inner.is_clean
        return raw is not None and is_clean is not None and is_clean(raw) and not getattr(conn, "lent", True)

    async def clean(self, conn: Any, until: float) -> bool:
        """Cut cursors off, and make the session as good as new, in the connection's thread."""
        for cursor in take_lent(conn):
            cursor._conn = GIVEN_BACK  # noqa: SLF001  so that it says so
        clean: bool = await conn._execute(self._clean_in_thread, conn, until)  # noqa: SLF001
        return clean

    def _clean_in_thread(self, conn: Any, until: float) -> bool:
        for cursor in take_raw(conn):
            with contextlib.suppress(sqlite3.Error):
                cursor.close()  # it may hold a statement, and with it a lock
        return self._inner.clean(conn._conn, until)  # noqa: SLF001

    def close(self, conn: Any) -> Awaitable[object] | None:
        """Interrupt what runs, and have the thread close the file and end."""
        raw = raw_of(conn)
        if not getattr(conn, "_running", True):  # it was told before, and its thread answers only once
            return None
        runs = bool(self.in_flight(conn))
        if runs and raw is not None:
            conn.given_up = True
            with contextlib.suppress(sqlite3.Error):
                raw.interrupt()
        stopped: asyncio.Future[Any] | None = conn.stop()
        return stopped if stopped is None or raw is None or not runs else interrupted(raw, stopped)

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether its thread still has something to do."""
        todo: deque[None] | None = getattr(conn, "todo", None)
        return None if todo is None else bool(todo)

    def uncommitted(self, conn: Any) -> bool:
        """Say whether writes would be lost by a rollback now."""
        raw = raw_of(conn)
        return raw is not None and self._inner.uncommitted(raw)

    def cut(self, conn: Any) -> bool:
        """Interrupt a running statement."""
        raw = raw_of(conn)
        return raw is not None and self._inner.cut(raw)

    def classify(self, error: BaseException) -> Fault:
        """Sort as sqlite3's."""
        return self._inner.classify(error)

    def __repr__(self) -> str:
        return f"<aiosqlite adapter of {self._described or 'aiosqlite'}>"


class Counting:
    """What a connection class gains: it knows what its thread has not done yet, and which cursors it has lent."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], chunk: int) -> None:
        super().__init__(connector, chunk)  # type: ignore[call-arg]  # aiosqlite's own
        self.todo: deque[None] = deque()  # one entry a call; the thread takes out what it has done
        self.lent: list[weakref.ref[Any]] = []
        self.raw_lent: list[weakref.ref[sqlite3.Cursor]] = []
        self.given_up = False
        thread: Any = getattr(self, "_thread", self)  # before 0.22 the connection was the thread
        thread.daemon = True  # a program that forgets to close its pool ends all the same

    async def _execute(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def do_it() -> Any:
            try:
                if self.given_up:
                    raise sqlite3.OperationalError("interrupted")
                return function(*args, **kwargs)
            finally:
                self.todo.pop()

        self.todo.append(None)
        return await super()._execute(do_it)  # type: ignore[misc]  # aiosqlite's own


async def interrupted(raw: sqlite3.Connection, stopped: asyncio.Future[Any]) -> None:
    """Interrupt what runs until the thread has ended: a statement that was about to run when it was, runs on."""
    while not stopped.done():
        await asyncio.wait((stopped,), timeout=0.05)
        with contextlib.suppress(sqlite3.Error):
            raw.interrupt()


def noting(name: str, base: type[Any]) -> Callable[..., Any]:
    """Return the method of that name that notes the cursor it makes."""
    method = getattr(base, name)

    async def make(self: Any, *args: Any, **kwargs: Any) -> Any:
        cursor = await method(self, *args, **kwargs)
        self.lent.append(weakref.ref(cursor))
        self.raw_lent.append(weakref.ref(cursor._cursor))  # noqa: SLF001  it may outlive its wrapper
        return cursor

    make.__name__ = name
    return make


class GivenBack:
    """What a cursor has for a connection once that was given back."""

    async def _execute(self, *_: Any, **__: Any) -> Any:
        raise sqlite3.ProgrammingError("this cursor was closed when its connection was given back to the pool")


GIVEN_BACK = GivenBack()


def take_lent(conn: Any) -> list[Any]:
    """Return the cursors that are still there, and forget them."""
    lent: list[weakref.ref[Any]] = getattr(conn, "lent", [])
    found = [cursor for reference in lent if (cursor := reference()) is not None]
    lent.clear()
    return found


def take_raw(conn: Any) -> list[sqlite3.Cursor]:
    """Return sqlite3's cursors that are still there, and forget them."""
    lent: list[weakref.ref[sqlite3.Cursor]] = getattr(conn, "raw_lent", [])
    found = [cursor for reference in lent if (cursor := reference()) is not None]
    lent.clear()
    return found


def raw_of(conn: Any) -> sqlite3.Connection | None:
    """Return sqlite3's own connection; None if it was closed."""
    raw: sqlite3.Connection | None = getattr(conn, "_connection", None)
    return raw
