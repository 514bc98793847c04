"""A connection in hand: where statements are sent.

Why: this is the one place that has cursors run statements.  It makes no decision of its own: what a statement is, how
long it may take, and what an error is called, is said by the parts beside it.

Rules: whatever leaves a conversation as an exception has its right name.  A connection of which it is not known that
nothing of it is outstanding goes back to be closed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from millpond._sql.params import Params

from . import errors, rows
from .conversing import Conversation, Deadline, Rows, StreamLeft, Waits, Watch
from .knowledge import Knowledge, bound
from .rows import Row
from .statements import Statement
from .watchdog import GRACE_S

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

Take: TypeAlias = Callable[[Any, Statement], Conversation[T]]
Leave: TypeAlias = Callable[[Any, str, BaseException], Conversation[None]]


class Done(NamedTuple):
    """What a statement did.

    Attributes:
        row_count: rows touched, as the driver counts; -1 where it cannot tell.
        last_id: what an AUTO_INCREMENT column gave; None if there is none.
    """

    row_count: int
    last_id: int | None


class Hand:
    """A connection in hand: what can be done with it, one statement at a time; a block, at whose end it goes back.

    Args:
        knowledge: of its database.
        waits: what its shell lends.
        lease: the connection.

    Attributes:
        overdue: a statement was to be ended, and the order to may still arrive.
    """

    __slots__ = ("conn", "dialect", "knowledge", "lease", "overdue", "waits")

    def __init__(self, knowledge: Knowledge, waits: Waits, lease: Any) -> None:
        self.waits = waits
        self.lease = lease
        self.conn = lease.driver_connection
        self.knowledge = knowledge
        self.dialect = knowledge.dialect
        self.overdue: Watch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self.overdue is not None:
            self.lease.discard()
        else:
            let_go(self.lease, exc)

    def prepare(self, sql: str) -> Statement:
        return self.knowledge.statements.prepare(sql, self.conn)

    def run(
        self,
        statement: Statement,
        params: Params | None,
        take: Take[T],
        deadline: Deadline | None,
        *,
        commits: bool,
        read_only: bool = False,
    ) -> Conversation[T]:
        """Run a statement, and commit it if it commits and the connection does not do that by itself."""
        text, values = bound(statement, params)
        with Limited(self, statement, text, deadline, commits=commits, read_only=read_only) as text_sent:
            cursor = yield self.dialect.cursor(self.conn)
            yield cursor.execute(text_sent, values)
            taken = yield from take(cursor, statement)
            if not statement.one_result:
                yield from finish(cursor)
            if commits and self.dialect.in_transaction(self.conn) is not False:
                yield from self.commit_by_itself()
        return taken

    def commit_by_itself(self) -> Conversation[None]:
        """Commit a statement outside a transaction, where autocommit is off or was switched off."""
        if not self.knowledge.autocommit or self.dialect.in_transaction(self.conn):
            yield from self.end(self.dialect.commit, "commit")

    def send(self, sql: str) -> Conversation[None]:
        """Send a statement of our own, without values."""
        try:
            cursor = yield self.dialect.cursor(self.conn)  # mysql-connector looks here whether the link is there
            yield cursor.execute(sql)
            yield cursor.close()
        except Exception as error:
            ours = self.knowledge.failure(error, sql, commits=False)
            if ours is error:
                raise
            try:
                raise ours from error
            finally:
                del ours  # or it, and its traceback, would hold each other

    def refuse_dead_link(self, sql: str) -> None:
        """Look whether the server has closed the link: what is not sent has a known outcome."""
        driver = self.knowledge.driver
        if driver.is_readable is not None and driver.is_readable(self.conn):
            raise self.knowledge.gone(sql)

    def end(self, text: str | None, method: str) -> Conversation[None]:
        """Send COMMIT or ROLLBACK in the driver's own way."""
        if text is None:
            yield getattr(self.conn, method)()
        else:
            cursor = yield self.dialect.cursor(self.conn)
            yield cursor.execute(text)

    # ---- deadlines
    def watch(self, text: str, seconds: float) -> Watch:
        """Have the statement ended after so many seconds, as well as this driver allows."""
        interrupt, number = self.dialect.interrupter(self.conn), self.dialect.session_id(self.conn)
        end: Callable[[], Conversation[None]] | None = None
        if interrupt is not None:
            end = functools.partial(call, interrupt)
        elif number is not None:
            end = functools.partial(self.kill, number, text)
        driver, conn = self.knowledge.driver, self.conn
        return self.waits.watch(seconds, end, lambda: driver.cut(conn))

    def disarm(self, watch: Watch | None) -> bool:
        """Say that the statement is done, and whether it was to be ended."""
        if watch is None or not watch.disarm():
            return False
        self.overdue = watch
        return True

    def kill(self, number: int, text: str) -> Conversation[None]:
        """End a statement over a connection beside the pool's, if it is still the one that it was."""
        driver = self.knowledge.driver
        side = yield self.waits.open_beside(driver)
        try:
            cursor = yield self.dialect.cursor(side)
            yield cursor.execute("SHOW FULL PROCESSLIST")
            processes = yield cursor.fetchall()
            if is_running(processes, cursor.description, number, self.beginning(text)):
                yield cursor.execute(f"KILL QUERY {number:d}")
        finally:
            yield driver.close(side)

    def beginning(self, text: str) -> str:
        """Return what a statement begins with, up to its first value; of a CALL the server shows what it calls."""
        return "" if text.lstrip()[:4].upper() == "CALL" else text.partition(self.dialect.marks.place)[0]

    # ---- streams
    def stream(
        self, statement: Statement, params: Params | None, into: Any, deadline: Deadline | None, leave: Leave
    ) -> Conversation[None]:
        """Come to rows, for the shell to yield; *leave* is told of the cursor if not all of them are wanted."""
        text, values = bound(statement, params)
        with Limited(self, statement, text, deadline, commits=not statement.reads) as text_sent:
            cursor = yield self.dialect.stream_cursor(self.lease)
            try:
                yield cursor.execute(text_sent, values)
                yield Rows(cursor, rows.maker_of(into, cursor.description, statement.sql))
            except BaseException as error:
                # Here, where the cursor is: its finalizer would read all that is left.
                yield from leave(cursor, text_sent, error)
                raise
            if not statement.one_result:
                yield from read_on(cursor)
            yield cursor.close()

    def leave_stream(self, cursor: Any, _text: str, error: BaseException) -> Conversation[None]:
        """Give up the connection of a stream that was not read to its end, unless the rest was short and is read."""
        driver = self.knowledge.driver
        if self.overdue is None and driver.may_end_soon(self.conn):  # seen to where the connection is given back
            return
        if self.overdue is not None or driver.in_flight(self.conn) is not False:
            self.lease.discard()
        elif self.may_wait(error):
            yield cursor.close()

    def end_stream(self, cursor: Any, text: str) -> Conversation[Exception | None]:
        """Have the server end a stream, and read what was on its way; return why it cannot be told to, if it cannot."""
        number = self.dialect.session_id(self.conn)
        if number is None:
            return LookupError("this driver does not tell the number of its session")
        try:
            yield from self.kill(number, text)
        except Exception as error:  # noqa: BLE001  no second connection was to be had
            return error
        try:
            yield getattr(self.conn, "consume_results", cursor.close)()  # mysql-connector's cursors refuse to be closed
        except Exception as error:  # noqa: BLE001  one of them is what is expected, all others are raised
            ours = self.knowledge.failure(error, text, commits=False)
            try:
                if not isinstance(ours, errors.StatementKilled):
                    raise ours from error
            finally:
                del ours  # or it, and its traceback, would hold each other
        return None

    def may_wait(self, error: BaseException) -> bool:
        """Say whether what is left of a stream that *error* ends can be waited for."""
        return isinstance(error, StreamLeft) or self.waits.may_wait(error)


