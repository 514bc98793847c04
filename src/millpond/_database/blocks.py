"""A transaction that is open on a connection in hand, and the blocks that it is made of.

Why: the books say whether a transaction takes a statement, and what an answer means for it; here statements are sent as
they allow, and what the answers were is noted.

Rules: nothing is sent that the books have not admitted.  Whatever leaves a conversation as an exception has been noted.
A task that was cancelled sends no ROLLBACK: the pool does that, when the connection comes back.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final, Protocol, TypeVar

from millpond._sql.params import Params
from millpond.errors import Error

from . import batches, errors, transactions
from .conversing import Conversation, Deadline, StreamLeft
from .hand import Hand, Limited, Take, let_go, take_rows
from .knowledge import ASK_PACKET_MAX
from .statements import Statement
from .transactions import Books, Joining
from .watchdog import GRACE_S

T = TypeVar("T")

LATE_ORDER: Final = "a statement in it was ended from outside, and the order to may still come"
ENDED_SOMEHOW: Final = "a stream in it was left before its end, and it is not known how that ended"
INTERRUPTED: Final = "it was interrupted in the middle of a statement"


class OpenTransaction:
    """An open transaction: its books, and the connection in hand.

    Attributes:
        owner: the thread and task that began it.
        is_over: its block was left.
        abandoned: streams of tasks that were dropped before their end, by a ``break`` for instance; whatever comes next
            on the connection closes them first.  A task of the garbage collector's would do so at the same time.
    """

    __slots__ = ("abandoned", "books", "hand", "is_over", "owner")

    def __init__(self, hand: Hand, books: Books) -> None:
        self.hand = hand
        self.books = books
        self.is_over = False
        self.owner = transactions.myself()
        self.abandoned: list[Any] = []

    def admit(self, what: str) -> Conversation[None]:
        """See to it that the transaction still stands, and ask the server where that is in doubt."""
        books = self.books
        if self.abandoned:
            yield from self.close_abandoned()
        books.look_for(self.hand.lease)
        books.admit(what)
        if self.hand.overdue is not None:
            yield from self.outlive_order()
        if books.doubtful:
            yield from self.probe()
        books.admit(what)

    def close_abandoned(self) -> Conversation[None]:
        """Close the streams that nobody can read any more."""
        while self.abandoned:
            stream = self.abandoned.pop()
            if stream.ag_running:  # it waits for a row, in a task that nobody will ever run again
                continue
            with contextlib.suppress(errors.StatementFailed):  # the books know
                yield stream.aclose()

    def outlive_order(self) -> Conversation[None]:
        """See to it that an order to end a statement that is done by now ends nothing that comes later."""
        hand = self.hand
        assert hand.overdue is not None, "bug: nothing was to be ended"
        if hand.dialect.brand == "sqlite":  # interrupt() ends nothing that begins later
            hand.overdue = None
        elif (yield hand.overdue.wait_until_settled(2 * GRACE_S)):
            yield from self.swallow()
            hand.overdue = None
        else:
            self.books.spoil(LATE_ORDER)

    def swallow(self) -> Conversation[None]:
        """Have an order that may be on its way hit a statement that does nothing."""
        if self.hand.dialect.brand not in ("mysql", "mariadb"):
            self.books.spoil(LATE_ORDER)
            return
        with contextlib.suppress(errors.StatementKilled):
            yield from self.ask("DO 0")
            return
        try:
            yield from self.ask("DO 0")
        except errors.StatementFailed as error:
            self.books.spoil(LATE_ORDER, error)

    def probe(self) -> Conversation[None]:
        """Have the server say whether the transaction is open."""
        assert self.hand.dialect.probe is not None, "bug: the books are in doubt, and there is nothing to ask with"
        try:
            yield from self.ask(self.hand.dialect.probe)
        except errors.StatementFailed as error:
            self.books.spoil("it could not be told whether it was still open", error)
            return
        self.books.probed(self.hand.conn)

    def ask(self, sql: str) -> Conversation[None]:
        """Send what changes nothing."""
        try:
            yield from self.hand.send(sql)
        except errors.StatementFailed:
            raise
        except BaseException as error:
            self.books.spoil(INTERRUPTED, error)
            raise

    def send(self, sql: str) -> Conversation[None]:
        """Send a statement of our own."""
        yield from self.admit(sql)
        try:
            yield from self.ask(sql)
        except errors.StatementFailed as error:
            self.books.end(f"{sql} failed", error)
            raise

    def run(self, sql: str, params: Params | None, take: Take[T], deadline: Deadline | None) -> Conversation[T]:
        """Run a statement of this transaction."""
        yield from self.admit(sql)
        books, hand = self.books, self.hand
        statement = hand.prepare(sql)
        try:
            taken = yield from hand.run(statement, params, take, deadline, commits=False, read_only=books.read_only)
        except BaseException as error:
            self.note_failure(statement, error)
            raise
        books.answered(statement, hand.conn)
        return taken

    def note_failure(self, statement: Statement, error: BaseException) -> None:
        """Have the books take in that a statement was not done."""
        hand = self.hand
        self.books.failed(statement, hand.conn, error)
        is_of_program = isinstance(error, Exception) and not isinstance(error, errors.StatementFailed)
        if is_of_program and hand.knowledge.driver.in_flight(hand.conn):
            self.books.spoil("an error that is not the database's came up in the middle of a reply", error)

    def run_chunk(self, sql: str, chunk: list[Any], deadline: Deadline | None) -> Conversation[int]:
        """Run a statement for each of many rows."""
        yield from self.admit(sql)
        books, hand = self.books, self.hand
        statement = hand.prepare(sql)
        values = statement.rows(chunk)
        bytes_max = yield from self.bytes_max(deadline)
        try:
            with Limited(hand, statement, statement.driver_text, deadline, commits=False, read_only=books.read_only):
                count = yield from batches.run(hand.dialect, hand.conn, statement.driver_text, values, bytes_max)
        except BaseException as error:
            self.note_failure(statement, error)
            raise
        books.answered(statement, hand.conn)
        return count

    def bytes_max(self, deadline: Deadline | None) -> Conversation[int]:
        """Return how long a statement of a batch may be; the server is asked once."""
        knowledge = self.hand.knowledge
        if not knowledge.knows_packet_max():
            found, _ = yield from self.run(ASK_PACKET_MAX, None, take_rows, deadline)
            knowledge.learn_packet_max(found)
        return knowledge.bytes_max()

    # ---- streams
    def stream(self, sql: str, params: Params | None, into: Any, deadline: Deadline | None) -> Conversation[None]:
        """Come to the rows of a statement of this transaction; meanwhile it takes no other."""
        yield from self.admit(sql)
        books, hand = self.books, self.hand
        statement = hand.prepare(sql)
        books.streaming = True
        try:
            yield from hand.stream(statement, params, into, deadline, self.leave_stream)
        except StreamLeft:
            raise
        except BaseException as error:
            self.note_failure(statement, error)
            raise
        finally:
            books.streaming = False
        books.answered(statement, hand.conn)

    def leave_stream(self, cursor: Any, text: str, error: BaseException) -> Conversation[None]:
        """End a stream early: the connection is needed, and what is left is not read."""
        self.books.look_for(self.hand.lease)
        if self.books.spoilt:  # the connection was given back, or given up, and its cursors with it
            return
        try:
            yield from self.end_early(cursor, text, error)
        except errors.StatementFailed as failure:  # not raised: a stream that is dropped has nobody to raise it to
            self.books.spoil(ENDED_SOMEHOW, failure)
        except BaseException as failure:
            self.books.spoil(ENDED_SOMEHOW, failure)
            raise

    def end_early(self, cursor: Any, text: str, error: BaseException) -> Conversation[None]:
        hand = self.hand
        if not hand.may_wait(error):
            self.books.spoil("a stream in it was left by a task that was cancelled", error)
        elif hand.dialect.brand not in ("mysql", "mariadb"):
            yield cursor.close()
        else:
            failure = yield from hand.end_stream(cursor, text)
            if failure is None:
                yield from self.swallow()
            else:
                self.books.spoil("a stream in it was left before its end, and cannot be ended on the server", failure)

    # ---- its end
    def commit(self) -> Conversation[None]:
        """Commit, and say what became of it."""
        hand = self.hand
        yield from self.admit("COMMIT")
        try:
            hand.refuse_dead_link("COMMIT")
            yield from hand.end(hand.dialect.commit, "commit")
        except BaseException as error:
            ours = hand.knowledge.failure(error, "COMMIT", commits=True)
            if isinstance(ours, (errors.ServerGone, errors.OutcomeUnknown)) or not isinstance(ours, Exception):
                self.books.spoil("COMMIT was not answered", ours)
            else:
                yield from self.roll_back(ours)
            if ours is error:
                raise
            try:
                raise ours from error
            finally:
                del ours  # or it, and its traceback, would hold each other

    def roll_back(self, error: BaseException) -> Conversation[None]:
        """Roll back; that this fails is no news to whoever is on the way out with an exception."""
        hand, books = self.hand, self.books
        may_wait = hand.waits.may_wait(error)
        if may_wait:
            yield from self.close_abandoned()
        books.look_for(hand.lease)
        if books.spoilt or books.streaming or hand.overdue is not None:
            books.spoil("it was left in the middle of something")
            return
        if not may_wait:
            return
        try:
            if hand.dialect.in_transaction(hand.conn) is not False or not hand.dialect.tells_after_errors:
                yield from hand.end(hand.dialect.rollback, "rollback")
        except Exception as failure:  # noqa: BLE001  the connection is given up instead, which rolls back as well
            books.spoil("ROLLBACK failed", failure)
        except BaseException as interrupted:
            books.spoil("ROLLBACK was not answered", interrupted)
            raise

    def give_back(self, error: BaseException | None) -> Conversation[None]:
        """Give the connection back, or give it up."""
        lease = self.hand.lease
        self.is_over = True
        self.books.end("its block was left")
        if self.books.spoilt:
            lease.discard()
            yield from self.close_abandoned()  # which waits for nothing any more
            return
        was_called_away = error is not None and not self.hand.waits.may_wait(error)
        try:
            for text in self.hand.dialect.after_read_only() if self.books.read_only and not was_called_away else ():
                yield from self.hand.send(text)
        except BaseException:
            lease.discard()
            raise
        _ = lease.close(type(error) if was_called_away else None)


class Opener(Protocol):
    """What a block needs of its database."""

    @property
    def joining(self) -> Joining[OpenTransaction]:
        """Who is in which transaction of it."""
        ...

    def hand(self, timeout: float | None) -> Conversation[Hand]:
        """Take a connection."""
        ...


class Block:
    """A block of a transaction: the outermost, or a savepoint within it.

    Args:
        opener: its database; :class:`~millpond._database.calls.Calls`, which stands on this module.
        isolation: for the outermost.
        read_only: for the outermost.
        timeout: seconds to wait for a connection.
    """

    __slots__ = ("_isolation", "_open", "_opener", "_read_only", "_savepoint", "_timeout")

    def __init__(
        self, opener: Opener, isolation: str | None = None, *, read_only: bool = False, timeout: float | None = None
    ) -> None:
        self._opener = opener
        self._isolation = isolation
        self._read_only = read_only
        self._timeout = timeout
        self._open: OpenTransaction | None = None
        self._savepoint = ""

    def __del__(self) -> None:
        """See to it that nobody goes on in a transaction whose block is not there: Ctrl-C before its first line."""
        opened: OpenTransaction | None = getattr(self, "_open", None)
        if opened is not None and not self._savepoint and not opened.is_over:
            opened.is_over = True
            del opened.hand  # the lease is dropped, and found by the pool

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing done in the transaction so far can have been committed already."""
        return self._open is None or self._open.books.repeatable

    @property
    def can_run_again(self) -> bool:
        """Whether the whole transaction may be run once more: it is this block, and nothing of it was committed."""
        return self.is_repeatable and not self._savepoint

    def opened(self) -> OpenTransaction:
        """Return the transaction.

        Raises:
            TransactionMisuse: the block was not entered.
        """
        if self._open is None:
            raise errors.TransactionMisuse("a transaction is a block: enter it by `with`, or by `async with` in a task")
        return self._open

    def enter(self) -> Conversation[OpenTransaction]:
        """Begin the transaction, or set a savepoint in the one that the caller is in."""
        if self._open is not None:
            raise errors.TransactionMisuse("a block is entered once: call db.transaction() anew")
        outer = self._opener.joining.current()
        if outer is None:
            self._open = yield from self._begin()
            self._opener.joining.enter(self._open)
            return self._open
        transactions.refuse_options_within(self._isolation, read_only=self._read_only)
        self._savepoint = outer.books.open_block()
        try:
            yield from outer.send(f"SAVEPOINT {self._savepoint}")
        except BaseException:
            outer.books.close_block()
            raise
        self._open = outer
        return outer

    def _begin(self) -> Conversation[OpenTransaction]:
        hand = yield from self._opener.hand(self._timeout)
        books = Books(hand.dialect, read_only=self._read_only)
        try:
            for text in hand.dialect.begin(
                self._isolation, read_only=self._read_only, autocommit=hand.knowledge.autocommit
            ):
                yield from hand.send(text)
        except BaseException as error:
            let_go(hand.lease, error)
            raise
        return OpenTransaction(hand, books)

    def leave(self, exc: BaseException | None) -> Conversation[None]:
        """Commit, or roll back what was done in the block, and give the connection back with the outermost."""
        opened = self.opened()
        if self._savepoint:
            yield from self._leave_savepoint(opened, exc)
            return
        self._opener.joining.leave(opened)
        error = exc
        try:
            if exc is None:
                yield from opened.commit()
            else:
                yield from opened.roll_back(exc)
        except (errors.TransactionLost, errors.TransactionMisuse) as refused:
            error = refused
            yield from opened.roll_back(refused)
            raise
        except BaseException as other:
            error = other
            raise
        finally:
            yield from opened.give_back(error)
            del error  # or it, and its traceback, would hold each other

    def _leave_savepoint(self, opened: OpenTransaction, exc: BaseException | None) -> Conversation[None]:
        try:
            if exc is not None and opened.hand.waits.may_wait(exc):
                yield from opened.close_abandoned()
            if exc is None:
                yield from opened.send(f"RELEASE SAVEPOINT {self._savepoint}")
            elif opened.books.stands and not opened.books.streaming:
                yield from opened.send(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
            else:
                opened.books.end(transactions.BLOCK_NOT_TAKEN_BACK, exc)
        except Error as error:
            opened.books.end(transactions.BLOCK_NOT_TAKEN_BACK, error)
            if exc is None:  # else the books know: whatever comes next in the transaction is told
                raise
        finally:
            opened.books.close_block()
