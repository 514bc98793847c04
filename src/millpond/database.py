"""The helper layer: callers write SQL, and nothing else.

Why: over a pool every team writes the same hundred lines: take a connection, make a cursor, execute, fetch, commit or
roll back, give back, and the same again with a retry around it.  Here they are once, with the cases in them that are
found out about in production: an answer lost after COMMIT, a deadlock swallowed half-way, a list after IN, a statement
that never ends.

Rules:
- It stands on the pool's public names.  What it does on a connection, and when, is in here; what needs no waiting
  (texts, parameters, rows, errors, the books of a transaction) is in ``_database``, and is the asyncio twin's as well.
- A statement outside a transaction is one command, committed when it returns.
- Nothing is sent twice but a whole transaction, by :meth:`Database.run_transaction`, of which nothing was committed.
- What a caller gets is an error or a result; nothing is printed, logged or guessed in between.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from ._database import batches, errors, rows, transactions, writes
from ._database.batches import Done
from ._database.knowledge import ASK_PACKET_MAX, Knowledge, bound, caller, misbound, seconds_of, with_autocommit
from ._database.rows import NamedRow, Row
from ._database.statements import PlainRead, Statement
from ._database.transactions import Attempts, Books, Joining
from ._database.watchdog import GRACE_S, Watch, Watchdog
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
        self._joining: Joining[_Open] = Joining()
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
        # From here to `return` is the fast path: a statement seen before, outside a transaction, without a time-out.
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
        found, columns = self._run(sql, params, timeout, take_rows)
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
        found, columns = self._run(sql, params, timeout, take_two_rows)
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
        found, columns = self._run(sql, params, timeout, take_rows)
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
        update: Sequence[str] | None = None,
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

    def _hand(self, timeout: float | None) -> _Hand:
        """Take a connection."""
        lease = self._connection(timeout)
        try:
            lease.note_holder(caller()[0])
            if self._knowledge.meet(lease.driver_connection):
                self._plain_read = self._knowledge.statements.plain_reads.get
        except BaseException:
            lease.close()
            raise
        return _Hand(self, lease)

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

    def _kill(self, number: int, beginning: str) -> None:
        """End a statement over a connection beside the pool's, if it is still the one that it was."""
        driver = self._pool.driver
        side = driver.open(time.monotonic() + GRACE_S)
        try:
            cursor = self._knowledge.dialect.cursor(side)
            cursor.execute("SHOW FULL PROCESSLIST")
            if batches.is_running(cursor.fetchall(), cursor.description, number, beginning):
                cursor.execute(f"KILL QUERY {number:d}")
        finally:
            driver.close(side)


