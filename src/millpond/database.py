"""The helper layer: callers write SQL, and nothing else.

Why: over a pool every team writes the same hundred lines: take a connection, make a cursor, execute, fetch, commit or
roll back, give back, and the same again with a retry around it.  Here they are once, with the cases in them that are
found out about in production: an answer lost after COMMIT, a deadlock swallowed half-way, a list after IN, a statement
that never ends.

Rules:
- It stands on the pool's public names.  What is done for a call is told in ``_database/``, once for this module and its
  asyncio twin; here it is waited for, as threads do.  Only the shortest way of a short read is written out here.
- A statement outside a transaction is one command, committed when it returns.
- Nothing is sent twice but a whole transaction, by :meth:`Database.run_transaction`, of which nothing was committed.
- What a caller gets is an error or a result; nothing is printed, logged or guessed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from ._database import rows, transactions
from ._database.blocks import Block
from ._database.calls import Calls, pool_of
from ._database.hand import Done, Take, let_go, take_count, take_rows, take_two_rows
from ._database.knowledge import misbound
from ._database.rows import NamedRow, Row
from ._database.threads import Threads, held, rows_of
from ._database.transactions import Attempts
from ._database.writes import Table
from ._sql.params import Misbound, Params
from .lease import Lease
from .threads import Pool

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Database", "Done", "NamedRow", "Params", "Row", "Stream", "Transaction"]

T = TypeVar("T")
Plain = TypeVar("Plain", dict[str, Any], list[Any])  # without this, ``into=dict`` would have keys of any type


class Database:
    """A database, as SQL and rows.

    Args:
        source: a URL, for a pool of its own with autocommit on; or a :class:`~millpond.Pool`, which stays its owner's.
        settings: what ``Pool`` takes beside a URL, such as ``max_size``.

    Raises:
        InvalidSetting: it is neither, or a setting is wrong.
        DriverMissing: the driver's package is not installed.

    All methods can be called from any thread.  Statements take values as ``%s`` or ``?`` with a sequence, or as
    ``:name`` or ``%(name)s`` with a mapping; a list after ``IN`` stands for its elements.  ``timeout`` is in seconds,
    for the whole of the call, the wait for a connection included; None leaves that wait to the pool and bounds nothing
    else.

    Every method can raise :class:`~millpond.StatementFailed`, or one of its kinds: the database refused; it is also of
    the driver's own class.  :class:`~millpond.PoolTimeout`: no connection came in time.
    :class:`~millpond.InvalidParameters`: the values do not go with the statement, the program's fault.
    """

    def __init__(self, source: str | Pool[Any], **settings: Any) -> None:
        pool, self._owns_pool = pool_of(source, settings, Pool, "millpond.Pool")
        self._pool: Pool[Any] = pool
        self._calls = Calls(pool, Threads())
        # The fast path.
        self._connection = self._pool.connection
        self._hint = self._calls.joining.hint
        self._plain_read = self._calls.knowledge.plain_reads.get

    # ------------------------------------------------------------------ rows
    @overload
    def select_row(
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
    def select_row(
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
    def select_row(
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
    def select_row(
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
    def select_row(
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
    def select_row(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[..., T],
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> T | None: ...
    def select_row(
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
        found, columns = self._read(sql, params, timeout, take_two_rows)
        row = rows.one_of(found, columns, sql, required=required, first=first)
        return row if row is None or into is None else rows.shaped((row,), into, columns, sql)[0]

    @overload
    def select_rows(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> list[Row]: ...
    @overload
    def select_rows(
        self, sql: str, params: Params | None = None, *, into: type[Plain], timeout: float | None = None
    ) -> list[Plain]: ...
    @overload
    def select_rows(
        self, sql: str, params: Params | None = None, *, into: Callable[..., T], timeout: float | None = None
    ) -> list[T]: ...
    def select_rows(
        self, sql: str, params: Params | None = None, *, into: Any = None, timeout: float | None = None
    ) -> list[Any]:
        """Return all rows that a statement finds; :meth:`stream` is for those that should not be in memory at once.

        Args: as for :meth:`select_row`.

        Raises:
            RowMismatch: the columns do not fit ``into``, or two of them have one name: the program's fault.
        """
        found, columns = self._read(sql, params, timeout, take_rows)
        return rows.shaped(found, into, columns, sql)

    @overload
    def select_value(
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
    def select_value(
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
    def select_value(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[[Any], T],
        required: bool = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> T | None: ...
    def select_value(
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

        Args: as for :meth:`select_row`, but ``into`` gets the value itself, unless that is NULL.

        Raises:
            NoRow: there is none, and one is required; a NULL is a value.
            TooManyRows: there are several.
            RowMismatch: the statement returns more than one column: the program's fault.
        """
        found, columns = self._read(sql, params, timeout, take_two_rows)
        row = rows.one_of(found, columns, sql, required=required, first=first)
        value = None if row is None else rows.only_value(row, sql, columns)
        return value if into is None or value is None else into(value)

    @overload
    def select_column(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> list[Any]: ...
    @overload
    def select_column(
        self, sql: str, params: Params | None = None, *, into: Callable[[Any], T], timeout: float | None = None
    ) -> list[T]: ...
    def select_column(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """Return the values of the one column that a statement returns.

        Args: as for :meth:`select_row`, but ``into`` gets each value itself, NULLs too.

        Raises:
            RowMismatch: the statement returns more than one column: the program's fault.
        """
        found, columns = self._read(sql, params, timeout, take_rows)
        values = rows.only_values(found, sql, columns)
        return values if into is None else [into(value) for value in values]

    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> Stream[Row]: ...
    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: type[Plain], timeout: float | None = None
    ) -> Stream[Plain]: ...
    @overload
    def stream(
        self, sql: str, params: Params | None = None, *, into: Callable[..., T], timeout: float | None = None
    ) -> Stream[T]: ...
    def stream(
        self, sql: str, params: Params | None = None, *, into: Any = None, timeout: float | None = None
    ) -> Stream[Any]:
        """Return an iterator over the rows that a statement finds, which fetches them from the server as it goes.

        Nothing is sent before the first row is asked for.  Its connection is held until the last row, or until the
        iterator is closed: use it in a ``with`` block, unless it is read to its end.  What is left unread is not
        fetched: the statement is ended where the connection is needed (in a transaction), else the connection is
        closed.

        Args: as for :meth:`select_row`; ``timeout`` is for all of it, until the last row.

        Raises:
            RowMismatch: the columns do not fit ``into``, or two of them have one name: the program's fault.
        """
        conversation, _ = self._calls.stream(sql, params, into, timeout)
        return Stream(rows_of(conversation))

    # ------------------------------------------------------------------ writes
    def execute(self, sql: str, params: Params | None = None, *, timeout: float | None = None) -> Done:
        """Run a statement of any kind but those that begin or end a transaction.

        Args: as for :meth:`select_row`.

        Returns:
            How many rows it touched, as the driver counts (MySQL: rows changed, not rows found), and the last id that
            an AUTO_INCREMENT column gave.

        Raises:
            OutcomeUnknown: the link was lost before the answer came, so that it may have been done, or not.
        """
        return held(self._calls.run(sql, params, timeout, take_count))

    def execute_many(self, sql: str, params: Iterable[Params], *, timeout: float | None = None) -> int:
        """Run a statement once for each set of values, in one transaction; INSERTs go in batches.

        Args:
            sql: the statement.
            params: a sequence or mapping for each run; an iterator is read as it is needed.
            timeout: seconds for the call.

        Returns:
            How many rows were touched, all in all.

        Raises:
            OutcomeUnknown: the link was lost before COMMIT was answered, so that all of it was done, or nothing.
        """
        return held(self._calls.run_many(sql, params, timeout))

    def insert(self, table: Table, values: Mapping[str, Any], *, timeout: float | None = None) -> Done:
        """Insert a row.

        Args:
            table: its name, ``"schema.table"``, or the parts of a name as a tuple; it is quoted.
            values: the columns and their values; columns are quoted.
            timeout: seconds for the call.

        Returns:
            How many rows there are more, and the id that an AUTO_INCREMENT column gave.

        Raises:
            DuplicateKey: there is a row with this key.
        """
        return held(self._calls.insert(table, values, timeout))

    def insert_many(self, table: Table, rows: Iterable[Mapping[str, Any]], *, timeout: float | None = None) -> int:
        """Insert rows that all have the same columns, in batches and one transaction.

        Args: as for :meth:`insert`.

        Returns:
            How many rows there are more.

        Raises:
            DuplicateKey: there is a row with one of the keys; nothing was inserted.
        """
        return held(self._calls.insert_many(table, rows, timeout))

    def upsert(
        self,
        table: Table,
        values: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        key: str | Sequence[str] = (),
        update: str | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Done:
        """Insert a row, or several, and where a row with the key is there already, update that.

        Args:
            table: as for :meth:`insert`.
            values: a mapping of columns to values, or several with the same columns, in one transaction.
            key: the columns of the key; they are not updated.  On SQLite a conflict with another key is an error, MySQL
                and MariaDB look at all keys of the table.
            update: the columns to update; all but the key if not given; none: the row is left as it is.
            timeout: seconds for the call.

        Returns:
            The count of rows as the database counts (MySQL: 1 for an insert, 2 for an update, 0 for no change).
        """
        return held(self._calls.upsert(table, values, key, update, timeout))

    # ------------------------------------------------------------------ transactions
    def transaction(
        self, *, isolation: str | None = None, read_only: bool = False, timeout: float | None = None
    ) -> Transaction:
        """Begin a transaction in a ``with`` block: committed at its end, rolled back if an exception leaves it.

        Whatever the thread or task that is in the block does with this database takes part, in functions that it calls
        as well; threads and tasks that it starts do not.  A block within is a savepoint: an exception that leaves it
        takes back what was done in it.

        Args:
            isolation: "read uncommitted", "read committed", "repeatable read" or "serializable"; None for the
                server's.  Every transaction of SQLite is serializable.
            read_only: refuse writes.
            timeout: seconds to wait for a connection; None for the pool's own.

        Raises:
            TransactionMisuse: ``isolation`` or ``read_only`` for a block within another: the program's fault.
            TransactionLost: the transaction had ended before its COMMIT, which was not done.
            OutcomeUnknown: the answer to COMMIT was lost.
        """
        level = transactions.isolation_of(isolation)
        return Transaction(Block(self._calls, level, read_only=read_only, timeout=timeout))

    def run_transaction(
        self,
        function: Callable[[], T],
        *,
        attempts: int = transactions.ATTEMPTS,
        isolation: str | None = None,
        read_only: bool = False,
        timeout: float | None = None,
    ) -> T:
        """Call a function in a transaction, and run the whole of it again if that is safe and may help.

        It may help after a deadlock, a lock that was not had in time, and a link that was lost before COMMIT was sent.
        It is safe as long as nothing inside was committed, which DDL and stored procedures may do.  Within another
        transaction the function is called once, in a block: only the outermost can be run again.

        Args:
            function: called without arguments, perhaps several times; what it does beside the database is done again.
            attempts: how often it is called at most; 1 or more.
            isolation: as for :meth:`transaction`.
            read_only: as for :meth:`transaction`.
            timeout: as for :meth:`transaction`, for each attempt.

        Returns:
            What the function returned, after COMMIT.

        Raises:
            Deadlock, LockTimeout, ServerGone: in the last attempt as well.
            OutcomeUnknown: the answer to COMMIT was lost; it is not run again.
        """
        tries = Attempts(attempts)
        level = transactions.isolation_of(isolation)
        while True:
            block = Block(self._calls, level, read_only=read_only, timeout=timeout)
            try:
                with Transaction(block):
                    return function()
            except Exception as error:
                delay = tries.delay_after(error, repeatable=block.can_run_again)
                if delay is None:
                    raise
            time.sleep(delay)

    # ------------------------------------------------------------------ the whole
    @property
    def pool(self) -> Pool[Any]:
        """The pool below, for its statistics and settings."""
        return self._pool

    def close(self, timeout: float | None = 5.0) -> None:
        """Close the pool, if it was made here; one that was given stays open.

        Args:
            timeout: as for ``Pool.close``.
        """
        if self._owns_pool:
            self._pool.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<millpond.Database on {self._pool!r}>"

    # ------------------------------------------------------------------ inside
    def _read(
        self, sql: str, params: Params | None, timeout: float | None, take: Take[tuple[Sequence[Row], Any]]
    ) -> tuple[Sequence[Row], Any]:
        """Return the rows of a statement, as many as *take* takes or all, and its columns."""
        # The fast path: a statement seen before, outside a transaction, without a time-out.
        known = self._plain_read(sql)
        if known is None or timeout is not None or self._hint() is not None:
            return held(self._calls.run(sql, params, timeout, take))
        bind, fetch = known
        try:
            text, values = bind(params)
        except Misbound as error:
            raise misbound(error, sql) from None
        lease = self._connection()
        try:
            found = fetch(lease.driver_connection, text, values)
        except BaseException as error:
            self._give_up(lease, error, sql)
            raise
        lease.close()
        return found

    def _give_up(self, lease: Lease[Any], error: BaseException, sql: str) -> None:
        """Give back the connection of a read that failed, and raise what that is called here."""
        ours = self._calls.knowledge.failure(error, sql, commits=False)
        let_go(lease, ours)
        try:
            if ours is not error:
                raise ours from error
        finally:
            del ours  # or it, and its traceback, would hold each other


class Transaction:
    """A block of a transaction: the outermost, or a savepoint within it; made by :meth:`Database.transaction`."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        self._block = block

    @property
    def connection(self) -> Lease[Any]:
        """The connection of the transaction, for what only the driver can do; what is done with it is not noted.

        Raises:
            TransactionMisuse: the block was not entered.
        """
        return cast("Lease[Any]", self._block.opened().hand.lease)

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing done in the transaction so far can have been committed already."""
        return self._block.is_repeatable

    def __enter__(self) -> Self:
        held(self._block.enter())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        held(self._block.leave(exc))


class Stream(Generic[T]):
    """Rows as they come; an iterator, and a block at whose end it is closed."""

    __slots__ = ("_rows",)

    def __init__(self, found: Iterator[T]) -> None:
        self._rows = found

    def __iter__(self) -> Iterator[T]:
        return self._rows  # itself: no further call for each row

    def __next__(self) -> T:
        return next(self._rows)

    def close(self) -> None:
        """Leave what is left unread, and give the connection back; the second time does nothing."""
        cast("Any", self._rows).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
