"""The books of a transaction, who takes part, and what is run again: without a database."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
from typing import Any

import pytest

import millpond as m
from millpond._database.dialects import Dialect
from millpond._database.statements import Statement
from millpond._database.transactions import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    Attempts,
    Books,
    Joining,
    isolation_of,
    myself,
)
from millpond._sql.tokens import Dialect as Rules


class Telling(Dialect):
    """A dialect that tells whether a transaction is open, as its connection says."""

    probe = "DO 0"

    def in_transaction(self, conn: Any) -> bool | None:
        """Say what the test says."""
        return bool(conn)


class Silent(Dialect):
    """A dialect of the MySQL family that tells nothing."""

    def __init__(self) -> None:
        super().__init__(None)
        self.brand = "mysql"


def statement(sql: str, dialect: Dialect) -> Statement:
    """Return a statement."""
    return Statement(sql, dialect, Rules.MYSQL)


def failure(kind: type[m.StatementFailed]) -> m.StatementFailed:
    """Return an error."""
    return kind("it failed", "SELECT 1")


class TestBooks:
    """What is noted, and what is refused."""

    def test_what_ends_a_transaction_is_the_reason_for_refusing(self) -> None:
        """After a deadlock nothing goes on, and the first reason is the one that is told."""
        dialect = Telling(None)
        books = Books(dialect)
        books.admit("SELECT 1")
        deadlock = failure(m.Deadlock)
        books.failed(statement("UPDATE t SET x = 1", dialect), True, deadlock)
        books.end("something else")
        with pytest.raises(m.TransactionLost, match="deadlock") as caught:
            books.admit("UPDATE t SET x = 2")
        assert deadlock is caught.value.__cause__
        assert (False, True, False) == (books.stands, books.repeatable, books.spoilt)

    def test_a_statement_that_commits_is_seen_by_the_flag(self) -> None:
        """A dialect that tells is believed: a temporary table ends nothing, any other does."""
        dialect = Telling(None)
        for is_open, sql in ((True, "CREATE TEMPORARY TABLE t (x INT)"), (False, "CREATE TABLE t (x INT)")):
            books = Books(dialect)
            books.answered(statement(sql, dialect), is_open)
            assert (is_open, False) == (books.stands, books.repeatable)

    def test_where_nothing_is_told_the_word_decides(self) -> None:
        """By a driver that tells nothing DDL ends a transaction, and a procedure only keeps it from being repeated."""
        dialect = Silent()
        books = Books(dialect)
        books.answered(statement("CALL p()", dialect), None)
        assert (True, False) == (books.stands, books.repeatable)
        books.answered(statement("ALTER TABLE t ADD x INT", dialect), None)
        assert not books.stands

    def test_doubt_is_settled_by_asking(self) -> None:
        """After a lock time-out the server is asked; what it says holds."""
        dialect = Telling(None)
        for still_open in (True, False):
            books = Books(dialect)
            books.failed(statement("SELECT 1", dialect), True, failure(m.LockTimeout))
            assert (True, True) == (books.doubtful, books.stands)
            books.probed(still_open)
            assert (False, still_open) == (books.doubtful, books.stands)

    def test_an_error_that_nobody_knows_is_a_doubt(self) -> None:
        """The server is asked where it can be; the errors that are known to undo a statement alone need no question."""
        for kind, doubtful in ((m.StatementFailed, True), (m.DuplicateKey, False), (m.InvalidStatement, False)):
            books = Books(Telling(None))
            books.failed(statement("UPDATE t SET x = 1", Telling(None)), True, failure(kind))
            assert (doubtful, True, True) == (books.doubtful, books.stands, books.repeatable)
        silent = Books(Silent())
        silent.failed(statement("UPDATE t SET x = 1", Silent()), None, failure(m.StatementFailed))
        assert (False, True) == (silent.doubtful, silent.stands)

    def test_doubt_that_cannot_be_settled_ends_it(self) -> None:
        """A driver that cannot tell is taken for the worst case."""
        dialect = Silent()
        books = Books(dialect)
        books.failed(statement("SELECT 1", dialect), None, failure(m.LockTimeout))
        assert (False, True) == (books.stands, books.repeatable)

    @pytest.mark.parametrize("kind", [m.ServerGone, m.OutcomeUnknown])
    def test_a_lost_link_costs_the_connection(self, kind: type[m.StatementFailed]) -> None:
        """The transaction is over, and its connection is not used again."""
        dialect = Telling(None)
        books = Books(dialect)
        books.failed(statement("SELECT 1", dialect), True, failure(kind))
        assert (False, True) == (books.stands, books.spoilt)

    def test_an_interrupt_costs_the_connection_and_a_mistake_does_not(self) -> None:
        """Ctrl-C may come in the middle of a reply; an exception of the program's own comes from elsewhere."""
        dialect = Telling(None)
        books = Books(dialect)
        books.failed(statement("SELECT 1", dialect), True, ValueError("x"))
        assert (True, False) == (books.stands, books.spoilt)
        books.failed(statement("SELECT 1", dialect), True, KeyboardInterrupt())
        assert (False, True) == (books.stands, books.spoilt)

    def test_a_stream_keeps_everything_else_out(self) -> None:
        """While a stream is read nothing else is sent."""
        books = Books(Telling(None))
        books.streaming = True
        with pytest.raises(m.TransactionMisuse, match="stream"):
            books.admit("SELECT 1")

    def test_blocks_have_names_of_their_own(self) -> None:
        """Savepoints are named by their depth."""
        books = Books(Telling(None))
        assert ["millpond_1", "millpond_2"] == [books.open_block(), books.open_block()]
        books.close_block()
        assert "millpond_2" == books.open_block()