class _Hand:
    """A connection in hand: what can be done with it, one statement at a time.

    Args:
        database: whose it is.
        lease: the connection.
    """

    __slots__ = ("_database", "conn", "dialect", "knowledge", "lease", "overdue")

    def __init__(self, database: Database, lease: Lease[Any]) -> None:
        self._database = database
        self.lease = lease
        self.conn = lease.driver_connection
        self.knowledge = database._knowledge  # noqa: SLF001  one body
        self.dialect = self.knowledge.dialect
        self.overdue: Watch | None = None  # a statement was to be ended: the order to may still arrive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self.overdue is not None:
            self.lease.discard()
        else:  # closing a stream is no reason to give a connection up
            let_go(self.lease, None if isinstance(exc, GeneratorExit) else exc)

    def prepare(self, sql: str) -> Statement:
        return self.knowledge.statements.prepare(sql, self.conn)

    def run(
        self,
        statement: Statement,
        params: Params | None,
        take: Callable[[Any], T],
        *,
        until: float | None,
        timeout: float | None,
        commits: bool,
        read_only: bool = False,
    ) -> T:
        """Run a statement, and commit it if it commits and the connection does not do that by itself."""
        text, values = bound(statement, params)
        with self.limited(statement, text, until, timeout, commits=commits, read_only=read_only) as text_sent:
            cursor = self.dialect.cursor(self.conn)
            cursor.execute(text_sent, values)
            taken = take(cursor)
            if not statement.one_result:
                finish(cursor)
            if commits and self.dialect.in_transaction(self.conn) is not False:
                self.commit_by_itself()
        return taken

    def commit_by_itself(self) -> None:
        """Commit a statement outside a transaction, where autocommit is off or was switched off."""
        if not self.knowledge.autocommit or self.dialect.in_transaction(self.conn):
            self.end(self.dialect.commit, "commit")

    @contextlib.contextmanager
    def limited(
        self,
        statement: Statement,
        text: str,
        until: float | None,
        timeout: float | None,
        *,
        commits: bool,
        read_only: bool = False,
    ) -> Generator[str]:
        """Give the statement the time that is left, and call what goes wrong by its name."""
        watch: Watch | None = None
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

    def watch(self, text: str, seconds: float) -> Watch:
        """Have the statement ended after so many seconds, as well as this driver allows."""
        end = self.dialect.interrupter(self.conn)
        number = self.dialect.session_id(self.conn)
        if end is None and number is not None:
            end = functools.partial(self._database._kill, number, self.beginning(text))  # noqa: SLF001  one body
        driver, conn = self._database.pool.driver, self.conn
        watch = Watch(end, lambda: driver.cut(conn))
        self._database._watchdog.watch(seconds, watch)  # noqa: SLF001  one body
        return watch

    def disarm(self, watch: Watch | None) -> bool:
        """Say that the statement is done, and whether it was to be ended."""
        if watch is None or not watch.disarm():
            return False
        self.overdue = watch
        return True

    def send(self, sql: str) -> None:
        """Send a statement of our own, without values."""
        cursor = self.dialect.cursor(self.conn)
        try:
            cursor.execute(sql)
        except Exception as error:
            ours = self.knowledge.failure(error, sql, commits=False)
            if ours is error:
                raise
            raise ours from error
        finally:
            with contextlib.suppress(Exception):  # of a link that is gone; what went wrong is raised already
                cursor.close()

    def refuse_dead_link(self, sql: str) -> None:
        """Look whether the server has closed the link: what is not sent has a known outcome."""
        driver = self._database.pool.driver
        if driver.is_readable is not None and driver.is_readable(self.conn):
            raise self.knowledge.gone(sql)

    def end(self, text: str | None, method: str) -> None:
        """Send COMMIT or ROLLBACK in the driver's own way."""
        if text is None:
            getattr(self.conn, method)()
        else:
            self.dialect.cursor(self.conn).execute(text)

    # ---- streams
    @contextlib.contextmanager
    def reading(
        self,
        statement: Statement,
        params: Params | None,
        into: Any,
        until: float | None,
        timeout: float | None,
        leave: Callable[[Any, str], None],
    ) -> Generator[Iterator[Any]]:
        """Give rows as they come; *leave* is called with the cursor if not all of them are wanted."""
        text, values = bound(statement, params)
        with self.limited(statement, text, until, timeout, commits=not statement.reads) as text_sent:
            cursor = self.dialect.stream_cursor(self.lease)
            try:
                cursor.execute(text_sent, values)
                maker = rows.maker_of(into, cursor.description, statement.sql)
                # Never the cursor itself: closing a generator closes what it yields from, and that reads all rows.
                yield itertools.chain(cursor) if maker is None else map(maker, cursor)
            except BaseException:
                leave(cursor, text_sent)  # here, where the cursor is: its finalizer would read all that is left
                raise
            cursor.close()

    def leave_stream(self, cursor: Any, _: str) -> None:
        """Give back the connection of a stream that was not read to its end: the pool reads no long reply."""
        in_flight = self._database.pool.driver.in_flight(self.conn)
        if in_flight is None or self.overdue is not None:
            self.lease.discard()
        elif in_flight:
            self.lease.close()
        else:
            cursor.close()

    def end_stream(self, cursor: Any, text: str) -> bool:
        """Have the server end a stream, and read what was on its way; False if that cannot be done."""
        number = self.dialect.session_id(self.conn)
        if number is None:
            return False
        try:
            self._database._kill(number, self.beginning(text))  # noqa: SLF001  one body
        except Exception:  # noqa: BLE001  no second connection was to be had
            return False
        try:
            getattr(self.conn, "consume_results", cursor.close)()  # mysql-connector's cursors refuse to be closed
        except Exception as error:  # noqa: BLE001  that it was ended is what is expected
            return isinstance(self.knowledge.failure(error, text, commits=False), errors.StatementKilled)
        return True

    def beginning(self, text: str) -> str:
        """Return what a statement begins with, up to its first value; of a CALL the server shows what it calls."""
        return "" if text.lstrip()[:4].upper() == "CALL" else text.partition(self.dialect.marks.place)[0]