class Limited:
    """A block in which a statement has the time that is left, and what goes wrong is called by its name.

    Args:
        hand: with the connection.
        statement: what is run.
        text: as it is bound; the block is given the text to be sent, which may say how long it may take.
        deadline: when its time is over.
        commits: it commits itself, so that a lost answer leaves the outcome open.
        read_only: it is in a transaction that was begun so.
    """

    __slots__ = ("_calm", "_commits", "_deadline", "_hand", "_read_only", "_statement", "_text", "_watch")

    def __init__(
        self,
        hand: Hand,
        statement: Statement,
        text: str,
        deadline: Deadline | None,
        *,
        commits: bool,
        read_only: bool = False,
    ) -> None:
        self._hand = hand
        self._statement = statement
        self._text = text
        self._deadline = deadline
        self._commits = commits
        self._read_only = read_only
        self._watch: Watch | None = None
        self._calm: Callable[[], None] | None = None  # gives the connection its patience again

    def __enter__(self) -> str:
        if self._deadline is None:
            return self._text
        left_s = self._deadline.left_s()
        if left_s <= 0:
            raise self._hand.knowledge.too_late(self._statement.sql, self._deadline.seconds)
        limited = self._statement.timed(self._text, left_s)
        text = limited or self._text
        self._calm = self._hand.dialect.hurry(self._hand.conn, left_s)
        self._watch = self._hand.watch(text, left_s if limited is None else left_s + GRACE_S)
        return text

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        fired = self._hand.disarm(self._watch)
        if self._calm is not None:
            self._calm()
        statement, knowledge = self._statement, self._hand.knowledge
        seconds = self._deadline.seconds if fired and self._deadline is not None else None
        if exc is None:
            if seconds is not None and statement.reads:  # SLEEP() ends early without an error
                raise knowledge.too_late(statement.sql, seconds)
            return
        ours = knowledge.failure(exc, statement.sql, commits=self._commits, timeout=seconds, read_only=self._read_only)
        try:
            if ours is not exc:
                raise ours from exc
        finally:
            del ours  # or it, and its traceback, would hold each other, and all that their frames do


