"""A connection in hand, and a transaction that is open on one: what waits, for threads.

Why: this is the one place where statements are sent.  It knows no pool and makes no decision of its own: what a
statement is, how long it may take, whether a transaction takes it, and what an error is called, is said by the parts
beside it.

Rules: whatever leaves a method as an exception has its right name and has been noted.  A connection of which it is not
known that nothing of it is outstanding goes back to be closed.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from millpond._sql.params import Params
from millpond.lease import Lease

from . import batches, errors, rows, transactions
from .batches import Done
from .knowledge import Knowledge, bound
from .rows import Row
from .statements import Statement
from .transactions import Books
from .watchdog import GRACE_S, Watch, Watchdog

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

LATE_ORDER: Final = "a statement in it was ended from outside, and the order to may still come"


class Hand:
    """A connection in hand: what can be done with it, one statement at a time.

    Args:
        knowledge: of its database.
        watchdog: for deadlines that no server keeps.
        lease: the connection.
    """

    __slots__ = ("_watchdog", "conn", "dialect", "knowledge", "lease", "overdue")

    def __init__(self, knowledge: Knowledge, watchdog: Watchdog, lease: Lease[Any]) -> None:
        self._watchdog = watchdog
        self.lease = lease
        self.conn = lease.driver_connection
        self.knowledge = knowledge
        self.dialect = knowledge.dialect
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
            end = functools.partial(kill, self.knowledge, number, self.beginning(text))
        driver, conn = self.knowledge.driver, self.conn
        watch = Watch(end, lambda: driver.cut(conn))
        self._watchdog.watch(seconds, watch)
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
        driver = self.knowledge.driver
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
            if not statement.one_result:
                read_on(cursor)
            cursor.close()

    def leave_stream(self, cursor: Any, _: str) -> None:
        """Give up the connection of a stream that was not read to its end, unless the rest was short and is read."""
        if self.knowledge.driver.in_flight(self.conn) is False:
            cursor.close()
        else:
            self.lease.discard()

    def end_stream(self, cursor: Any, text: str) -> bool:
        """Have the server end a stream, and read what was on its way; False if that cannot be done."""
        number = self.dialect.session_id(self.conn)
        if number is None:
            return False
        try:
            kill(self.knowledge, number, self.beginning(text))
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


class OpenTransaction:
    """An open transaction: its books, and the connection in hand."""

    __slots__ = ("books", "hand", "owner")

    def __init__(self, hand: Hand, books: Books) -> None:
        self.hand = hand
        self.books = books
        self.owner = transactions.myself()

    def admit(self, what: str) -> None:
        """See to it that the transaction still stands, and ask the server where that is in doubt."""
        books, hand = self.books, self.hand
        books.look_for(hand.lease)
        books.admit(what)
        overdue, hand.overdue = hand.overdue, None
        if overdue is not None and hand.dialect.brand != "sqlite":  # interrupt() ends nothing that begins later
            if overdue.wait_until_settled(2 * GRACE_S):
                self.swallow()
            else:
                books.spoil(LATE_ORDER)
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
            self.books.spoil(LATE_ORDER)
            return
        with contextlib.suppress(errors.StatementKilled):
            self.hand.send("DO 0")
            return
        try:
            self.hand.send("DO 0")
        except errors.StatementFailed as error:
            self.books.spoil(LATE_ORDER, error)

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
        self.books.look_for(hand.lease)
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


def read_on(cursor: Any) -> None:
    """Read what further results there are on a cursor that fetches as it is read; its close() may leave them unread."""
    next_set = getattr(cursor, "nextset", None)
    while next_set is not None and next_set():
        if cursor.description is not None:
            collections.deque(cursor, maxlen=0)


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


def kill(knowledge: Knowledge, number: int, beginning: str) -> None:
    """End a statement over a connection beside the pool's, if it is still the one that it was."""
    driver = knowledge.driver
    side = driver.open(time.monotonic() + GRACE_S)
    try:
        cursor = knowledge.dialect.cursor(side)
        cursor.execute("SHOW FULL PROCESSLIST")
        if batches.is_running(cursor.fetchall(), cursor.description, number, beginning):
            cursor.execute(f"KILL QUERY {number:d}")
    finally:
        driver.close(side)