class _Open:
    """An open transaction: its books, and the connection in hand."""

    __slots__ = ("books", "hand", "owner")

    def __init__(self, hand: _Hand, books: Books) -> None:
        self.hand = hand
        self.books = books
        self.owner = transactions.myself()

    def admit(self, what: str) -> None:
        """See to it that the transaction still stands, and ask the server where that is in doubt."""
        books, hand = self.books, self.hand
        books.admit(what)
        overdue, hand.overdue = hand.overdue, None
        if overdue is not None and hand.dialect.brand != "sqlite":  # interrupt() ends nothing that begins later
            if overdue.wait_until_settled(2 * GRACE_S):
                self.swallow()
            else:
                books.spoil(_LATE_ORDER)
        if books.doubtful:
            self.probe()
        books.admit(what)

    def probe(self) -> None:
        """Have the server say whether the transaction is open."""
        assert self.hand.dialect.probe is not None, "bug: the books are in doubt, and there is nothing to ask with"
        try:
            self.hand.send(self.hand.dialect.probe)
        except errors.StatementFailed as error:
            self.books.spoil("it could not be told whether it was still open", error)
            return
        self.books.probed(self.hand.conn)

    def swallow(self) -> None:
        """Have an order to end a statement that is done by now hit a statement that does nothing."""
        if self.hand.dialect.brand not in ("mysql", "mariadb"):
            self.books.spoil(_LATE_ORDER)
            return
        with contextlib.suppress(errors.StatementKilled):
            self.hand.send("DO 0")
            return
        try:
            self.hand.send("DO 0")
        except errors.StatementFailed as error:
            self.books.spoil(_LATE_ORDER, error)

    def run(
        self, sql: str, params: Params | None, take: Callable[[Any], T], until: float | None, timeout: float | None
    ) -> T:
        """Run a statement of this transaction."""
        self.admit(sql)
        statement = self.hand.prepare(sql)
        try:
            taken = self.hand.run(
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

    def send(self, sql: str) -> None:
        """Send a statement of our own."""
        self.admit(sql)
        try:
            self.hand.send(sql)
        except errors.StatementFailed as error:
            self.books.end(f"{sql} failed", error)
            raise
        except BaseException as error:
            self.books.spoil("it was interrupted in the middle of a statement", error)
            raise

    def streaming(self, sql: str, params: Params | None, into: Any, timeout: float | None) -> Iterator[Any]:
        until = until_of(timeout)
        self.admit(sql)
        books, hand = self.books, self.hand
        statement = hand.prepare(sql)
        books.streaming = True
        try:
            with hand.reading(statement, params, into, until, timeout, self.leave_stream) as found:
                yield from found
        except GeneratorExit:
            raise
        except BaseException as error:
            books.failed(statement, hand.conn, error)
            raise
        finally:
            books.streaming = False
        books.answered(statement, hand.conn)

    def leave_stream(self, cursor: Any, text: str) -> None:
        """End a stream early: the connection is needed, and what is left is not read."""
        hand = self.hand
        if not self.books.stands:
            return  # the connection was given back, and its cursors with it
        if hand.dialect.brand not in ("mysql", "mariadb"):
            cursor.close()
        elif hand.end_stream(cursor, text):
            self.swallow()
        else:
            self.books.spoil("a stream in it was left before its end, and could not be ended on the server")

    def commit(self) -> None:
        """Commit, and say what became of it."""
        hand = self.hand
        self.admit("COMMIT")
        try:
            hand.refuse_dead_link("COMMIT")
            hand.end(hand.dialect.commit, "commit")
        except BaseException as error:
            ours = hand.knowledge.failure(error, "COMMIT", commits=True)
            if isinstance(ours, (errors.ServerGone, errors.OutcomeUnknown)) or not isinstance(ours, Exception):
                self.books.spoil("COMMIT was not answered", ours)
            else:
                self.roll_back()
            if ours is error:
                raise
            raise ours from error

    def roll_back(self) -> None:
        """Roll back; that this fails is no news to whoever is on the way out with an exception."""
        hand = self.hand
        if self.books.spoilt or self.books.streaming or hand.overdue is not None:
            self.books.spoilt = True
            return
        try:
            if hand.dialect.in_transaction(hand.conn) is not False or not hand.dialect.tells_after_errors:
                hand.end(hand.dialect.rollback, "rollback")
        except Exception as error:  # noqa: BLE001  the connection is given up instead, which rolls back as well
            self.books.spoil("ROLLBACK failed", error)

    def give_back(self) -> None:
        """Give the connection back, or give it up."""
        if self.books.spoilt:
            self.hand.lease.discard()
            return
        try:
            for text in self.hand.dialect.after_read_only() if self.books.read_only else ():
                self.hand.send(text)
        except BaseException:
            self.hand.lease.discard()
            raise
        self.hand.lease.close()


class Transaction:
    """A block of a transaction: the outermost, or a savepoint within it; made by :meth:`Database.transaction`."""

    __slots__ = ("_database", "_is_outermost", "_isolation", "_open", "_read_only", "_savepoint", "_timeout")

    def __init__(self, database: Database, isolation: str | None, *, read_only: bool, timeout: float | None) -> None:
        self._database = database
        self._isolation = isolation
        self._read_only = read_only
        self._timeout = timeout
        self._open: _Open | None = None
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

    def _opened(self) -> _Open:
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

    def _begin(self) -> _Open:
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
        return _Open(hand, books)

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

    def _leave_block(self, opened: _Open, exc: BaseException | None) -> None:
        try:
            if exc is None:
                opened.send(f"RELEASE SAVEPOINT {self._savepoint}")
            elif opened.books.stands and not opened.books.streaming:
                opened.send(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
        except Error:
            if exc is None:  # the books know: whatever comes next in the transaction is told
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


_LATE_ORDER = "a statement in it was ended from outside, and the order to may still come"


def take_rows(cursor: Any) -> tuple[Sequence[Row], Any]:
    """Take all rows of a result, and its columns."""
    columns = cursor.description
    return (cursor.fetchall() if columns is not None else ()), columns


def take_two_rows(cursor: Any) -> tuple[Sequence[Row], Any]:
    """Take what tells whether there is more than one row."""
    columns = cursor.description
    return (cursor.fetchmany(2) if columns is not None else ()), columns


def take_count(cursor: Any) -> Done:
    """Take how many rows a statement touched, and the last id."""
    return Done(cursor.rowcount, cursor.lastrowid or None)


def finish(cursor: Any) -> None:
    """Read what further results there are, and let the cursor go; mysql-connector's close() leaves them unread."""
    next_set = getattr(cursor, "nextset", None)
    while next_set is not None and next_set():
        continue
    cursor.close()


def until_of(seconds: float | None) -> float | None:
    """Return the instant at which a call's time is over."""
    return None if seconds is None else time.monotonic() + seconds


def let_go(lease: Lease[Any], error: BaseException | None) -> None:
    """Give a connection back, or give it up if what happened on it says so."""
    if isinstance(error, (errors.ServerGone, errors.OutcomeUnknown)) or not (
        error is None or isinstance(error, Exception)
    ):
        lease.discard()
    else:
        lease.close()
