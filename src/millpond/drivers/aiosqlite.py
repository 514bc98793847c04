"""aiosqlite: SQLite for tasks, each connection in a thread of its own.

What a session is, how it is proved clean and made as good as new is :mod:`millpond.drivers.sqlite`'s; what takes time
is run in the connection's thread.

Rules:
- A call that was cancelled goes on in that thread, so a connection knows what it still has to do, and is interrupted
  and given up when it comes back in the middle of it.
- Ending a connection needs nobody: no task, no loop.  Its thread rolls back, closes the file and ends, and where a
  statement is in the way another thread interrupts that until it has (docs/adr/050-the-end-of-a-loop.md).
- What a thread has to say to a loop that was closed meanwhile is said to nobody.
- Cursors are cut off when a connection is made as good as new, which is at the return of every connection that has lent
  one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import sqlite3
import threading
import types
import weakref
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, ClassVar, TypeVar

from millpond._core.states import Fault
from millpond.errors import DriverMissing
from millpond.url import URL, Parser

from .aio import AiodbDriver, answer_of
from .settings import OnConnect, Reset
from .sqlite import SQLiteDriver

T = TypeVar("T")
MAKERS = ("cursor", "execute", "executemany", "executescript")
CURSORS = 64  # lent over one connection before those that are gone are weeded out
INSIST_S = 0.05  # a statement that was about to run when it was interrupted runs on, so it is interrupted again


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
        try:
            if self._dials:
                await conn.dial()
            await conn._execute(self._inner.set_up, conn._conn, until)  # noqa: SLF001  its way into its thread
            if callable(self._on_connect):
                await answer_of(self._on_connect(conn))
                await conn.commit()
        except BaseException:
            left = self.close(conn)
            if left is not None:
                await left  # so that it has ended when the dial has; it ends all the same
            raise
        return conn

    async def is_alive(self, conn: Any, until: float) -> bool:
        """Ask for a constant."""
        try:
            alive: bool = await conn._execute(self._inner.is_alive, conn._conn, until)  # noqa: SLF001  the way into its thread
        except ValueError:  # closed
            return False
        return alive

    def _is_clean(self, conn: Any) -> bool:
        """Say whether nothing was left in it; while cursors may be open that is not proved."""
        raw = raw_of(conn)
        conn.loans = getattr(conn, "loans", 0) + 1
        is_clean = self._inner.is_clean
        return raw is not None and is_clean is not None and is_clean(raw) and not getattr(conn, "lent", True)

    async def clean(self, conn: Any, until: float) -> bool:
        """Cut cursors off, and make the session as good as new, in the connection's thread."""
        for cursor in take_lent(conn):
            cursor._conn = GIVEN_BACK  # noqa: SLF001  so that it says so
        clean: bool = await conn._execute(self._clean_in_thread, conn, until)  # noqa: SLF001  the way into its thread
        return clean

    def _clean_in_thread(self, conn: Any, until: float) -> bool:
        close_lent(conn)  # each may hold a statement, and with it a lock
        return self._inner.clean(conn._conn, until)  # noqa: SLF001  the way into its thread

    def close(self, conn: Any) -> Awaitable[object] | None:
        """Interrupt what runs, and have the thread roll back, close the file and end."""
        if not getattr(conn, "_running", True):  # it was told before
            return None
        return Ending(conn, self._inner.close, runs=self.in_flight(conn) is not False)

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether its thread still has something to do."""
        duties: Duties | None = getattr(conn, "duties", None)
        return None if duties is None else bool(duties.todo)

    def uncommitted(self, conn: Any) -> bool:
        """Say whether writes would be lost by a rollback now."""
        raw = raw_of(conn)
        return raw is not None and self._inner.uncommitted(raw)

    def hurry(self, conn: Any, seconds: float) -> Callable[[], None] | None:
        """Have a connection that does nothing now wait no longer than that for a lock, as sqlite3's adapter does."""
        if not self._dials or self.in_flight(conn) is not False:
            return None  # only what we open may be touched beside its thread, and then only while that is idle
        calm = self._inner.hurry(conn._conn, seconds)  # noqa: SLF001  its way into its thread takes a task
        return None if calm is None else lambda: None if self.in_flight(conn) else calm()

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

    _connection: sqlite3.Connection | None
    _connector: Callable[[], sqlite3.Connection]
    _running: bool
    _tx: Any

    def __init__(self, connector: Callable[[], sqlite3.Connection], chunk: int) -> None:
        super().__init__(connector, chunk)  # type: ignore[call-arg]  # aiosqlite's own
        self.duties = Duties()
        self.loans = 0  # how often it was given back
        self.lent: list[weakref.ref[Any]] = []
        self.raw_lent: list[weakref.ref[sqlite3.Cursor]] = []
        thread_of(self).daemon = True  # a program that forgets to close its pool ends all the same

    async def dial(self) -> None:
        """Start the thread, and open the file in it."""
        thread_of(self).start()
        await self._ask(self._open_in_thread)

    def _open_in_thread(self) -> None:
        self._connection = self._connector()

    async def _execute(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")  # as aiosqlite says
        return await self._ask(function, *args, **kwargs)

    async def _ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Have the thread do something, and wait for what comes of it."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.duties.todo.append(None)
        self._tx.put_nowait((Reply(answer), Duty(self.duties, functools.partial(function, *args, **kwargs))))
        try:
            return await answer
        finally:
            del answer  # or it, and the error that it has, would hold each other

    def __del__(self) -> None:
        # Not a word: the pool says where a connection was taken that is dropped.
        if getattr(self, "_connection", None) is not None:
            self.stop()

    def stop(self) -> Ending | None:
        """Close the file and end the thread, as aiosqlite's own method does."""
        return Ending(self, sqlite3.Connection.close, runs=bool(self.duties.todo)) if self._running else None


class Duties:
    """What a connection's thread has still to do, and whether it still should."""

    __slots__ = ("given_up", "todo")

    def __init__(self) -> None:
        self.todo: deque[None] = deque()  # one entry a call; the thread takes out what it has done
        self.given_up = False


class Duty:
    """One of them; a thread that waits for the next one holds the last, which must hold no connection by then."""

    __slots__ = ("_duties", "_work")

    def __init__(self, duties: Duties, work: Callable[[], Any]) -> None:
        self._duties = duties
        self._work: Callable[[], Any] | None = work

    def __call__(self) -> Any:
        """Do it, unless the connection was given up meanwhile."""
        work, self._work = self._work, None
        try:
            if self._duties.given_up or work is None:
                raise sqlite3.OperationalError("interrupted")
            return work()
        finally:
            self._duties.todo.pop()


class Reply:
    """What a connection's thread is given for a future: it tells a loop that was closed meanwhile nothing."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any] | None) -> None:
        self._future = future

    def get_loop(self) -> Reply:
        """Return who is told."""
        return self

    def call_soon_threadsafe(self, tell: Callable[[Any, Any], None], _: Reply, what: Any) -> None:
        """Tell the future, if anybody may still wait for it."""
        future, self._future = self._future, None  # a thread that waits for its next duty holds the last one's reply
        if future is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(tell, future, what)


class Ending:
    """The end of a connection, which comes by itself; await it or not, and again after having been called away.

    Args:
        conn: aiosqlite's connection; nobody may use it from now on.
        close_file: closes sqlite3's own connection.
        runs: a statement may be running in its thread.
    """

    __slots__ = ("_close_file", "_conn", "_ended", "_guard", "_is_closing", "_waiting")

    def __init__(self, conn: Any, close_file: Callable[[sqlite3.Connection], object], *, runs: bool) -> None:
        self._conn = conn
        self._close_file = close_file
        self._guard = threading.Lock()
        self._is_closing = False  # what its thread does from now on is not to be interrupted
        self._ended = threading.Event()
        self._waiting: asyncio.Future[None] | None = None
        conn._running = False  # noqa: SLF001  aiosqlite's word for "may be asked"
        duties: Duties | None = getattr(conn, "duties", None)
        if duties is not None:
            duties.given_up = True
        thread: Any = thread_of(conn)
        if not thread.is_alive():  # whoever opened it was called away before that, or it has ended
            self._ended.set()
            return
        if runs:
            self._interrupt()
            with contextlib.suppress(RuntimeError):  # no thread is to be had: it may have to run to its end
                threading.Thread(target=self._insist, name="millpond interrupts", daemon=True).start()
        loop = _get_running_loop()  # the public one raises where none runs
        if loop is not None:
            self._waiting = loop.create_future()
        conn._tx.put_nowait((Reply(self._waiting), self._close_in_thread))  # noqa: SLF001  the way into its thread
        if thread is conn:  # before 0.22 the last word is one by itself
            conn._tx.put_nowait(last_word())  # noqa: SLF001  the way into its thread

    def __await__(self) -> Generator[Any, Any, None]:
        if self._waiting is not None and not self._waiting.done():
            yield from asyncio.wait((self._waiting,)).__await__()

    def _interrupt(self) -> None:
        raw = raw_of(self._conn)
        if raw is not None and not self._is_closing:
            with contextlib.suppress(sqlite3.Error):
                raw.interrupt()

    def _insist(self) -> None:
        """Interrupt what runs until it has ended."""
        while not self._ended.wait(INSIST_S):
            with self._guard:
                self._interrupt()

    def _close_in_thread(self) -> Any:
        with self._guard:
            self._is_closing = True
        raw = raw_of(self._conn)
        if raw is not None:
            close_lent(self._conn)  # else the file stays locked for as long as anybody holds one
            with contextlib.suppress(sqlite3.Error):
                self._close_file(raw)
        self._conn._connection = None  # noqa: SLF001  aiosqlite's word for "is open"
        self._ended.set()
        return last_word()


def thread_of(conn: Any) -> threading.Thread:
    """Return a connection's thread; before aiosqlite 0.22 it was one itself."""
    thread: threading.Thread = getattr(conn, "_thread", conn)
    return thread


def last_word() -> object:
    """Return what ends a connection's thread."""
    word: object = importlib.import_module("aiosqlite.core")._STOP_RUNNING_SENTINEL  # noqa: SLF001  it has no other name
    return word


def noting(name: str, base: type[Any]) -> Callable[..., Any]:
    """Return the method of that name that notes the cursor it makes, and makes none for whoever comes too late."""
    method = getattr(base, name)

    def make(self: Any, *args: Any, **kwargs: Any) -> Any:
        loans = self.loans  # now, not when a task has its first turn

        async def make_noted() -> Any:
            if self.loans != loans:
                raise sqlite3.ProgrammingError("this connection was given back to the pool before this was begun")
            cursor = await method(self, *args, **kwargs)
            keep(self.lent, cursor)
            keep(self.raw_lent, cursor._cursor)  # noqa: SLF001  it may outlive its wrapper
            return cursor

        return make_noted()

    make.__name__ = name
    return make


def keep(lent: list[weakref.ref[T]], cursor: T) -> None:
    """Note a cursor; a connection may be lent for a million statements."""
    lent.append(weakref.ref(cursor))
    if len(lent) >= CURSORS and not len(lent) & (len(lent) - 1):  # at each power of two
        lent[:] = [reference for reference in lent if reference() is not None]


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


def close_lent(conn: Any) -> None:
    """Close sqlite3's own cursors that are still there, in the connection's thread."""
    lent: list[weakref.ref[sqlite3.Cursor]] = getattr(conn, "raw_lent", [])
    for reference in lent:
        cursor = reference()
        if cursor is not None:
            with contextlib.suppress(sqlite3.Error):
                cursor.close()
    lent.clear()


def raw_of(conn: Any) -> sqlite3.Connection | None:
    """Return sqlite3's own connection; None if it was closed."""
    raw: sqlite3.Connection | None = getattr(conn, "_connection", None)
    return raw
