"""The helper layer on SQLite: what a caller sees, without a server."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import gc
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millpond as m
from millpond import Database
from tests.garbage import collect

WAIT_S = 20.0


@dataclasses.dataclass
class Account:
    """A row of the table."""

    id: int
    owner: str
    balance: int = 0


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Return a database in a file, with two accounts of 10."""
    with Database(f"sqlite:///{tmp_path}/test.db?busy_timeout=20") as database:
        database.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT UNIQUE NOT NULL, balance INT)")
        database.insert_many("accounts", [{"id": n, "owner": f"owner {n}", "balance": 10} for n in (1, 2)])
        yield database


def balances(db: Database) -> list[int]:
    """Return what is in the accounts."""
    return db.select_column("SELECT balance FROM accounts ORDER BY id", into=int)


def add(db: Database, account: int, amount: int) -> None:
    """Add to an account, in whatever transaction the caller is in."""
    db.execute("UPDATE accounts SET balance = balance + :amount WHERE id = :id", {"id": account, "amount": amount})


def test_rows_values_columns_and_streams(db: Database) -> None:
    """Each way to select returns what it says."""
    sql = "SELECT id, owner, balance FROM accounts WHERE id = %s"
    assert (1, "owner 1", 10) == db.select_row(sql, (1,))
    assert Account(2, "owner 2", 10) == db.select_row(sql, (2,), into=Account)
    assert db.select_row(sql, (3,)) is None
    assert [{"id": 1}, {"id": 2}] == db.select_rows("SELECT id FROM accounts ORDER BY id", into=dict)
    assert 2 == db.select_value("SELECT COUNT(*) FROM accounts")
    assert "2" == db.select_value("SELECT COUNT(*) FROM accounts", into=str)
    assert db.select_value("SELECT NULL", into=str, required=True) is None
    assert [1, 2] == db.select_column("SELECT id FROM accounts WHERE id IN :ids ORDER BY 1", {"ids": range(5)})
    assert [(1,), (2,)] == list(db.stream("SELECT id FROM accounts ORDER BY id"))
    with db.stream(sql, (1,), into=Account) as found:
        assert Account(1, "owner 1", 10) == next(found)


def test_several_rows_or_none_where_one_is_expected(db: Database) -> None:
    """Each case has an error of its own, and a way out."""
    for select in (db.select_row, db.select_value):
        with pytest.raises(m.TooManyRows):
            select("SELECT id FROM accounts")
        with pytest.raises(m.NoRow):
            select("SELECT id FROM accounts WHERE id = 9", required=True)
    assert (1,) == db.select_row("SELECT id FROM accounts ORDER BY id", first=True)
    with pytest.raises(m.RowMismatch, match="returns no rows"):
        db.select_row("UPDATE accounts SET balance = 1 WHERE id = 77")
    with pytest.raises(m.RowMismatch, match="returns 2: id, owner"):
        db.select_value("SELECT id, owner FROM accounts", first=True)


def test_writes_tell_what_they_did(db: Database) -> None:
    """Counts and ids come back, and names are quoted."""
    assert (1, 3) == db.execute("INSERT INTO accounts (owner) VALUES (?)", ("three",))
    assert m.Done(1, 4) == db.insert("accounts", {"owner": "four"})
    assert 0 == db.insert_many("accounts", [])
    assert 0 == db.execute_many("DELETE FROM accounts WHERE id = %s", [])
    assert 2 == db.execute_many("DELETE FROM accounts WHERE id = %s", [(3,), (4,), (5,)])
    db.execute('CREATE TABLE "a ""b" ("c%s:d" INTEGER PRIMARY KEY, e)')
    db.insert(('a "b',), {"c%s:d": 1, "e": ":e"})
    assert m.Done(1, None)[0] == db.upsert('a "b', {"c%s:d": 1, "e": "%s"}, key="c%s:d").row_count
    assert [(1, "%s")] == db.select_rows('SELECT * FROM "a ""b"')


def test_a_last_id_is_that_of_the_statement(db: Database) -> None:
    """SQLite's cursors tell the last id of their connection, whatever they did."""
    assert 3 == db.insert("accounts", {"owner": "three", "balance": 1}).last_id
    assert m.Done(1, None) == db.execute("UPDATE accounts SET balance = 2 WHERE id = 1")
    assert m.Done(1, None) == db.execute("DELETE FROM accounts WHERE id = 3")


