"""What a database does for a call, but for the waiting: the same for threads and for tasks.

Why: ``database.py`` and ``aio_database.py`` say what a caller may ask for, and hold the conversations that are begun
here.

Rules: a statement outside a transaction takes a connection, and gives it back whatever happens.  Many rows are one
transaction.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from millpond._sql.params import Params
from millpond.errors import InvalidSetting

from . import batches, writes
from .blocks import Block, OpenTransaction
from .conversing import Conversation, Waits, deadline_of
from .hand import Done, Hand, Take, take_count
from .knowledge import Knowledge, caller, with_autocommit
from .transactions import Joining
from .writes import Table

T = TypeVar("T")


class Calls:
    """What one database does.

    Args:
        pool: its connections come from there; of threads or of tasks.
        waits: what its shell lends.

    Attributes:
        knowledge: what is known of it.
        joining: who is in which transaction of it.
    """

    def __init__(self, pool: Any, waits: Waits) -> None:
        self._connection: Callable[[float | None], Any] = pool.connection
        self._waits = waits
        self.knowledge = Knowledge(pool.driver)
        self.joining: Joining[OpenTransaction] = Joining()

    def hand(self, timeout: float | None) -> Conversation[Hand]:
        """Take a connection."""
        lease = yield self._connection(timeout)
        try:
            lease.note_holder(caller()[0])
            self.knowledge.meet(lease.driver_connection)
        except BaseException:
            _ = lease.close()
            raise
        return Hand(self.knowledge, self._waits, lease)

    def meet(self, timeout: float | None) -> Conversation[None]:
        """Take a connection if there was none yet: what is written here needs to know the dialect."""
        if not self.knowledge.has_met:
            with (yield from self.hand(timeout)):
                pass

    # ---- statements
    def run(self, sql: str, params: Params | None, timeout: float | None, take: Take[T]) -> Conversation[T]:
        """Run one statement, in the transaction that the caller is in, or by itself."""
        deadline = deadline_of(timeout)
        inside = self.joining.current()
        if inside is not None:
            return (yield from inside.run(sql, params, take, deadline))
        with (yield from self.hand(timeout)) as hand:
            statement = hand.prepare(sql)
            return (yield from hand.run(statement, params, take, deadline, commits=not statement.reads))

    def stream(
        self, sql: str, params: Params | None, into: Any, timeout: float | None
    ) -> tuple[Conversation[None], OpenTransaction | None]:
        """Return what comes to the rows of a statement, and the transaction that it is in."""
        deadline_of(timeout)  # what cannot be is said at once
        inside = self.joining.current()
        if inside is not None:
            return self._stream_within(inside, sql, params, into, timeout), inside
        return self._stream(sql, params, into, timeout), None

    def _stream_within(
        self, inside: OpenTransaction, sql: str, params: Params | None, into: Any, timeout: float | None
    ) -> Conversation[None]:
        yield from inside.stream(sql, params, into, deadline_of(timeout))  # which begins with the first row

    def _stream(self, sql: str, params: Params | None, into: Any, timeout: float | None) -> Conversation[None]:
        deadline = deadline_of(timeout)
        with (yield from self.hand(timeout)) as hand:
            yield from hand.stream(hand.prepare(sql), params, into, deadline, hand.leave_stream)

    # ---- many rows
    def within(self, timeout: float | None, work: Callable[[OpenTransaction], Conversation[T]]) -> Conversation[T]:
        """Do something in a transaction, or in a block of the one that the caller is in."""
        block = Block(self, timeout=timeout)
        opened = yield from block.enter()
        try:
            result = yield from work(opened)
        except BaseException as error:
            yield from block.leave(error)
            raise
        yield from block.leave(None)
        return result

    def run_many(self, sql: str, params: Iterable[Params], timeout: float | None) -> Conversation[int]:
        """Run a statement once for each set of values."""
        remaining = iter(params)
        first = batches.next_chunk(remaining)
        if not first:
            return 0
        deadline = deadline_of(timeout)

        def run(opened: OpenTransaction) -> Conversation[int]:
            count, chunk = 0, first
            while chunk:
                count += yield from opened.run_chunk(sql, chunk, deadline)
                chunk = batches.next_chunk(remaining)
            return count

        return (yield from self.within(timeout, run))

    def run_joined(self, make: writes.Maker, rows: Iterator[Sequence[Any]], timeout: float | None) -> Conversation[int]:
        """Run a statement for as many rows at once as one takes."""
        deadline = deadline_of(timeout)
        dialect = self.knowledge.dialect

        def run(opened: OpenTransaction) -> Conversation[int]:
            count = 0
            while chunk := batches.next_chunk(rows):
                bytes_max = yield from opened.bytes_max(deadline)
                for part in batches.measured(chunk, make(dialect), bytes_max):
                    values = list(itertools.chain.from_iterable(part))
                    done = yield from opened.run(make(dialect, rows=len(part)), values, take_count, deadline)
                    count += done.row_count
            return count

        return (yield from self.within(timeout, run))

    # ---- mappings
    def insert(self, table: Table, values: Mapping[str, Any], timeout: float | None) -> Conversation[Done]:
        """Insert a row."""
        make = functools.partial(writes.insert_text, table=table, columns=writes.names_of(values))
        return (yield from self._run_made(make, values, timeout))

    def insert_many(self, table: Table, rows: Iterable[Mapping[str, Any]], timeout: float | None) -> Conversation[int]:
        """Insert rows that all have the same columns."""
        columns, remaining = writes.columns_of_first(rows)
        if columns is None:
            return 0
        yield from self.meet(timeout)
        text = writes.insert_text(self.knowledge.dialect, table=table, columns=columns)
        return (yield from self.run_many(text, writes.rows_of(remaining, columns), timeout))

    def upsert(
        self,
        table: Table,
        values: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        key: str | Sequence[str],
        update: str | Sequence[str] | None,
        timeout: float | None,
    ) -> Conversation[Done]:
        """Insert a row, or several, or update those that are there."""
        if isinstance(values, Mapping):
            row = cast("Mapping[str, Any]", values)
            made = writes.upsert_maker(table, writes.names_of(row), key, update)
            return (yield from self._run_made(made, row, timeout))
        columns, remaining = writes.columns_of_first(values)
        if columns is None:
            return Done(0, None)
        make = writes.upsert_maker(table, columns, key, update)
        yield from self.meet(timeout)
        rows = writes.rows_of(remaining, columns)
        if writes.names_new_row(self.knowledge.dialect):
            return Done((yield from self.run_joined(make, rows, timeout)), None)
        return Done((yield from self.run_many(make(self.knowledge.dialect), rows, timeout)), None)

    def _run_made(self, make: writes.Maker, values: Mapping[str, Any], timeout: float | None) -> Conversation[Done]:
        yield from self.meet(timeout)
        return (yield from self.run(make(self.knowledge.dialect), tuple(values.values()), timeout, take_count))


def pool_of(source: Any, settings: dict[str, Any], kind: type[Any], known_as: str) -> tuple[Any, bool]:
    """Return the pool of a database, and whether it was made for it.

    Args:
        source: a URL, or a pool.
        settings: for a pool that is made.
        kind: of pools.
        known_as: the name of that, for errors.

    Raises:
        InvalidSetting: it is neither, or there are settings for a pool that has its own.
    """
    if isinstance(source, kind):
        if settings:
            raise InvalidSetting(*next(iter(settings.items())), "nothing", "this pool has its settings already")
        return source, False
    if isinstance(source, str):
        return kind(with_autocommit(source), **settings), True
    raise InvalidSetting("source", type(source).__name__, f"a URL, or a {known_as}")
