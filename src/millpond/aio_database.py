"""The helper layer for tasks: ``Database`` with ``await``, and the same rules.

Why: what is done for a call is told in ``_database/``, once for threads and for tasks; this module says what tasks may
ask for, and waits for it as they do.  ``database.py`` tells each method's contract at length.

Rules: nothing is decided here.  A task that was cancelled waits for nothing: what was in flight costs the connection,
anything else is the pool's to put right.  Only a block within a transaction that goes on is taken back by a statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from ._database import rows, transactions
from ._database.blocks import Block
from ._database.calls import Calls, pool_of
from ._database.hand import Done, take_count, take_rows, take_two_rows
from ._database.rows import Row
from ._database.tasks import Tasks, held, rows_of
from ._database.transactions import Attempts
from ._database.writes import Table
from ._sql.params import Params
from .aio import AsyncPool
from .aio_lease import AsyncLease

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncDatabase", "AsyncStream", "AsyncTransaction"]

T = TypeVar("T")
Plain = TypeVar("Plain", dict[str, Any], list[Any])  # without this, ``into=dict`` would have keys of any type


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
        pool, self._owns_pool = pool_of(source, settings, AsyncPool, "millpond.AsyncPool")
        self._pool: AsyncPool[Any] = pool
        self._calls = Calls(pool, Tasks())

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
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Row | None: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[Plain],
        required: Literal[True],
        first: bool = False,
        timeout: float | None = None,
    ) -> Plain: ...
    @overload
    async def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[Plain],
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Plain | None: ...
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
        required: bool = False,
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
        found, columns = await held(self._calls.run(sql, params, timeout, take_two_rows))
        row = rows.one_of(found, columns, sql, required=required, first=first)
        return None if row is None else rows.shaped((row,), into, columns, sql)[0]

    @overload
    async def select_rows(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> list[Row]: ...
    @overload
    async def select_rows(
        self, sql: str, params: Params | None = None, *, into: type[Plain], timeout: float | None = None
    ) -> list[Plain]: ...
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
        found, columns = await held(self._calls.run(sql, params, timeout, take_rows))
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
        required: bool = False,
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
        found, columns = await held(self._calls.run(sql, params, timeout, take_two_rows))
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
        found, columns = await held(self._calls.run(sql, params, timeout, take_rows))
        values = rows.only_values(found, sql, columns)
        return values if into is None else [into(value) for value in values]

    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> AsyncStream[Row]: ...
    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: type[Plain], timeout: float | None = None
    ) -> AsyncStream[Plain]: ...
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
        conversation, inside = self._calls.stream(sql, params, into, timeout)
        return AsyncStream(rows_of(conversation), None if inside is None else inside.abandoned)

    # ------------------------------------------------------------------ writes
    async def execute(self, sql: str, params: Params | None = None, *, timeout: float | None = None) -> Done:
        """Run a statement of any kind but those that begin or end a transaction.

        Arguments, result and errors are those of :meth:`millpond.Database.execute`.
        """
        return await held(self._calls.run(sql, params, timeout, take_count))

    async def execute_many(self, sql: str, params: Iterable[Params], *, timeout: float | None = None) -> int:
        """Run a statement once for each set of values, in one transaction; INSERTs go in batches.

        Arguments, result and errors are those of :meth:`millpond.Database.execute_many`.
        """
        return await held(self._calls.run_many(sql, params, timeout))

    async def insert(self, table: Table, values: Mapping[str, Any], *, timeout: float | None = None) -> Done:
        """Insert a row.

        Arguments, result and errors are those of :meth:`millpond.Database.insert`.
        """
        return await held(self._calls.insert(table, values, timeout))

    async def insert_many(
        self, table: Table, rows: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> int:
        """Insert rows that all have the same columns, in batches and one transaction.

        Arguments, result and errors are those of :meth:`millpond.Database.insert_many`.
        """
        return await held(self._calls.insert_many(table, rows, timeout))

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
        return await held(self._calls.upsert(table, values, key, update, timeout))

    # ------------------------------------------------------------------ transactions
    def transaction(
        self, *, isolation: str | None = None, read_only: bool = False, timeout: float | None = None
    ) -> AsyncTransaction:
        """Begin a transaction in a ``with`` block: committed at its end, rolled back if an exception leaves it.

        Arguments, result and errors are those of :meth:`millpond.Database.transaction`.
        """
        level = transactions.isolation_of(isolation)
        return AsyncTransaction(Block(self._calls, level, read_only=read_only, timeout=timeout))

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
        level = transactions.isolation_of(isolation)
        while True:
            block = Block(self._calls, level, read_only=read_only, timeout=timeout)
            try:
                async with AsyncTransaction(block):
                    return await function()
            except Exception as error:
                delay = tries.delay_after(error, repeatable=block.can_run_again)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    # ------------------------------------------------------------------ the whole
    @property
    def pool(self) -> AsyncPool[Any]:
        """The pool below, for its statistics and settings."""
        return self._pool

    async def close(self, timeout: float | None = 5.0) -> None:
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


class AsyncTransaction:
    """A block of a transaction: the outermost, or a savepoint within it; made by :meth:`AsyncDatabase.transaction`."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    @property
    def connection(self) -> AsyncLease[Any]:
        """The connection of the transaction, for what only the driver can do; what is done with it is not noted.

        Raises:
            TransactionMisuse: the block was not entered.
        """
        return cast("AsyncLease[Any]", self._block.opened().hand.lease)

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing done in the transaction so far can have been committed already."""
        return self._block.is_repeatable

    async def __aenter__(self) -> Self:
        await held(self._block.enter())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await held(self._block.leave(exc))


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
