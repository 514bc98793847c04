"""A statement's ``timeout``: kept by the server where it can, from outside otherwise, and always kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import millpond
from millpond.database import Database
from millpond.testing import FaultProxy, ScratchServer

# Takes minutes anywhere.
LONG = (
    "SELECT COUNT(*) FROM information_schema.COLUMNS a, information_schema.COLUMNS b, information_schema.COLUMNS c, "
    "information_schema.COLUMNS d WHERE a.COLUMN_NAME < CONCAT(b.COLUMN_NAME, c.COLUMN_NAME, d.COLUMN_NAME)"
)
ENOUGH_S = 20.0


@pytest.fixture
def one(db: Database) -> Database:
    """Return the database with one account."""
    db.insert("accounts", {"id": 1, "owner": "one", "balance": 10})
    return db


def test_a_read_is_ended_by_the_server_itself(one: Database) -> None:
    """The server ends a SELECT in time, over the same connection, which stays."""
    began_at = time.monotonic()
    with pytest.raises(millpond.StatementTimeout):
        one.select_value(LONG, timeout=0.2)
    assert time.monotonic() - began_at < ENOUGH_S
    assert 1 == one.select_value("SELECT COUNT(*) FROM accounts")
    stats = one.pool.stats()
    assert (1, {}) == (stats.opened, stats.retired)


def test_a_write_is_ended_in_time(one: Database) -> None:
    """A write that lasts is ended by the server, or over a second connection, and nothing of it is done."""
    with pytest.raises(millpond.StatementTimeout):
        one.execute("UPDATE accounts SET balance = balance + 1 + SLEEP(30)", timeout=0.2)
    assert 10 == one.select_value("SELECT balance FROM accounts")
    assert 0 == one.pool.stats().leased


def test_what_no_server_limits_is_ended_over_a_second_connection(one: Database) -> None:
    """A CALL has no limit of its own on either server."""
    counting = LONG.replace(" FROM", " INTO x FROM", 1)
    one.execute(f"CREATE PROCEDURE lasting() BEGIN DECLARE x INT; {counting}; UPDATE accounts SET balance = 0; END")
    with pytest.raises(millpond.StatementTimeout):
        one.execute("CALL lasting()", timeout=0.2)
    assert 10 == one.select_value("SELECT balance FROM accounts")
    assert 0 == one.pool.stats().leased


def test_a_transaction_goes_on_after_a_statement_was_ended(one: Database) -> None:
    """What was ended is undone, the transaction stands, and the order to end it hits nothing else."""
    with one.transaction():
        one.execute("UPDATE accounts SET balance = balance + 1")
        for _ in range(3):
            with pytest.raises(millpond.StatementTimeout):
                one.execute("UPDATE accounts SET balance = balance + 100 + SLEEP(30)", timeout=0.1)
        one.execute("UPDATE accounts SET balance = balance + 1")
    assert 12 == one.select_value("SELECT balance FROM accounts")


def test_time_that_is_over_before_the_statement_is_sent_is_time_over(one: Database) -> None:
    """The wait for a connection counts: a pool that has none in time says so."""
    with one.pool.connection():
        one.pool.resize(1)
        with pytest.raises(millpond.PoolTimeout):
            one.select_value("SELECT 1", timeout=0.05)


@pytest.fixture
def proxy(server: ScratchServer) -> Iterator[FaultProxy]:
    """Return a proxy that can fall silent."""
    with FaultProxy(server.port) as standing:
        yield standing


@pytest.mark.usefixtures("one")
def test_a_deadline_is_kept_when_nothing_is_heard_any_more(
    proxy: FaultProxy, open_database: Callable[..., Database]
) -> None:
    """On a network that swallows everything the link is cut, a second after the deadline at most, give or take."""
    db = open_database(port=proxy.port)
    db.select_value("SELECT 1")
    proxy.black_hole = True
    began_at = time.monotonic()
    with pytest.raises(millpond.StatementTimeout):
        db.select_value("SELECT COUNT(*) FROM accounts", timeout=0.2)
    assert time.monotonic() - began_at < ENOUGH_S
    proxy.heal()
    assert 1 == db.select_value("SELECT COUNT(*) FROM accounts")


@pytest.mark.usefixtures("one")
def test_a_write_that_nothing_is_heard_of_is_of_unknown_outcome(
    proxy: FaultProxy, open_database: Callable[..., Database]
) -> None:
    """Cut off at its deadline, a write that commits itself may have been done."""
    db = open_database(port=proxy.port)
    db.select_value("SELECT 1")
    proxy.to_client.black_hole = True
    with pytest.raises(millpond.OutcomeUnknown):
        db.execute("UPDATE accounts SET balance = 11", timeout=0.2)
    proxy.heal()
    assert 11 == db.select_value("SELECT balance FROM accounts")
