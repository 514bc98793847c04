"""The helper layer: callers write SQL, and nothing else.

Why: over a pool every team writes the same hundred lines: take a connection, make a cursor, execute, fetch, commit or
roll back, give back, and the same again with a retry around it.  Here they are once, with the cases in them that are
found out about in production: an answer lost after COMMIT, a deadlock swallowed half-way, a list after IN, a statement
that never ends.

Rules:
- It stands on the pool's public names.  Statements are sent in ``_database/hand.py``; what needs no waiting (texts,
  parameters, rows, errors, the books of a transaction) is beside that, and is the asyncio twin's as well.
- A statement outside a transaction is one command, committed when it returns.
- Nothing is sent twice but a whole transaction, by :meth:`Database.run_transaction`, of which nothing was committed.
- What a caller gets is an error or a result; nothing is printed, logged or guessed in between.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from ._database import batches, errors, rows, transactions, writes
from ._database.batches import Done
from ._database.hand import Hand, OpenTransaction, let_go, take_count, take_rows, take_two_rows, until_of
from ._database.knowledge import ASK_PACKET_MAX, Knowledge, caller, misbound, seconds_of, with_autocommit
from ._database.rows import NamedRow, Row
from ._database.statements import PlainRead
from ._database.transactions import Attempts, Books, Joining
from ._database.watchdog import Watchdog
from ._database.writes import Table
from ._sql.params import Misbound, Params
from .errors import Error, InvalidSetting
from .lease import Lease
from .threads import Pool

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Database", "Done", "NamedRow", "Params", "Row", "Stream", "Transaction"]

T = TypeVar("T")
DictRow = dict[str, Any]


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
        given = cast("object", source)
        if isinstance(given, Pool):
            if settings:
                raise InvalidSetting(*next(iter(settings.items())), "nothing", "this pool has its settings already")
            self._pool: Pool[Any] = given
        elif isinstance(given, str):
            self._pool = Pool(with_autocommit(given), **settings)
        else:
            raise InvalidSetting("source", type(source).__name__, "a URL, or a millpond.Pool")
        self._owns_pool = isinstance(given, str)
        self._knowledge = Knowledge(self._pool.driver)
        self._joining: Joining[OpenTransaction] = Joining()
        self._watchdog = Watchdog()
        # The fast path: nothing is known before the first connection.
        self._connection = self._pool.connection
        self._hint = self._joining.hint
        nothing: dict[str, PlainRead] = {}
        self._plain_read = nothing.get

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
        required: Literal[False] = False,
        first: bool = False,
        timeout: float | None = None,
    ) -> Row | None: ...
    @overload
    def select_row(
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
    def select_row(
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
        required: Literal[False] = False,
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
        # As _read() does it, written out: one frame less is one percent of a short statement over a local socket.
        known = self._plain_read(sql)
        if known is None or timeout is not None or self._hint() is not None:
            found, columns = self._run(sql, params, timeout, take_two_rows)
        else:
            bind, fetch = known
            try:
                text, values = bind(params)
            except Misbound as error:
                raise misbound(error, sql) from None
            lease = self._connection()
            try:
                found, columns = fetch(lease.driver_connection, text, values)
            except BaseException as error:
                self._give_up(lease, error, sql)
                raise
            lease.close()
        if len(found) == 1 or (found and first):
            return found[0] if into is None else rows.shaped(found[:1], into, columns, sql)[0]
        if found:
            raise rows.too_many_rows(sql)
        if columns is None:
            raise rows.no_columns(sql)
        if required:
            raise rows.no_row(sql)
        return None

    @overload
    def select_rows(
        self, sql: str, params: Params | None = None, *, into: None = None, timeout: float | None = None
    ) -> list[Row]: ...
    @overload
    def select_rows(
        self, sql: str, params: Params | None = None, *, into: type[DictRow], timeout: float | None = None
    ) -> list[DictRow]: ...
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
        required: Literal[False] = False,
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
        self, sql: str, params: Params | None = None, *, into: type[DictRow], timeout: float | None = None
    ) -> Stream[DictRow]: ...
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
        seconds = seconds_of(timeout)
        inside = self._joining.current()
        if inside is not None:
            return Stream(inside.streaming(sql, params, into, seconds))
        return Stream(self._streaming(sql, params, into, seconds))

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
        return self._run(sql, params, timeout, take_count)

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
        remaining = iter(params)
        chunk = batches.next_chunk(remaining)
        if not chunk:
            return 0
        until = until_of(seconds_of(timeout))
        count = 0
        with self.transaction(timeout=timeout) as transaction:
            while chunk:
                count += transaction._run_chunk(sql, chunk, until, timeout)  # noqa: SLF001  one body
                chunk = batches.next_chunk(remaining)
        return count

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
        columns = writes.names_of(values)
        return self._run_made(functools.partial(writes.insert_text, table=table, columns=columns), values, timeout)

    def insert_many(self, table: Table, rows: Iterable[Mapping[str, Any]], *, timeout: float | None = None) -> int:
        """Insert rows that all have the same columns, in batches and one transaction.

        Args: as for :meth:`insert`.

        Returns:
            How many rows there are more.

        Raises:
            DuplicateKey: there is a row with one of the keys; nothing was inserted.
        """
        columns, remaining = writes.columns_of_first(rows)
        if columns is None:
            return 0
        make = functools.partial(writes.insert_text, table=table, columns=columns)
        return self._run_many_made(make, writes.rows_of(remaining, columns), timeout)

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
        if isinstance(values, Mapping):
            row = cast("Mapping[str, Any]", values)
            made = writes.upsert_maker(table, writes.names_of(row), key, update)
            return self._run_made(made, row, timeout)
        columns, remaining = writes.columns_of_first(values)
        if columns is None:
            return Done(0, None)
        make = writes.upsert_maker(table, columns, key, update)
        return Done(self._run_many_made(make, writes.rows_of(remaining, columns), timeout, joined=True), None)

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
        return Transaction(self, transactions.isolation_of(isolation), read_only=read_only, timeout=timeout)

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
        is_outermost = self._joining.current() is None
        while True:
            transaction = self.transaction(isolation=isolation, read_only=read_only, timeout=timeout)
            try:
                with transaction:
                    return function()
            except Exception as error:
                delay = tries.delay_after(error, repeatable=is_outermost and transaction.is_repeatable)
                if delay is None:
                    raise
            time.sleep(delay)

    # ------------------------------------------------------------------ the whole
    @property
    def pool(self) -> Pool[Any]:
        """The pool below, for its statistics and settings."""
        return self._pool

    def close(self, timeout: float = 5.0) -> None:
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
        self, sql: str, params: Params | None, timeout: float | None, take: Callable[[Any], tuple[Sequence[Row], Any]]
    ) -> tuple[Sequence[Row], Any]:
        """Return the rows of a statement, as many as *take* takes or all, and its columns."""
        # The fast path: a statement seen before, outside a transaction, without a time-out.
        known = self._plain_read(sql)
        if known is None or timeout is not None or self._hint() is not None:
            return self._run(sql, params, timeout, take)
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

    def _run(self, sql: str, params: Params | None, timeout: float | None, take: Callable[[Any], T]) -> T:
        """Run one statement, in the transaction that the caller is in, or by itself."""
        until = until_of(seconds_of(timeout))
        inside = self._joining.current()
        if inside is not None:
            return inside.run(sql, params, take, until, timeout)
        with self._hand(timeout) as hand:
            statement = hand.prepare(sql)
            return hand.run(statement, params, take, until=until, timeout=timeout, commits=not statement.reads)

    def _run_made(self, make: writes.Maker, values: Mapping[str, Any], timeout: float | None) -> Done:
        """Run a statement that is written here, by the rules of a dialect that has to be known first."""
        if not self._knowledge.has_met:
            with self._hand(timeout):
                pass
        return self._run(make(self._knowledge.dialect), tuple(values.values()), timeout, take_count)

    def _run_many_made(
        self, make: writes.Maker, values: Iterator[Row], timeout: float | None, *, joined: bool = False
    ) -> int:
        if not self._knowledge.has_met:
            with self._hand(timeout):
                pass
        dialect = self._knowledge.dialect
        if not joined or not writes.names_new_row(dialect):
            return self.execute_many(make(dialect), values, timeout=timeout)
        until = until_of(seconds_of(timeout))
        count = 0
        with self.transaction(timeout=timeout) as transaction:
            while chunk := batches.next_chunk(values):
                bytes_max = transaction._bytes_max(until, timeout)  # noqa: SLF001  one body
                for part in batches.measured(chunk, make(dialect), bytes_max):
                    flat = list(itertools.chain.from_iterable(part))
                    inside = transaction._opened()  # noqa: SLF001  one body
                    count += inside.run(make(dialect, rows=len(part)), flat, take_count, until, timeout).row_count
        return count

    def _hand(self, timeout: float | None) -> Hand:
        """Take a connection."""
        lease = self._connection(timeout)
        try:
            lease.note_holder(caller()[0])
            if self._knowledge.meet(lease.driver_connection):
                self._plain_read = self._knowledge.statements.plain_reads.get
        except BaseException:
            lease.close()
            raise
        return Hand(self._knowledge, self._watchdog, lease)

    def _give_up(self, lease: Lease[Any], error: BaseException, sql: str) -> None:
        """Give back the connection of a read that failed, and raise what that is called here."""
        ours = self._knowledge.failure(error, sql, commits=False)
        let_go(lease, ours)
        if ours is not error:
            raise ours from error

    def _streaming(self, sql: str, params: Params | None, into: Any, timeout: float | None) -> Iterator[Any]:
        until = until_of(timeout)
        with (
            self._hand(timeout) as hand,
            hand.reading(hand.prepare(sql), params, into, until, timeout, hand.leave_stream) as found,
        ):
            yield from found


class Transaction:
    """A block of a transaction: the outermost, or a savepoint within it; made by :meth:`Database.transaction`."""

    __slots__ = ("_database", "_is_outermost", "_isolation", "_open", "_read_only", "_savepoint", "_timeout")

    def __init__(self, database: Database, isolation: str | None, *, read_only: bool, timeout: float | None) -> None:
        self._database = database
        self._isolation = isolation
        self._read_only = read_only
        self._timeout = timeout
        self._open: OpenTransaction | None = None
        self._savepoint = ""

    @property
    def connection(self) -> Lease[Any]:
        """The connection of the transaction, for what only the driver can do; what is done with it is not noted.

        Raises:
            TransactionMisuse: the block was not entered.
        """
        return self._opened().hand.lease

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing done in the transaction so far can have been committed already."""
        return self._open is None or self._open.books.repeatable

    def _opened(self) -> OpenTransaction:
        if self._open is None:
            raise errors.TransactionMisuse("a transaction is a block: with db.transaction() as transaction: ...")
        return self._open

    def __enter__(self) -> Self:
        if self._open is not None:
            raise errors.TransactionMisuse("a block is entered once: call db.transaction() anew")
        joining = self._database._joining  # noqa: SLF001  one body
        outer = joining.current()
        if outer is None:
            self._open = self._begin()
            joining.enter(self._open)
            return self
        transactions.refuse_options_within(self._isolation, read_only=self._read_only)
        self._savepoint = outer.books.open_block()
        try:
            outer.send(f"SAVEPOINT {self._savepoint}")
        except BaseException:
            outer.books.close_block()
            raise
        self._open = outer
        return self

    def _begin(self) -> OpenTransaction:
        hand = self._database._hand(self._timeout)  # noqa: SLF001  one body
        books = Books(hand.dialect, read_only=self._read_only)
        try:
            for text in hand.dialect.begin(
                self._isolation, read_only=self._read_only, autocommit=hand.knowledge.autocommit
            ):
                hand.send(text)
        except BaseException as error:
            let_go(hand.lease, error)
            raise
        return OpenTransaction(hand, books)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        opened = self._opened()
        if self._savepoint:
            self._leave_block(opened, exc)
            return
        self._database._joining.leave(opened)  # noqa: SLF001  one body
        try:
            if exc is None:
                opened.commit()
            else:
                opened.roll_back()
        except (errors.TransactionLost, errors.TransactionMisuse):
            opened.roll_back()
            raise
        finally:
            opened.books.end("its block was left")
            opened.give_back()

    def _leave_block(self, opened: OpenTransaction, exc: BaseException | None) -> None:
        try:
            if exc is None:
                opened.send(f"RELEASE SAVEPOINT {self._savepoint}")
            elif opened.books.stands and not opened.books.streaming:
                opened.send(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
            else:
                opened.books.end(transactions.BLOCK_NOT_TAKEN_BACK, exc)
        except Error as error:
            opened.books.end(transactions.BLOCK_NOT_TAKEN_BACK, error)
            if exc is None:  # else the books know: whatever comes next in the transaction is told
                raise
        finally:
            opened.books.close_block()

    def _bytes_max(self, until: float | None, timeout: float | None) -> int:
        """Return how long a statement of a batch may be; the server is asked once."""
        opened = self._opened()
        knowledge = opened.hand.knowledge
        if not knowledge.knows_packet_max():
            knowledge.learn_packet_max(opened.run(ASK_PACKET_MAX, None, take_rows, until, timeout)[0])
        return knowledge.bytes_max()

    def _run_chunk(self, sql: str, chunk: list[Any], until: float | None, timeout: float | None) -> int:
        """Run a statement for each of many rows."""
        opened = self._opened()
        hand, books = opened.hand, opened.books
        opened.admit(sql)
        statement = hand.prepare(sql)
        values = statement.rows(chunk)
        bytes_max = self._bytes_max(until, timeout)
        try:
            with hand.limited(statement, statement.driver_text, until, timeout, commits=False):
                count = batches.run(hand.dialect, hand.conn, statement.driver_text, values, bytes_max)
        except BaseException as error:
            books.failed(statement, hand.conn, error)
            raise
        books.answered(statement, hand.conn)
        return count


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
