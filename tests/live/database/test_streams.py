"""Rows as they come: in constant memory, from wherever, and left early at the price of what was read."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

import millpond
from millpond.database import Database
from millpond.testing import FaultProxy, ScratchServer

ROWS = 100_000
SQL = """
    SELECT a.i + 10 * b.i + 100 * c.i + 1000 * d.i + 10000 * e.i AS n, REPEAT('x', 200) AS filling
    FROM digits a, digits b, digits c, digits d, digits e
"""
# Ten million rows, which take a minute to read.
ENDLESS = f"{SQL}, digits f, digits g"
ENOUGH_S = 15.0


@pytest.fixture
def digits(db: Database) -> Database:
    """Return a database with what a long stream is made of."""
    db.execute("CREATE TABLE digits (i INT PRIMARY KEY)")
    db.insert_many("digits", [{"i": i} for i in range(10)])
    return db


def test_a_long_stream_is_never_in_memory(digits: Database) -> None:
    """A hundred thousand rows of 200 bytes pass through a few hundred kilobytes."""
    tracemalloc.start()
    try:
        with digits.stream(SQL, into=dict) as found:
            total = sum(row["n"] for row in found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(range(ROWS)) == total
    assert peak < 3_000_000
    stats = digits.pool.stats()
    assert (0, 1) == (stats.leased, stats.opened)


def test_a_stream_left_early_reads_no_more(digits: Database) -> None:
    """Whoever breaks off costs the connection, and not the rest of the rows."""
    began_at = time.monotonic()
    for row in digits.stream(ENDLESS):
        assert 2 == len(row)
        break
    assert 0 == digits.pool.stats().leased
    assert 10 == digits.select_value("SELECT COUNT(*) FROM digits")
    assert time.monotonic() - began_at < ENOUGH_S
    stats = digits.pool.stats()
    assert 1 == stats.closed
    assert 2 <= stats.opened  # where a dial is slow, another is begun beside it


def test_a_short_stream_left_early_keeps_its_connection(digits: Database) -> None:
    """What is left of a short reply is read, which costs less than a new connection."""
    with digits.stream("SELECT i FROM digits ORDER BY i") as found:
        assert (0,) == next(found)
    assert 10 == digits.select_value("SELECT COUNT(*) FROM digits")
    assert 1 == digits.pool.stats().opened


def test_a_stream_in_a_transaction_left_early_is_ended_and_the_transaction_goes_on(digits: Database) -> None:
    """The server is told to stop, what was on its way is read, and what comes next is not hit by that."""
    began_at = time.monotonic()
    with digits.transaction():
        digits.insert("accounts", {"id": 1, "owner": "one"})
        for _ in digits.stream(ENDLESS):
            break
        with digits.stream("SELECT i FROM digits") as found:
            next(found)
        digits.insert("accounts", {"id": 2, "owner": "two"})
    assert 2 == digits.select_value("SELECT COUNT(*) FROM accounts")
    assert time.monotonic() - began_at < ENOUGH_S


def test_a_stream_that_cannot_be_ended_says_why(
    digits: Database, server: ScratchServer, open_database: Callable[..., Database]
) -> None:
    """The transaction is lost with it, and whoever goes on is told what became of the connection that was to end it."""
    with FaultProxy(server.port) as proxy:
        far = open_database(port=proxy.port)
        with pytest.raises(millpond.TransactionLost, match="cannot be ended") as lost, far.transaction():
            with far.stream(ENDLESS) as found:
                next(found)
                proxy.refusing = True
            far.execute("INSERT INTO digits VALUES (11)")
        assert lost.value.__cause__ is not None
    assert 10 == digits.select_value("SELECT COUNT(*) FROM digits")


def test_while_a_stream_is_read_a_transaction_takes_no_other_statement(digits: Database) -> None:
    """Its connection is busy; outside a transaction another one is taken."""
    with digits.transaction(), digits.stream(ENDLESS) as found:
        next(found)
        with pytest.raises(millpond.TransactionMisuse, match="stream"):
            digits.select_value("SELECT 1")
    with digits.stream(ENDLESS) as found:
        next(found)
        assert 1 == digits.select_value("SELECT 1")


def test_a_stream_left_open_in_a_transaction_does_not_outlive_it(digits: Database) -> None:
    """A block that ends while its stream is still being read is a mistake, and nothing of it is committed."""
    began_at = time.monotonic()
    with pytest.raises(millpond.TransactionMisuse, match="stream"), digits.transaction():
        digits.insert("accounts", {"id": 1, "owner": "one"})
        left_open = digits.stream(ENDLESS)
        next(left_open)
    left_open.close()
    assert 0 == digits.select_value("SELECT COUNT(*) FROM accounts")
    assert 0 == digits.pool.stats().leased
    assert time.monotonic() - began_at < ENOUGH_S


def test_a_stream_left_open_in_an_inner_block_is_not_read_to_its_end(digits: Database) -> None:
    """The transaction is lost, and the server is told to stop: ten million rows would take minutes."""
    with pytest.raises(millpond.TransactionLost, match="could not be taken back"), digits.transaction():
        digits.insert("accounts", {"id": 1, "owner": "one"})
        with pytest.raises(ZeroDivisionError), digits.transaction():
            left_open = digits.stream(ENDLESS)
            next(left_open)
            raise ZeroDivisionError
        left_open.close()
    assert 0 == digits.select_value("SELECT COUNT(*) FROM accounts")
    assert 0 == digits.pool.stats().leased


def test_what_rows_are_made_by_cannot_end_a_stream(digits: Database) -> None:
    """A StopIteration that leaves it is an error, not the end of the rows."""
    names = iter(["first"])

    def named(i: int) -> tuple[int, str]:
        return i, next(names)

    with (
        pytest.raises(RuntimeError, match="StopIteration"),
        digits.stream("SELECT i FROM digits ORDER BY i", into=named) as found,
    ):
        assert (0, "first") == next(found)
        next(found)
    assert 0 == digits.pool.stats().leased


def test_a_stream_that_takes_too_long_is_ended(digits: Database) -> None:
    """A time-out holds for the whole of a stream, whichever way it is kept."""
    began = digits.stream("SELECT a.i, SLEEP(0.2) FROM digits a, digits b, digits c, digits d, digits e", timeout=0.5)
    with pytest.raises(millpond.StatementTimeout):
        for _ in began:
            continue
    assert 1 == digits.select_value("SELECT 1")


def test_a_stream_that_fails_says_why(digits: Database) -> None:
    """Errors of a stream have the same names as those of any other statement, and give the connection back."""
    with pytest.raises(millpond.InvalidStatement):
        next(digits.stream("SELECT * FROM nowhere"))
    with pytest.raises(millpond.RowMismatch):
        next(digits.stream("SELECT i, i FROM digits", into=dict))
    assert 0 == digits.pool.stats().leased


def test_a_stream_of_a_procedure_leaves_none_of_its_results_unread(digits: Database) -> None:
    """A procedure with several results gives the rows of its first, and what comes next is not taken for its rest."""
    digits.execute("CREATE PROCEDURE several() BEGIN SELECT 1; SELECT 2; SELECT 3; END")
    for _ in range(2):
        assert [(1,)] == list(digits.stream("CALL several()"))
        assert 10 == digits.select_value("SELECT COUNT(*) FROM digits")
    with digits.transaction():
        assert [(1,)] == list(digits.stream("CALL several()"))
        assert 10 == digits.select_value("SELECT COUNT(*) FROM digits")
    assert 1 == digits.pool.stats().opened
