"""The helper layer for tasks: ``Database`` with ``await``, and the same rules.

Why: what a statement is, how values are bound, what rows become, what an error is called and what a transaction's books
say is in ``_database``, and none of it waits.  This module is how tasks wait for it; ``database.py`` is how threads do,
and tells each method's contract at length.

Rules:
- A cancelled task never waits to clean up: what was in flight costs the connection, anything else is the pool's to put
  right.  Only a block within a transaction that goes on is taken back by a statement.
- What a deadline ends is ended on the server first, and only if that does not help by cutting the link.
- Nothing is decided here that ``database.py`` decides otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from ._database import batches, errors, rows, transactions, writes
from ._database.batches import Done
from ._database.knowledge import ASK_PACKET_MAX, Knowledge, bound, caller, seconds_of, with_autocommit
from ._database.rows import Row
from ._database.statements import Statement
from ._database.transactions import Attempts, Books, Joining
from ._database.watchdog import GRACE_S
from ._database.writes import Table
from ._sql.params import Params
from .aio import AsyncPool
from .aio_lease import AsyncLease
from .drivers.aio import answer_of
from .errors import Error, InvalidSetting

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncDatabase", "AsyncStream", "AsyncTransaction"]

T = TypeVar("T")
Take: TypeAlias = Callable[[Any], Coroutine[Any, Any, T]]
DictRow = dict[str, Any]


class AsyncDatabase:
    """A database, as SQL and rows.

    Args:
        source: a URL, for a pool of its own with autocommit on; or a :class:`~millpond.AsyncPool`, which stays its
            owner's.
        settings: what ``AsyncPool`` takes beside a URL, such as ``max_size``.

    Raises:
        InvalidSetting: it is neither, or a setting is wrong.
        DriverMissing: the driver's package is not installed.

    All methods belong to the loop of the pool.  Statements take values as ``%s`` or ``?`` with a sequence, or as
    ``:name`` or ``%(name)s`` with a mapping; a list after ``IN`` stands for its elements.  ``timeout`` is in seconds,
    for the whole of the call, the wait for a connection included; None leaves that wait to the pool and bounds nothing
    else.

    Every method can raise :class:`~millpond.StatementFailed`, or one of its kinds: the database refused; it is also of
    the driver's own class.  :class:`~millpond.PoolTimeout`: no connection came in time.
    :class:`~millpond.InvalidParameters`: the values do not go with the statement, the program's fault.
    """

    def __init__(self, source: str | AsyncPool[Any], **settings: Any) -> None:
        given = cast("object", source)
        if isinstance(given, AsyncPool):
            if settings:
                raise InvalidSetting(*next(iter(settings.items())), "nothing", "this pool has its settings already")
            self._pool: AsyncPool[Any] = given
        elif isinstance(given, str):
            self._pool = AsyncPool(with_autocommit(given), **settings)
        else:
            raise InvalidSetting("source", type(source).__name__, "a URL, or a millpond.AsyncPool")
        self._owns_pool = isinstance(given, str)
        self._knowledge = Knowledge(self._pool.driver)
        self._joining: Joining[_Open] = Joining()
        self._deadlines: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ rows
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: None = None,
        required: Literal[True],
        first: bool = False,
        timeout: float | None = None,
    ) -> Row: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: None = None,
        required: Literal[False] = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Row | None: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[DictRow],
        required: Literal[True],
        first: bool = False,
        timeout: float | None = None,
    ) -> DictRow: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[DictRow],
        required: Literal[False] = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> DictRow | None: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[..., T],
        required: Literal[True],
        first: bool = False,
        timeout: float | None = None,
    ) -> T: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[..., T],
        required: Literal[False] = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> T | None: ...
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Any = None,
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Return the one row that a statement finds.

        Args:
            sql: the statement.
            params: its values.
            into: what the row becomes: a tuple if not given; ``dict``, ``list``, ``NamedRow``, a named tuple, a
                dataclass, or any callable that takes the columns by name.
            required: there must be a row.
            first: any row will do, if there are several.
            timeout: seconds for the call.

        Returns:
            The row; None if there is none.

        Raises:
            NoRow: there is none, and one is required.
            TooManyRows: there are several.
            RowMismatch: the columns do not fit ``into``, or two of them have one name: the program's fault.
        """
        found, columns = await self._run(sql, params, timeout, take_two_rows)
        row = rows.one_of(found, columns, sql, required=required, first=first)
        return row if row is None or into is None else rows.shaped([row], into, columns, sql)[0]

    @overload
    async def select_rows(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> list[Row]: ...
    @overload
    async def select_rows(
        self, sql: str, params: Params | None = None, *, into: type[DictRow], timeout: float | None = None
    ) -> list[DictRow]: ...
    @overload
    async def select_rows(
        self, sql: str, params: Params | None = None, *, into: Callable[..., T], timeout: float | None = None
    ) -> list[T]: ...
    async def select_rows(
        self, sql: str, params: Params | None = None, *, into: Any = None, timeout: float | None = None
    ) -> list[Any]:
        """Return all rows that a statement finds; :meth:`stream` is for those that should not be in memory at once.

        Arguments, result and errors are those of :meth:`millpond.Database.select_rows`.
        """
        found, columns = await self._run(sql, params, timeout, take_rows)
        return rows.shaped(found, into, columns, sql)

    @overload
    async def select_value(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: None = None,
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Any: ...
    @overload
    async def select_value(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[[Any], T],
        required: Literal[True],
        first: bool = False,
        timeout: float | None = None,
    ) -> T: ...
    @overload
    async def select_value(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[[Any], T],
        required: Literal[False] = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> T | None: ...
    async def select_value(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[[Any], Any] | None = None,
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Return the one value of the one row that a statement finds; None also if there is no row.

        Arguments, result and errors are those of :meth:`millpond.Database.select_value`.
        """
        found, columns = await self._run(sql, params, timeout, take_two_rows)
        row = rows.one_of(found, columns, sql, required=required, first=first)
        value = None if row is None else rows.only_value(row, sql, columns)
        return value if into is None or value is None else into(value)

    @overload
    async def select_column(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> list[Any]: ...
    @overload
    async def select_column(
        self, sql: str, params: Params | None = None, *, into: Callable[[Any], T], timeout: float | None = None
    ) -> list[T]: ...
    async def select_column(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """Return the values of the one column that a statement returns.

        Arguments, result and errors are those of :meth:`millpond.Database.select_column`.
        """
        found, columns = await self._run(sql, params, timeout, take_rows)
        values = rows.only_values(found, sql, columns)
        return values if into is None else [into(value) for value in values]

    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> AsyncStream[Row]: ...
    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: type[DictRow], timeout: float | None = None
    ) -> AsyncStream[DictRow]: ...
    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: Callable[..., T], timeout: float | None = None
    ) -> AsyncStream[T]: ...
    def stream(
        self, sql: str, params: Params | None = None, *, into: Any = None, timeout: float | None = None
    ) -> AsyncStream[Any]:
        """Return an iterator over the rows that a statement finds, which fetches them from the server as it goes.

        Arguments, result and errors are those of :meth:`millpond.Database.stream`.
        """
        seconds = seconds_of(timeout)
        inside = self._joining.current()
        if inside is not None:
            return AsyncStream(inside.streaming(sql, params, into, seconds), inside.abandoned)
        return AsyncStream(self._streaming(sql, params, into, seconds))

    # ------------------------------------------------------------------ writes
    async def execute(self, sql: str, params: Params | None = None, *, timeout: float | None = None) -> Done:
        """Run a statement of any kind but those that begin or end a transaction.

        Arguments, result and errors are those of :meth:`millpond.Database.execute`.
        """
        return await self._run(sql, params, timeout, take_count)

    async def execute_many(self, sql: str, params: Iterable[Params], *, timeout: float | None = None) -> int:
        """Run a statement once for each set of values, in one transaction; INSERTs go in batches.

        Arguments, result and errors are those of :meth:`millpond.Database.execute_many`.
        """
        remaining = iter(params)
        chunk = batches.next_chunk(remaining)
        if not chunk:
            return 0
        until = until_of(seconds_of(timeout))
        count = 0
        async with self.transaction(timeout=timeout) as transaction:
            while chunk:
                count += await transaction._run_chunk(sql, chunk, until, timeout)  # noqa: SLF001  one body
                chunk = batches.next_chunk(remaining)
        return count

    async def insert(self, table: Table, values: Mapping[str, Any], *, timeout: float | None = None) -> Done:
        """Insert a row.

        Arguments, result and errors are those of :meth:`millpond.Database.insert`.
        """
        columns = writes.names_of(values)
        return await self._run_made(
            functools.partial(writes.insert_text, table=table, columns=columns), values, timeout
        )

    async def insert_many(
        self, table: Table, rows: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> int:
        """Insert rows that all have the same columns, in batches and one transaction.

        Arguments, result and errors are those of :meth:`millpond.Database.insert_many`.
        """
        columns, remaining = writes.columns_of_first(rows)
        if columns is None:
            return 0
        make = functools.partial(writes.insert_text, table=table, columns=columns)
        return await self._run_many_made(make, writes.rows_of(remaining, columns), timeout)

    async def upsert(
        self,
        table: Table,
        values: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        key: str | Sequence[str] = (),
        update: str | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Done:
        """Insert a row, or several, and where a row with the key is there already, update that.

        Arguments, result and errors are those of :meth:`millpond.Database.upsert`.
        """
        if isinstance(values, Mapping):
            row = cast("Mapping[str, Any]", values)
            made = writes.upsert_maker(table, writes.names_of(row), key, update)
            return await self._run_made(made, row, timeout)
        columns, remaining = writes.columns_of_first(values)
        if columns is None:
            return Done(0, None)
        make = writes.upsert_maker(table, columns, key, update)
        return Done(await self._run_many_made(make, writes.rows_of(remaining, columns), timeout), None)

    # ------------------------------------------------------------------ transactions
    def transaction(
        self, *, isolation: str | None = None, read_only: bool = False, timeout: float | None = None
    ) -> AsyncTransaction:
        """Begin a transaction in a ``with`` block: committed at its end, rolled back if an exception leaves it.

        Arguments, result and errors are those of :meth:`millpond.Database.transaction`.
        """
        return AsyncTransaction(self, transactions.isolation_of(isolation), read_only=read_only, timeout=timeout)

    async def run_transaction(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        attempts: int = transactions.ATTEMPTS,
        isolation: str | None = None,
        read_only: bool = False,
        timeout: float | None = None,
    ) -> T:
        """Call a function in a transaction, and run the whole of it again if that is safe and may help.

        Arguments, result and errors are those of :meth:`millpond.Database.run_transaction`.
        """
        tries = Attempts(attempts)
        is_outermost = self._joining.current() is None
        while True:
            transaction = self.transaction(isolation=isolation, read_only=read_only, timeout=timeout)
            try:
                async with transaction:
                    return await function()
            except Exception as error:
                delay = tries.delay_after(error, repeatable=is_outermost and transaction.is_repeatable)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    # ------------------------------------------------------------------ the whole
    @property
    def pool(self) -> AsyncPool[Any]:
        """The pool below, for its statistics and settings."""
        return self._pool

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool, if it was made here; one that was given stays open.

        Arguments, result and errors are those of :meth:`millpond.Database.close`.
        """
        if self._owns_pool:
            await self._pool.close(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<millpond.AsyncDatabase on {self._pool!r}>"

    # ------------------------------------------------------------------ inside
    async def _run(self, sql: str, params: Params | None, timeout: float | None, take: Take[T]) -> T:
        """Run one statement, in the transaction that the caller is in, or by itself."""
        until = until_of(seconds_of(timeout))
        inside = self._joining.current()
        if inside is not None:
            return await inside.run(sql, params, take, until, timeout)
        async with await self._hand(timeout) as hand:
            statement = hand.prepare(sql)
            return await hand.run(statement, params, take, until=until, timeout=timeout, commits=not statement.reads)

    async def _run_made(self, make: writes.Maker, values: Mapping[str, Any], timeout: float | None) -> Done:
        """Run a statement that is written here, by the rules of a dialect that has to be known first."""
        await self._meet(timeout)
        return await self._run(make(self._knowledge.dialect), tuple(values.values()), timeout, take_count)

    async def _run_many_made(self, make: writes.Maker, values: Iterator[Params], timeout: float | None) -> int:
        await self._meet(timeout)
        return await self.execute_many(make(self._knowledge.dialect), values, timeout=timeout)

    async def _meet(self, timeout: float | None) -> None:
        if not self._knowledge.has_met:
            async with await self._hand(timeout):
                pass

    async def _hand(self, timeout: float | None) -> _Hand:
        """Take a connection."""
        lease = await self._pool.connection(timeout)
        try:
            lease.note_holder(caller()[0])
            self._knowledge.meet(lease.driver_connection)
        except BaseException:
            _ = lease.close()
            raise
        return _Hand(self, lease)

    async def _streaming(
        self, sql: str, params: Params | None, into: Any, timeout: float | None
    ) -> AsyncGenerator[Any, None]:
        until = until_of(timeout)
        async with await self._hand(timeout) as hand:
            statement = hand.prepare(sql)
            async with hand.reading(statement, params, into, until, timeout, hand.leave_stream) as found:
                async for row in found:
                    yield row

    async def _kill(self, number: int, beginning: str) -> None:
        """End a statement over a connection beside the pool's, if it is still the one that it was."""
        driver = self._pool.driver
        side = await asyncio.wait_for(driver.open(time.monotonic() + GRACE_S), GRACE_S)
        try:
            cursor = await answer_of(self._knowledge.dialect.cursor(side))
            await cursor.execute("SHOW FULL PROCESSLIST")
            if batches.is_running(await cursor.fetchall(), cursor.description, number, beginning):
                await cursor.execute(f"KILL QUERY {number:d}")
        finally:
            left = driver.close(side)
            if left is not None:
                await left

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task that nobody's cancellation reaches."""
        task = asyncio.get_running_loop().create_task(work)
        self._deadlines.add(task)
        task.add_done_callback(self._deadlines.discard)
        return task


class _Watch:
    """A deadline of one statement: when it has passed, the statement is ended, and if that does not help, the link cut.

    Args:
        seconds: until then.
        spawn: runs what takes time.
        end_statement: ends the statement; None: there is no way to, and the link is cut at once.
        cut_link: makes whoever waits for an answer stop.
    """

    __slots__ = ("_cut_link", "_end_statement", "_is_over", "_spawn", "_timer", "fired", "task")

    def __init__(
        self,
        seconds: float,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        end_statement: Callable[[], Awaitable[None]] | None,
        cut_link: Callable[[], object],
    ) -> None:
        self._spawn = spawn
        self._end_statement = end_statement
        self._cut_link = cut_link
        self._is_over = False
        self.task: asyncio.Task[None] | None = None  # what ends it, once the deadline has passed
        self.fired = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fire)

    def disarm(self) -> bool:
        """Say that the statement is done; return whether somebody had begun to end it."""
        self._is_over = True
        self._timer.cancel()
        return self.fired

    async def wait_until_settled(self) -> None:
        """Wait until nobody is about to end the statement any more."""
        if self.task is not None:
            await asyncio.wait((self.task,))

    def _fire(self) -> None:
        self.fired = True
        if self._end_statement is None:
            self._cut_link()
            return
        self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._cut)
        self.task = self._spawn(self._end(self._end_statement))

    def _cut(self) -> None:
        if not self._is_over:
            self._cut_link()

    @staticmethod
    async def _end(end_statement: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(Exception):  # the link is cut instead, in a moment
            await end_statement()


class _Hand:
    """A connection in hand: what can be done with it, one statement at a time.

    Args:
        database: whose it is.
        lease: the connection.
    """

    __slots__ = ("_database", "conn", "dialect", "knowledge", "lease", "overdue")

    def __init__(self, database: AsyncDatabase, lease: AsyncLease[Any]) -> None:
        self._database = database
        self.lease = lease
        self.conn = lease.driver_connection
        self.knowledge = database._knowledge  # noqa: SLF001  one body
        self.dialect = self.knowledge.dialect
        self.overdue: _Watch | None = None  # a statement was to be ended: the order to may still arrive

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self.overdue is not None:
            self.lease.discard()
        else:
            let_go(self.lease, exc)

    def prepare(self, sql: str) -> Statement:
        return self.knowledge.statements.prepare(sql, self.conn)

    async def run(
        self,
        statement: Statement,
        params: Params | None,
        take: Take[T],
        *,
        until: float | None,
        timeout: float | None,
        commits: bool,
        read_only: bool = False,
    ) -> T:
        """Run a statement, and commit it if it commits and the connection does not do that by itself."""
        text, values = bound(statement, params)
        async with self.limited(statement, text, until, timeout, commits=commits, read_only=read_only) as text_sent:
            cursor = await answer_of(self.dialect.cursor(self.conn))
            await cursor.execute(text_sent, values)
            taken = await take(cursor)
            if not statement.one_result:
                await cursor.close()
            if commits and self.dialect.in_transaction(self.conn) is not False:
                await self.commit_by_itself()
        return taken

    async def commit_by_itself(self) -> None:
        """Commit a statement outside a transaction, where autocommit is off or was switched off."""
        if not self.knowledge.autocommit or self.dialect.in_transaction(self.conn):
            await self.end(self.dialect.commit, "commit")

    @contextlib.asynccontextmanager
    async def limited(
        self,
        statement: Statement,
        text: str,
        until: float | None,
        timeout: float | None,
        *,
        commits: bool,
        read_only: bool = False,
    ) -> AsyncGenerator[str, None]:
        """Give the statement the time that is left, and call what goes wrong by its name."""
        watch: _Watch | None = None
        if until is not None and timeout is not None:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise self.knowledge.too_late(statement.sql, timeout)
            limited = statement.timed(text, left_s)
            text = limited or text
            watch = self.watch(text, left_s if limited is None else left_s + GRACE_S)
        try:
            yield text
        except BaseException as error:
            fired = self.disarm(watch)
            ours = self.knowledge.failure(
                error, statement.sql, commits=commits, timeout=timeout if fired else None, read_only=read_only
            )
            if ours is error:
                raise
            raise ours from error
        if self.disarm(watch) and statement.reads and timeout is not None:  # SLEEP() ends early without an error
            raise self.knowledge.too_late(statement.sql, timeout)

    def watch(self, text: str, seconds: float) -> _Watch:
        """Have the statement ended after so many seconds, as well as this driver allows."""
        database, driver, conn = self._database, self._database.pool.driver, self.conn
        interrupt, number = self.dialect.interrupter(conn), self.dialect.session_id(conn)
        end: Callable[[], Awaitable[None]] | None = None
        if interrupt is not None:
            end = functools.partial(called, interrupt)
        elif number is not None:
            end = functools.partial(database._kill, number, self.beginning(text))  # noqa: SLF001  one body
        return _Watch(seconds, database._spawn, end, lambda: driver.cut(conn))  # noqa: SLF001  one body

    def disarm(self, watch: _Watch | None) -> bool:
        """Say that the statement is done, and whether it was to be ended."""
        if watch is None or not watch.disarm():
            return False
        self.overdue = watch
        return True

    async def send(self, sql: str) -> None:
        """Send a statement of our own, without values."""
        try:
            cursor = await answer_of(self.dialect.cursor(self.conn))
            await cursor.execute(sql)
            await cursor.close()
        except Exception as error:
            ours = self.knowledge.failure(error, sql, commits=False)
            if ours is error:
                raise
            raise ours from error

    def refuse_dead_link(self, sql: str) -> None:
        """Look whether the server has closed the link: what is not sent has a known outcome."""
        driver = self._database.pool.driver
        if driver.is_readable is not None and driver.is_readable(self.conn):
            raise self.knowledge.gone(sql)

    async def end(self, text: str | None, method: str) -> None:
        """Send COMMIT or ROLLBACK in the driver's own way."""
        if text is None:
            await getattr(self.conn, method)()
        else:
            cursor = await answer_of(self.dialect.cursor(self.conn))
            await cursor.execute(text)

    # ---- streams
    @contextlib.asynccontextmanager
    async def reading(
        self,
        statement: Statement,
        params: Params | None,
        into: Any,
        until: float | None,
        timeout: float | None,
        leave: Callable[[Any, str, BaseException], Awaitable[None]],
    ) -> AsyncGenerator[AsyncIterator[Any], None]:
        """Give rows as they come; *leave* is called with the cursor if not all of them are wanted."""
        text, values = bound(statement, params)
        async with self.limited(statement, text, until, timeout, commits=not statement.reads) as text_sent:
            cursor = await answer_of(self.dialect.stream_cursor(self.lease))
            try:
                await cursor.execute(text_sent, values)
                maker = rows.maker_of(into, cursor.description, statement.sql)
                async with contextlib.aclosing(rows_from(cursor, maker)) as found:
                    yield found
            except BaseException as error:
                await leave(cursor, text_sent, error)
                raise
            await cursor.close()

    async def leave_stream(self, cursor: Any, _text: str, error: BaseException) -> None:
        """Give back the connection of a stream that was not read to its end: the pool reads no long reply."""
        in_flight = self._database.pool.driver.in_flight(self.conn)
        if in_flight is None or self.overdue is not None:
            self.lease.discard()
        elif in_flight or not isinstance(error, (Exception, GeneratorExit)):
            _ = self.lease.close(type(error))
        else:
            await cursor.close()

    async def end_stream(self, cursor: Any, text: str) -> bool:
        """Have the server end a stream, and read what was on its way; False if that cannot be done."""
        number = self.dialect.session_id(self.conn)
        if number is None:
            return False
        try:
            await self._database._kill(number, self.beginning(text))  # noqa: SLF001  one body
        except Exception:  # noqa: BLE001  no second connection was to be had
            return False
        try:
            await cursor.close()
        except Exception as error:  # noqa: BLE001  that it was ended is what is expected
            return isinstance(self.knowledge.failure(error, text, commits=False), errors.StatementKilled)
        return True

    def beginning(self, text: str) -> str:
        """Return what a statement begins with, up to its first value; of a CALL the server shows what it calls."""
        return "" if text.lstrip()[:4].upper() == "CALL" else text.partition(self.dialect.marks.place)[0]


class _Open:
    """An open transaction: its books, and the connection in hand.

    Attributes:
        abandoned: streams that were dropped before their end, by a ``break`` for instance; whatever comes next on the
            connection closes them first.  A task of the garbage collector's would do so at the same time.
    """

    __slots__ = ("abandoned", "books", "hand", "owner")

    def __init__(self, hand: _Hand, books: Books) -> None:
        self.hand = hand
        self.books = books
        self.owner = transactions.myself()
        self.abandoned: list[AsyncGenerator[Any, None]] = []

    async def admit(self, what: str) -> None:
        """See to it that the transaction still stands, and ask the server where that is in doubt."""
        books, hand = self.books, self.hand
        if self.abandoned:
            await self.close_abandoned()
        books.look_for(hand.lease)
        books.admit(what)
        overdue, hand.overdue = hand.overdue, None
        if overdue is not None and hand.dialect.brand != "sqlite":  # interrupt() ends nothing that begins later
            await overdue.wait_until_settled()
            await self.swallow()
        if books.doubtful:
            await self.probe()
        books.admit(what)

    async def close_abandoned(self) -> None:
        """Close the streams that nobody can read any more."""
        while self.abandoned:
            with contextlib.suppress(errors.StatementFailed):  # the books know
                await self.abandoned.pop().aclose()

    async def probe(self) -> None:
        """Have the server say whether the transaction is open."""
        assert self.hand.dialect.probe is not None, "bug: the books are in doubt, and there is nothing to ask with"
        try:
            await self.hand.send(self.hand.dialect.probe)
        except errors.StatementFailed as error:
            self.books.spoil("it could not be told whether it was still open", error)
            return
        self.books.probed(self.hand.conn)

    async def swallow(self) -> None:
        """Have an order to end a statement that is done by now hit a statement that does nothing."""
        with contextlib.suppress(errors.StatementKilled):
            await self.hand.send("DO 0")
            return
        try:
            await self.hand.send("DO 0")
        except errors.StatementFailed as error:
            self.books.spoil("a statement in it was ended from outside, and the order to may still come", error)

    async def run(
        self, sql: str, params: Params | None, take: Take[T], until: float | None, timeout: float | None
    ) -> T:
        """Run a statement of this transaction."""
        await self.admit(sql)
        statement = self.hand.prepare(sql)
        try:
            taken = await self.hand.run(
                statement,
                params,
                take,
                until=until,
                timeout=timeout,
                commits=False,
                read_only=self.books.read_only,
            )
        except BaseException as error:
            self.books.failed(statement, self.hand.conn, error)
            raise
        self.books.answered(statement, self.hand.conn)
        return taken

    async def send(self, sql: str) -> None:
        """Send a statement of our own."""
        await self.admit(sql)
        try:
            await self.hand.send(sql)
        except errors.StatementFailed as error:
            self.books.end(f"{sql} failed", error)
            raise
        except BaseException as error:
            self.books.spoil("it was interrupted in the middle of a statement", error)
            raise

    async def streaming(
        self, sql: str, params: Params | None, into: Any, timeout: float | None
    ) -> AsyncGenerator[Any, None]:
        until = until_of(timeout)
        await self.admit(sql)
        books, hand = self.books, self.hand
        statement = hand.prepare(sql)
        books.streaming = True
        try:
            async with hand.reading(statement, params, into, until, timeout, self.leave_stream) as found:
                async for row in found:
                    yield row
        except GeneratorExit:
            raise
        except BaseException as error:
            books.failed(statement, hand.conn, error)
            raise
        finally:
            books.streaming = False
        books.answered(statement, hand.conn)

    async def leave_stream(self, cursor: Any, text: str, error: BaseException) -> None:
        """End a stream early: the connection is needed, and what is left is not read."""
        if self.books.spoilt:  # and its connection given up
            return
        try:
            await self.end_early(cursor, text, error)
        except BaseException as failure:
            self.books.spoil("a stream in it was left before its end, and it is not known how that ended", failure)
            raise

    async def end_early(self, cursor: Any, text: str, error: BaseException) -> None:
        hand = self.hand
        if not isinstance(error, (Exception, GeneratorExit)):  # cancelled: nothing is waited for
            self.books.spoil("a stream in it was left by a task that was cancelled", error)
        elif hand.dialect.brand not in ("mysql", "mariadb"):
            await cursor.close()
        elif await hand.end_stream(cursor, text):
            await self.swallow()
        else:
            self.books.spoil("a stream in it was left before its end, and could not be ended on the server")

    async def commit(self) -> None:
        """Commit, and say what became of it."""
        hand = self.hand
        await self.admit("COMMIT")
        try:
            hand.refuse_dead_link("COMMIT")
            await hand.end(hand.dialect.commit, "commit")
        except BaseException as error:
            ours = hand.knowledge.failure(error, "COMMIT", commits=True)
            if isinstance(ours, (errors.ServerGone, errors.OutcomeUnknown)) or not isinstance(ours, Exception):
                self.books.spoil("COMMIT was not answered", ours)
            else:
                await self.roll_back(ours)
            if ours is error:
                raise
            raise ours from error

    async def roll_back(self, error: BaseException) -> None:
        """Roll back; that this fails is no news to whoever is on the way out with an exception.

        For a task that was cancelled the pool does it, when the connection is given back.
        """
        hand = self.hand
        if isinstance(error, Exception):
            await self.close_abandoned()
        self.books.look_for(hand.lease)
        if self.books.spoilt or self.books.streaming or hand.overdue is not None:
            self.books.spoilt = True
            return
        if not isinstance(error, Exception):
            return
        try:
            if hand.dialect.in_transaction(hand.conn) is not False or not hand.dialect.tells_after_errors:
                await hand.end(hand.dialect.rollback, "rollback")
        except Exception as failure:  # noqa: BLE001  the connection is given up instead, which rolls back as well
            self.books.spoil("ROLLBACK failed", failure)
        except BaseException as cancelled:
            self.books.spoil("ROLLBACK was not answered", cancelled)
            raise

    async def give_back(self, error: BaseException | None) -> None:
        """Give the connection back, or give it up."""
        if self.books.spoilt:
            self.hand.lease.discard()
            await self.close_abandoned()  # which waits for nothing any more
            return
        cancelled = error is not None and not isinstance(error, Exception)
        try:
            for text in self.hand.dialect.after_read_only() if self.books.read_only and not cancelled else ():
                await self.hand.send(text)
        except BaseException:
            self.hand.lease.discard()
            raise
        _ = self.hand.lease.close(type(error) if error is not None and cancelled else None)


class AsyncTransaction:
    """A block of a transaction: the outermost, or a savepoint within it; made by :meth:`AsyncDatabase.transaction`."""

    __slots__ = ("_database", "_is_outermost", "_isolation", "_open", "_read_only", "_savepoint", "_timeout")

    def __init__(
        self, database: AsyncDatabase, isolation: str | None, *, read_only: bool, timeout: float | None
    ) -> None:
        self._database = database
        self._isolation = isolation
        self._read_only = read_only
        self._timeout = timeout
        self._open: _Open | None = None
        self._savepoint = ""

    @property
    def connection(self) -> AsyncLease[Any]:
        """The connection of the transaction, for what only the driver can do; what is done with it is not noted.

        Raises:
            TransactionMisuse: the block was not entered.
        """
        return self._opened().hand.lease

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing done in the transaction so far can have been committed already."""
        return self._open is None or self._open.books.repeatable

    def _opened(self) -> _Open:
        if self._open is None:
            raise errors.TransactionMisuse("a transaction is a block: async with db.transaction() as transaction: ...")
        return self._open

    async def __aenter__(self) -> Self:
        if self._open is not None:
            raise errors.TransactionMisuse("a block is entered once: call db.transaction() anew")
        joining = self._database._joining  # noqa: SLF001  one body
        outer = joining.current()
        if outer is None:
            self._open = await self._begin()
            joining.enter(self._open)
            return self
        transactions.refuse_options_within(self._isolation, read_only=self._read_only)
        self._savepoint = outer.books.open_block()
        try:
            await outer.send(f"SAVEPOINT {self._savepoint}")
        except BaseException:
            outer.books.close_block()
            raise
        self._open = outer
        return self

    async def _begin(self) -> _Open:
        hand = await self._database._hand(self._timeout)  # noqa: SLF001  one body
        books = Books(hand.dialect, read_only=self._read_only)
        try:
            for text in hand.dialect.begin(
                self._isolation, read_only=self._read_only, autocommit=hand.knowledge.autocommit
            ):
                await hand.send(text)
        except BaseException as error:
            let_go(hand.lease, error)
            raise
        return _Open(hand, books)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        opened = self._opened()
        if self._savepoint:
            await self._leave_block(opened, exc)
            return
        self._database._joining.leave(opened)  # noqa: SLF001  one body
        error = exc
        try:
            if exc is None:
                await opened.commit()
            else:
                await opened.roll_back(exc)
        except errors.TransactionLost as lost:
            error = lost
            await opened.roll_back(lost)
            raise
        except BaseException as other:
            error = other
            raise
        finally:
            await opened.give_back(error)

    async def _leave_block(self, opened: _Open, exc: BaseException | None) -> None:
        try:
            if isinstance(exc, Exception):
                await opened.close_abandoned()
            if exc is None:
                await opened.send(f"RELEASE SAVEPOINT {self._savepoint}")
            elif opened.books.stands and not opened.books.streaming:
                await opened.send(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
            else:
                opened.books.end(transactions.BLOCK_NOT_TAKEN_BACK, exc)
        except Error as error:
            opened.books.end(transactions.BLOCK_NOT_TAKEN_BACK, error)
            if exc is None:  # else the books know: whatever comes next in the transaction is told
                raise
        finally:
            opened.books.close_block()

    async def _run_chunk(self, sql: str, chunk: list[Any], until: float | None, timeout: float | None) -> int:
        """Run a statement for each of many rows."""
        opened = self._opened()
        hand, books = opened.hand, opened.books
        await opened.admit(sql)
        statement = hand.prepare(sql)
        values = statement.rows(chunk)
        if not hand.knowledge.knows_packet_max():
            found, _ = await opened.run(ASK_PACKET_MAX, None, take_rows, until, timeout)
            hand.knowledge.learn_packet_max(found)
        try:
            async with hand.limited(statement, statement.driver_text, until, timeout, commits=False):
                count = await run_batches(hand, statement.driver_text, values)
        except BaseException as error:
            books.failed(statement, hand.conn, error)
            raise
        books.answered(statement, hand.conn)
        return count


class AsyncStream(Generic[T]):
    """Rows as they come; an asynchronous iterator, and a block at whose end it is closed."""

    __slots__ = ("_abandoned", "_rows")

    def __init__(
        self, found: AsyncGenerator[T, None], abandoned: list[AsyncGenerator[Any, None]] | None = None
    ) -> None:
        self._rows = found
        self._abandoned = abandoned  # of its transaction

    def __aiter__(self) -> AsyncIterator[T]:
        return self  # not the generator: that this is dropped tells that nobody reads on

    def __del__(self) -> None:
        if self._abandoned is not None and getattr(self._rows, "ag_frame", None) is not None:
            self._abandoned.append(self._rows)

    def __anext__(self) -> Awaitable[T]:
        return self._rows.__anext__()

    async def close(self) -> None:
        """Leave what is left unread, and give the connection back; the second time does nothing."""
        await self._rows.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


async def take_rows(cursor: Any) -> tuple[Sequence[Row], Any]:
    """Take all rows of a result, and its columns."""
    columns = cursor.description
    return [tuple(row) for row in await cursor.fetchall()] if columns is not None else (), columns


async def take_two_rows(cursor: Any) -> tuple[Sequence[Row], Any]:
    """Take what tells whether there is more than one row."""
    columns = cursor.description
    return [tuple(row) for row in await cursor.fetchmany(2)] if columns is not None else (), columns


async def take_count(cursor: Any) -> Done:
    """Take how many rows a statement touched, and the last id."""
    return Done(cursor.rowcount, cursor.lastrowid or None)


async def rows_from(cursor: Any, maker: Callable[[Any], Any] | None) -> AsyncGenerator[Any, None]:
    """Yield the rows of a cursor, as what they are to become."""
    while (row := await cursor.fetchone()) is not None:
        yield row if maker is None else maker(row)


async def run_batches(hand: _Hand, text: str, values: list[Any]) -> int:
    """Run a statement for each of many rows, and return how many were touched."""
    cursor = await answer_of(hand.dialect.cursor(hand.conn))
    count = 0
    if batches.goes_row_by_row(hand.dialect, text):
        for row in values:
            await cursor.execute(text, row)
            count += max(cursor.rowcount, 0)
        await cursor.close()
        return count
    parts: Iterable[list[Any]] = [values]
    bytes_max = hand.knowledge.bytes_max()
    if not hand.dialect.limit_batches(cursor, bytes_max) and hand.dialect.brand in ("mysql", "mariadb"):
        parts = batches.measured(values, text, bytes_max)
    for part in parts:
        await cursor.executemany(text, part)
        count += max(cursor.rowcount, 0)
    await cursor.close()
    return count


async def called(function: Callable[[], object]) -> None:
    """Call something that does not wait."""
    function()


def until_of(seconds: float | None) -> float | None:
    """Return the instant at which a call's time is over."""
    return None if seconds is None else time.monotonic() + seconds


def let_go(lease: AsyncLease[Any], error: BaseException | None) -> None:
    """Give a connection back, or give it up if what happened on it says so; the pool sees to what takes time."""
    if isinstance(error, (errors.ServerGone, errors.OutcomeUnknown)):
        lease.discard()
    else:  # of a task that was cancelled the pool looks whether anything was in flight
        _ = lease.close(None if error is None or isinstance(error, Exception) else type(error))