def test_an_upsert_changes_what_it_is_told_to(db: Database) -> None:
    """All columns but the key, those named, or none."""
    db.upsert("accounts", {"id": 1, "owner": "new", "balance": 5}, key="id")
    db.upsert("accounts", [{"id": 2, "owner": "x", "balance": 6}, {"id": 3, "owner": "y", "balance": 7}], key=["id"])
    db.upsert("accounts", {"id": 2, "owner": "z", "balance": 8}, key="id", update=["balance"])
    db.upsert("accounts", {"id": 3, "owner": "z", "balance": 8}, key="id", update=[])
    assert m.Done(0, None) == db.upsert("accounts", [], key="id")
    assert [(1, "new", 5), (2, "x", 8), (3, "y", 7)] == db.select_rows("SELECT * FROM accounts ORDER BY id")
    with pytest.raises(m.InvalidSetting, match="no value for nothing"):
        db.upsert("accounts", {"id": 1}, key="id", update=["nothing"])
    db.upsert("accounts", {"id": 3, "owner": "one name", "balance": 9}, key="id", update="owner")
    assert ("one name", 7) == db.select_row("SELECT owner, balance FROM accounts WHERE id = 3")
    with pytest.raises(m.InvalidParameters, match="a row without columns"):
        db.upsert("accounts", {})


def test_rows_of_many_have_the_same_columns(db: Database) -> None:
    """The first row says which, and a row that differs is named; nothing is inserted then."""
    with pytest.raises(m.InvalidParameters, match="row 2 has other columns than the first; they differ in: balance"):
        db.insert_many("accounts", [{"id": 5, "owner": "five"}, {"id": 6, "owner": "six", "balance": 1}])
    with pytest.raises(m.InvalidParameters, match="a row is a mapping"):
        db.insert("accounts", [("id", 1)])  # type: ignore[arg-type]  # what the message is for
    assert [10, 10] == balances(db)