class Mine:
    """Something to join."""

    def __init__(self) -> None:
        self.owner = myself()
        self.is_over = False


class TestJoining:
    """Who takes part."""

    def test_the_caller_takes_part_and_no_one_with_a_copy_of_its_context(self) -> None:
        """A thread that runs in a copy of the context finds the transaction, and is not in it."""
        joining: Joining[Mine] = Joining()
        assert joining.current() is None
        mine = Mine()
        joining.enter(mine)
        found: list[object] = []
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(lambda: found.append(joining.current())))
        thread.start()
        thread.join()
        assert ([None], mine) == (found, joining.current())
        joining.leave(mine)
        assert joining.current() is None

    def test_a_task_started_inside_does_not_take_part(self) -> None:
        """Tasks of one thread are told apart, though each has a copy of the context."""
        joining: Joining[Mine] = Joining()

        async def look() -> object:
            return joining.current()

        async def main() -> tuple[object, object, object]:
            mine = Mine()
            joining.enter(mine)
            return mine, await look(), await asyncio.create_task(look())

        mine, here, in_a_task = asyncio.run(main())
        assert (mine, None) == (here, in_a_task)

    def test_two_databases_do_not_meet(self) -> None:
        """Each has its own transactions."""
        one: Joining[Mine] = Joining()
        other: Joining[Mine] = Joining()
        mine = Mine()
        one.enter(mine)
        assert other.current() is None
        other.leave(mine)
        assert mine is one.current()


class TestAttempts:
    """What is run again, and when."""

    def test_attempts_are_bounded_and_their_delays_grow(self) -> None:
        """Each delay is at most twice the one before, up to a longest, and jittered below that."""
        tries = Attempts(12, jitter=lambda: 1.0)
        delays = [tries.delay_after(failure(m.Deadlock), repeatable=True) for _ in range(12)]
        doubled = [min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**n) for n in range(11)]
        assert [*doubled, None] == delays
        random_tries = Attempts(2, jitter=random.Random(5).random)
        delay = random_tries.delay_after(failure(m.ServerGone), repeatable=True)
        assert delay is not None
        assert 0 <= delay <= FIRST_DELAY_S

    @pytest.mark.parametrize(
        ("kind", "again"),
        [
            (m.Deadlock, True),
            (m.LockTimeout, True),
            (m.ServerGone, True),
            (m.OutcomeUnknown, False),
            (m.DuplicateKey, False),
            (m.StatementTimeout, False),
        ],
    )
    def test_only_what_may_pass_is_run_again(self, kind: type[m.StatementFailed], again: bool) -> None:
        """An outcome that nobody knows is never run again, and neither is what would fail again."""
        assert again is (Attempts(3).delay_after(failure(kind), repeatable=True) is not None)

    def test_nothing_is_run_again_of_which_a_part_was_committed(self) -> None:
        """Not even after a deadlock."""
        assert Attempts(3).delay_after(failure(m.Deadlock), repeatable=False) is None

    def test_a_transaction_lost_by_a_deadlock_is_run_again(self) -> None:
        """Somebody caught the deadlock and went on: the whole is as lost, and as safe to run again."""
        lost = m.TransactionLost("lost")
        lost.__cause__ = failure(m.Deadlock)
        assert Attempts(3).delay_after(lost, repeatable=True) is not None
        assert Attempts(3).delay_after(m.TransactionLost("lost"), repeatable=True) is None

    @pytest.mark.parametrize("attempts", [0, -1, True, 1.5, "3"])
    def test_at_least_one_attempt(self, attempts: Any) -> None:
        """What is no count is refused."""
        with pytest.raises(m.InvalidSetting, match="attempts="):
            Attempts(attempts)


def test_isolation_is_written_in_any_way() -> None:
    """Case, underscores and hyphens do not matter; an unknown level does."""
    assert ["READ COMMITTED"] * 3 == [
        isolation_of(name) for name in ("read committed", "READ_COMMITTED", "Read-Committed")
    ]
    assert isolation_of(None) is None
    with pytest.raises(m.InvalidSetting, match="serializable"):
        isolation_of("snapshot")