def take_rows(cursor: Any, _statement: Statement) -> Conversation[tuple[Sequence[Row], Any]]:
    """Take all rows of a result, and its columns."""
    columns = cursor.description
    return ((yield cursor.fetchall()) if columns is not None else ()), columns


def take_two_rows(cursor: Any, _statement: Statement) -> Conversation[tuple[Sequence[Row], Any]]:
    """Take what tells whether there is more than one row."""
    columns = cursor.description
    return ((yield cursor.fetchmany(2)) if columns is not None else ()), columns


def take_count(cursor: Any, statement: Statement) -> Conversation[Done]:
    """Take how many rows a statement touched, and the last id."""
    yield from ()  # both are known
    return Done(cursor.rowcount, (cursor.lastrowid or None) if statement.gives_id else None)


def finish(cursor: Any) -> Conversation[None]:
    """Read what further results there are, and let the cursor go; mysql-connector's close() leaves them unread."""
    next_set = getattr(cursor, "nextset", None)
    while next_set is not None and (yield next_set()):
        continue
    yield cursor.close()


def read_on(cursor: Any) -> Conversation[None]:
    """Read what further results there are on a cursor that fetches as it is read; its close() may leave them unread."""
    next_set = getattr(cursor, "nextset", None)
    while next_set is not None and (yield next_set()):
        while cursor.description is not None and (yield cursor.fetchone()) is not None:
            continue


def call(function: Callable[[], object]) -> Conversation[None]:
    """Call what does not wait."""
    yield from ()
    function()


def is_running(processes: Sequence[Sequence[Any]], columns: Sequence[Any], number: int, beginning: str) -> bool:
    """Say whether a list of the server's processes has our session with our statement in it.

    Session numbers are a server's own: behind a load balancer the same number may be somebody else's.
    """
    names = [str(column[0]).lower() for column in columns]
    id_at, text_at = names.index("id"), names.index("info")
    for process in processes:
        if int(process[id_at]) == number:
            text = process[text_at]
            shown = text.decode("utf-8", "replace") if isinstance(text, (bytes, bytearray)) else str(text or "")
            return shown.strip().startswith(beginning.strip())
    return False


def let_go(lease: Any, error: BaseException | None) -> None:
    """Give a connection back, or give it up if what happened on it says so; the pool sees to what takes time."""
    if isinstance(error, (errors.ServerGone, errors.OutcomeUnknown)):
        lease.discard()
    else:  # of who was called away the pool looks whether anything was in flight
        _ = lease.close(None if error is None or isinstance(error, (Exception, StreamLeft)) else type(error))