def test_transactions_nest(db: Database) -> None:
    """A block is all or nothing, and one within can be taken back alone."""
    with db.transaction():
        add(db, 1, 1)
        with pytest.raises(KeyError), db.transaction():
            add(db, 2, 100)
            raise KeyError
        add(db, 2, 2)
    with pytest.raises(ZeroDivisionError), db.transaction():
        add(db, 1, 1 // 0)
    assert [11, 12] == balances(db)


@pytest.mark.parametrize("fails", [True, False])
def test_a_block_that_could_not_be_taken_back_takes_the_whole_with_it(db: Database, fails: bool) -> None:
    """While a stream is open no savepoint can be rolled back: then nothing of the transaction is committed."""

    def leave_in_the_middle() -> None:
        with pytest.raises(KeyError if fails else m.TransactionMisuse), db.transaction():
            add(db, 1, 100)
            streams.append(db.stream("SELECT * FROM accounts"))
            next(streams[0])
            if fails:
                raise KeyError

    streams: list[m.Stream[Any]] = []
    with pytest.raises(m.TransactionLost, match="could not be taken back"), db.transaction():
        leave_in_the_middle()
        streams[0].close()
        add(db, 2, 1)
    assert [10, 10] == balances(db)


@pytest.mark.parametrize("fails", [True, False])
def test_a_connection_that_was_given_back_inside_is_left_alone(db: Database, fails: bool) -> None:
    """It may be somebody else's by then: neither a statement nor COMMIT nor ROLLBACK is sent over it."""
    with contextlib.ExitStack() as others:

        def give_back_and_go_on() -> None:
            with db.transaction() as transaction:
                transaction.connection.close()
                other = others.enter_context(db.pool.connection())
                other.execute("BEGIN")
                other.execute("UPDATE accounts SET balance = 0 WHERE id = 1")
                others.callback(other.execute, "COMMIT")
                if fails:
                    raise KeyError
                add(db, 2, 1)

        with pytest.raises(KeyError if fails else m.TransactionLost):
            give_back_and_go_on()
    assert [0, 10] == balances(db)


def test_a_transaction_that_is_given_up_does_not_keep_the_file_locked(db: Database) -> None:
    """It is rolled back at once, though whatever interrupted it still holds a cursor that was not read to its end."""
    with pytest.raises(m.TransactionLost), db.transaction() as transaction:
        add(db, 1, 1)
        cursor = transaction.connection.driver_connection.execute("SELECT * FROM accounts")
        assert cursor.fetchone() is not None
        transaction.connection.discard()
    db.execute("UPDATE accounts SET balance = 7")
    assert [7, 7] == balances(db)
    del cursor


def test_ddl_is_part_of_a_transaction(db: Database) -> None:
    """SQLite takes back a CREATE TABLE as well."""
    with pytest.raises(KeyError), db.transaction():
        db.execute("CREATE TABLE other (x)")
        add(db, 1, 1)
        raise KeyError
    assert [10, 10] == balances(db)
    with pytest.raises(m.InvalidStatement):
        db.select_rows("SELECT * FROM other")


def test_read_only_is_kept_and_forgotten(db: Database) -> None:
    """A write in a read-only transaction is refused, and the next transaction may write."""
    with pytest.raises(m.ReadOnlyTransaction), db.transaction(read_only=True):
        add(db, 1, 1)
    with db.transaction(read_only=True):
        assert [10, 10] == balances(db)
    with db.transaction():
        add(db, 1, 1)
    assert [11, 10] == balances(db)


def test_only_the_outermost_block_chooses(db: Database) -> None:
    """Isolation and read_only within a transaction are a mistake, as is a block used twice or not at all."""
    with db.transaction(isolation="serializable") as outer:
        with pytest.raises(m.TransactionMisuse, match="isolation="):
            db.transaction(isolation="serializable").__enter__()
        with pytest.raises(m.TransactionMisuse, match="read_only="):
            db.transaction(read_only=True).__enter__()
        with pytest.raises(m.TransactionMisuse, match="entered once"):
            outer.__enter__()
        assert (10,) == outer.connection.execute("SELECT balance FROM accounts WHERE id = 1").fetchone()
    with pytest.raises(m.TransactionMisuse, match="a transaction is a block"):
        _ = db.transaction().connection


def test_a_statement_by_itself_is_committed_when_it_returns(db: Database, tmp_path: Path) -> None:
    """Another connection sees it at once."""
    add(db, 1, 5)
    with contextlib.closing(sqlite3.connect(tmp_path / "test.db")) as other:
        assert [(15,), (10,)] == other.execute("SELECT balance FROM accounts ORDER BY id").fetchall()


def test_a_pool_without_autocommit_commits_too_and_costs_nothing_more(tmp_path: Path) -> None:
    """SQLite has no second command to pay for, so nothing is said; the write is there."""
    with m.Pool(sqlite3, connect_args={"database": str(tmp_path / "other.db")}) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        db = Database(pool)
        db.execute("CREATE TABLE t (x)")
        db.insert("t", {"x": 1})
        with pytest.raises(KeyError), db.transaction():
            db.insert("t", {"x": 2})
            raise KeyError
        db.close()
        assert [1] == db.select_column("SELECT x FROM t")


def test_a_busy_database_is_a_lock_timeout_and_is_run_again(tmp_path: Path) -> None:
    """Two that want to write take turns; one that waited too long begins anew."""
    with Database(f"sqlite:///{tmp_path}/busy.db?busy_timeout=0.001") as db:
        db.execute("CREATE TABLE t (x)")
        holding, asked = threading.Event(), threading.Event()

        def hold() -> None:
            with db.transaction():
                db.insert("t", {"x": 1})
                holding.set()
                assert asked.wait(WAIT_S)

        holder = threading.Thread(target=hold)
        holder.start()
        assert holding.wait(WAIT_S)
        with pytest.raises(m.LockTimeout):
            db.insert("t", {"x": 2})
        runs: list[int] = []

        def work() -> int:
            runs.append(1)
            return db.insert("t", {"x": 3}).row_count

        with pytest.raises(m.LockTimeout):
            db.run_transaction(work, attempts=2)
        assert [] == runs
        asked.set()
        holder.join(WAIT_S)
        assert 1 == db.run_transaction(work)
        assert [1, 3] == db.select_column("SELECT x FROM t ORDER BY x")


def test_a_deadline_interrupts_a_statement(db: Database) -> None:
    """A statement that would last for minutes is over in time, in a transaction too, which goes on."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    with pytest.raises(m.StatementTimeout, match=r"not done within 0\.05 s"):
        db.select_value(endless, timeout=0.05)
    with db.transaction():
        add(db, 1, 1)
        with pytest.raises(m.StatementTimeout):
            db.select_value(endless, timeout=0.05)
        add(db, 1, 1)
    assert [12, 10] == balances(db)
    with pytest.raises(m.InvalidSetting, match="timeout="):
        db.select_value("SELECT 1", timeout=0)


def test_a_deadline_ends_a_wait_for_a_lock(db: Database, tmp_path: Path) -> None:
    """Who waits for another's transaction waits no longer than a call may take, and the next call as long as ever."""
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began_at = time.monotonic()
    with pytest.raises((m.LockTimeout, m.StatementTimeout)):  # the latter where its time is over before it is sent
        db.execute("UPDATE accounts SET balance = 0", timeout=0.2)
    assert time.monotonic() - began_at < 15.0  # the pool's connections wait for 20
    assert 20_000 == db.select_value("PRAGMA busy_timeout")
    other.execute("ROLLBACK")
    other.close()
    assert 2 == db.execute("UPDATE accounts SET balance = 0", timeout=WAIT_S).row_count


def test_run_transaction_returns_what_the_function_returns(db: Database) -> None:
    """Its result comes after COMMIT; its mistakes are not run again; within a transaction it is a block."""

    def move() -> str:
        add(db, 1, -1)
        add(db, 2, 1)
        return "moved"

    assert "moved" == db.run_transaction(move)
    with db.transaction():
        assert "moved" == db.run_transaction(move, attempts=1)
    with pytest.raises(ZeroDivisionError):
        db.run_transaction(lambda: add(db, 1, 1 // 0))
    assert [8, 12] == balances(db)


def test_a_transaction_of_one_database_is_not_one_of_another(tmp_path: Path) -> None:
    """Two databases do not take part in each other's transactions."""
    with Database("sqlite://") as one, Database(f"sqlite:///{tmp_path}/two.db") as two:
        for db in (one, two):
            db.execute("CREATE TABLE t (x)")
        with pytest.raises(KeyError), one.transaction():
            one.insert("t", {"x": 1})
            two.insert("t", {"x": 1})
            raise KeyError
        assert [0, 1] == [db.select_value("SELECT COUNT(*) FROM t") for db in (one, two)]


def test_a_block_that_is_left_in_another_context_or_dropped_leaves_nobody_in_it(db: Database) -> None:
    """A generator's finalizer may run elsewhere: what comes next is by itself, and not refused for ever."""
    left = db.transaction()
    left.__enter__()
    db.execute("UPDATE accounts SET balance = 11 WHERE id = 1")
    contextvars.copy_context().run(left.__exit__, None, None, None)
    assert 11 == db.select_value("SELECT balance FROM accounts WHERE id = 1")
    dropped = db.transaction()
    dropped.__enter__()
    db.execute("UPDATE accounts SET balance = 12 WHERE id = 1")
    del dropped
    with pytest.warns(m.LeaseDropped):
        assert 11 == db.select_value("SELECT balance FROM accounts WHERE id = 1")
    assert 0 == db.pool.stats().leased


def test_streams_give_their_connection_back(db: Database) -> None:
    """Read to the end, left early, dropped, failed or never begun: no connection stays out."""
    list(db.stream("SELECT * FROM accounts"))
    for _ in db.stream("SELECT * FROM accounts"):
        break
    db.stream("SELECT * FROM accounts")
    with db.stream("SELECT * FROM accounts") as found:
        next(found)
    with pytest.raises(StopIteration):
        next(found)
    with pytest.raises(m.InvalidStatement):
        next(db.stream("SELECT * FROM nowhere"))
    with pytest.raises(m.RowMismatch):
        next(db.stream("SELECT id, id FROM accounts", into=dict))
    stats = db.pool.stats()
    assert (0, 0) == (stats.leased, stats.dropped)


def test_a_stream_of_a_transaction_ends_with_it(db: Database) -> None:
    """Left early it lets the transaction go on; left open it does not outlive it."""
    with db.transaction():
        for _ in db.stream("SELECT * FROM accounts"):
            break
        add(db, 1, 1)
    assert [11, 10] == balances(db)
    with db.transaction():
        never_begun = db.stream("SELECT * FROM accounts")
    with pytest.raises(m.TransactionLost, match="its block was left"):
        next(never_begun)
    with pytest.raises(m.TransactionMisuse, match="stream"), db.transaction():
        add(db, 1, 1)
        left_open = db.stream("SELECT * FROM accounts")
        next(left_open)
    left_open.close()
    assert [11, 10] == balances(db)
    assert 0 == db.pool.stats().leased


def test_a_broken_stream_in_a_callable_gives_its_connection_back(db: Database) -> None:
    """What ``into`` raises is the caller's own exception, and the connection is back."""

    def refuse(**_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(db.stream("SELECT id FROM accounts", into=refuse))
    with pytest.raises(ZeroDivisionError):
        db.select_rows("SELECT id FROM accounts", into=refuse)
    assert 0 == db.pool.stats().leased


def test_what_it_is_made_of(db: Database) -> None:
    """A URL or a pool, settings for a pool of its own only, and no password in sight."""
    with pytest.raises(m.InvalidSetting, match=r"millpond\.Pool"):
        Database(5)  # type: ignore[arg-type]  # what the message is for
    with pytest.raises(m.InvalidSetting, match="max_size"):
        Database(db.pool, max_size=3)
    with Database("sqlite://", max_size=1) as small:
        assert 1 == small.pool.stats().max_size
    assert repr(db.pool) in repr(db)
    again = Database(db.pool)
    again.close()
    assert [10, 10] == balances(again)


def test_a_closed_database_is_kept_by_nothing(tmp_path: Path) -> None:
    """Texts that were written for it are remembered, and it is not: neither its adapter nor what that knows."""
    database = Database(f"sqlite:///{tmp_path}/closed.db")
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x INT)")
    database.insert_many("t", [{"id": 1, "x": 1}, {"id": 2, "x": 2}])
    database.upsert("t", {"id": 1, "x": 3}, key="id")
    assert [3, 2] == database.select_column("SELECT x FROM t ORDER BY id")
    driver = weakref.ref(database.pool.driver)
    database.close()
    del database
    collect()
    assert driver() is None


def test_an_error_holds_nothing_once_it_was_dealt_with(db: Database) -> None:
    """No cycle of errors and frames keeps what a caller had in hand until garbage is collected."""

    class Kept:
        """What a caller had in hand."""

    def fail_with(statement: Callable[[], object]) -> weakref.ref[Kept]:
        kept = Kept()
        with pytest.raises(m.StatementFailed):
            statement()
        return weakref.ref(kept)

    def in_block() -> None:
        with db.transaction():
            db.insert("accounts", {"id": 1, "owner": "again"})

    gc.disable()
    try:
        for statement in (
            lambda: db.execute("SELEC"),
            lambda: db.select_row("SELECT missing FROM accounts"),
            lambda: db.execute_many("INSERT INTO accounts (id, owner) VALUES (%s, %s)", [(1, "again")]),
            lambda: db.run_transaction(in_block),
            in_block,
        ):
            assert fail_with(statement)() is None
    finally:
        gc.enable()


def test_params_that_do_not_fit_are_refused_before_anything_is_sent(db: Database) -> None:
    """The statement is in the message, values are not."""
    for run in (db.select_row, db.select_rows, db.execute):
        with pytest.raises(m.InvalidParameters, match="2 places for values, and 1 came") as caught:
            run("SELECT %s, %s", ("secret",))
        assert "secret" not in str(caught.value)
    with pytest.raises(m.InvalidParameters, match="a statement is text"):
        db.execute(b"SELECT 1")  # type: ignore[arg-type]  # what the message is for
    assert 0 == db.pool.stats().leased


def test_who_holds_a_connection_is_the_program_and_not_this_layer(db: Database) -> None:
    """A report about a transaction that holds a connection names the place where it was begun."""
    db.pool.resize(1)
    with db.transaction(), pytest.raises(m.PoolTimeout, match=r"test_database\.py") as caught:
        db.pool.connection(timeout=0)
    (holder,) = caught.value.holders
    assert __file__ == holder.site.file
