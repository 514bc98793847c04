"""Transactions on real servers: what is committed, what is not, and what is told when a server ends one by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond.database import Database
from millpond.testing import ScratchServer

from .conftest import DRIVER

WAIT_S = 20.0


def balances(db: Database) -> dict[int, int]:
    """Return what is in the accounts."""
    return dict(db.select_rows("SELECT id, balance FROM accounts ORDER BY id"))


@pytest.fixture
def two(db: Database) -> Database:
    """Return the database with two accounts of 10."""
    db.insert_many("accounts", [{"id": n, "owner": f"owner {n}", "balance": 10} for n in (1, 2)])
    return db


def add(db: Database, account: int, amount: int) -> None:
    """Add to an account; takes part in whatever transaction the caller is in."""
    db.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, account))


def test_all_is_committed_or_nothing(two: Database) -> None:
    """A block that ends commits, one that is left by an exception does not; helpers take part in both."""
    with two.transaction():
        add(two, 1, -3)
        add(two, 2, 3)
    with pytest.raises(ZeroDivisionError), two.transaction():
        add(two, 1, -3)
        add(two, 2, 3 // 0)
    assert {1: 7, 2: 13} == balances(two)
    assert 0 == two.pool.stats().leased


def test_an_inner_block_takes_back_its_own_part(two: Database) -> None:
    """An exception that leaves an inner block undoes that block, and the outer one goes on."""
    with two.transaction():
        add(two, 1, 1)
        with pytest.raises(KeyError), two.transaction():
            add(two, 2, 100)
            with two.transaction():
                add(two, 1, 100)
            raise KeyError
        with two.transaction():
            add(two, 2, 2)
    assert {1: 11, 2: 12} == balances(two)


def test_a_thread_started_inside_does_not_take_part(two: Database) -> None:
    """A copy of the context in another thread still does not join; what it does is its own."""
    import contextvars

    seen: list[int] = []

    def look() -> None:
        seen.append(two.select_value("SELECT balance FROM accounts WHERE id = 1"))

    with two.transaction():
        add(two, 1, 5)
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(look))
        thread.start()
        thread.join(WAIT_S)
        assert 15 == two.select_value("SELECT balance FROM accounts WHERE id = 1")
    assert [10] == seen


def test_a_read_only_transaction_refuses_writes(two: Database) -> None:
    """A write in one is an error of its own, and the connection is no worse for it."""
    with pytest.raises(millpond.ReadOnlyTransaction), two.transaction(read_only=True):
        add(two, 1, 1)
    with two.transaction(read_only=True):
        assert {1: 10, 2: 10} == balances(two)
    add(two, 1, 1)
    assert {1: 11, 2: 10} == balances(two)


def test_the_isolation_asked_for_holds_for_this_transaction_only(two: Database, server: ScratchServer) -> None:
    """What others commit meanwhile is seen under READ COMMITTED, and not under the servers' default."""
    seen: dict[str | None, list[int]] = {}
    for isolation in ("read committed", None):
        with two.transaction(isolation=isolation):
            values = [two.select_value("SELECT balance FROM accounts WHERE id = 1")]
            other = threading.Thread(target=add, args=(two, 1, 1))
            other.start()
            other.join(WAIT_S)
            values.append(two.select_value("SELECT balance FROM accounts WHERE id = 1"))
        seen[isolation] = values
    assert {"read committed": [10, 11], None: [11, 11]} == seen, server.kind


def test_what_commits_by_itself_ends_a_transaction_and_nothing_more_is_done_in_it(two: Database) -> None:
    """After DDL the transaction is over, and whoever goes on is told, before anything is done."""
    with pytest.raises(millpond.TransactionLost, match="CREATE commits by itself"), two.transaction():
        add(two, 1, 1)
        two.execute("CREATE TABLE other (x INT)")
        add(two, 2, 1)
    assert {1: 11, 2: 10} == balances(two)
    with pytest.raises(millpond.TransactionLost), two.transaction():
        two.execute("DROP TABLE other")


def test_a_temporary_table_ends_nothing(two: Database) -> None:
    """CREATE TEMPORARY TABLE does not commit, and that is seen."""
    with two.transaction():
        add(two, 1, 1)
        two.execute("CREATE TEMPORARY TABLE passing (x INT)")
        add(two, 2, 1)
    assert {1: 11, 2: 11} == balances(two)


def test_a_statement_cannot_begin_or_end_a_transaction(two: Database) -> None:
    """BEGIN, COMMIT and their like are refused: the next statement would be on another connection."""
    for sql in ("BEGIN", "start transaction", "/* */ COMMIT", "ROLLBACK", "XA START 'x'"):
        with pytest.raises(millpond.TransactionMisuse):
            two.execute(sql)


class Crossing:
    """Two transactions that lock two rows in opposite order: the server ends one of them."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.both_hold_one = threading.Barrier(2)
        self.runs = [0, 0]
        self.outcomes: list[BaseException | None] = [None, None]

    def cross(self, me: int) -> None:
        """Lock one row, wait for the other transaction to lock another, and want that as well."""
        self.runs[me] += 1
        add(self.db, 1 + me, 1)
        if self.runs[me] == 1:
            self.both_hold_one.wait(WAIT_S)
        add(self.db, 2 - me, 1)

    def run(self, how: Callable[[int], None]) -> None:
        """Run both to their ends."""

        def note(me: int) -> None:
            try:
                how(me)
            except millpond.Error as error:
                self.outcomes[me] = error

        threads = [threading.Thread(target=note, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in threads)


def test_a_deadlock_is_run_again(two: Database) -> None:
    """Of two transactions that lock each other out one is run again, and both are done once."""
    crossing = Crossing(two)
    crossing.run(lambda me: two.run_transaction(lambda: crossing.cross(me)))
    assert [None, None] == crossing.outcomes
    assert 3 == sum(crossing.runs)
    assert {1: 12, 2: 12} == balances(two)


def test_a_deadlock_that_is_swallowed_is_not_lost(two: Database) -> None:
    """Whoever catches a deadlock and goes on is told that the transaction is gone, and nothing half is committed."""
    crossing = Crossing(two)

    def swallow(me: int) -> None:
        with two.transaction():
            try:
                crossing.cross(me)
            except millpond.Deadlock:
                add(two, 1, 1000)

    crossing.run(swallow)
    losers = [error for error in crossing.outcomes if error is not None]
    assert [millpond.TransactionLost] == [type(error) for error in losers]
    assert isinstance(losers[0].__cause__, millpond.Deadlock)
    assert {1: 11, 2: 11} == balances(two)


def test_a_row_that_has_changed_since_it_was_read_ends_a_transaction(mariadb: ScratchServer, fresh_schema: Any) -> None:
    """MariaDB's snapshot isolation undoes all of it, and says so in no status word: nothing half is committed."""
    url = mariadb.url(DRIVER, tls=False).replace(f"/{mariadb.database}?", f"/{fresh_schema(mariadb)}?")
    with Database(url, max_size=2, on_connect="SET SESSION innodb_snapshot_isolation = ON") as db:
        db.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance INT) ENGINE=InnoDB")
        db.insert_many("accounts", [{"id": n, "balance": 10} for n in (1, 2)])
        runs: list[int] = []

        def overtaken() -> None:
            runs.append(1)
            add(db, 2, 1)
            balances(db)
            if len(runs) == 1:
                other = threading.Thread(target=add, args=(db, 1, 5))
                other.start()
                other.join(WAIT_S)
            add(db, 1, 1)

        with pytest.raises(millpond.TransactionLost), db.transaction():
            with pytest.raises(millpond.Deadlock):
                overtaken()
            add(db, 1, 1000)
        assert {1: 15, 2: 10} == balances(db)
        runs.clear()
        db.run_transaction(overtaken)
        assert ({1: 21, 2: 11}, 2) == (balances(db), len(runs))


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
@pytest.mark.parametrize("rolls_back", [False, True])
def test_after_a_lock_timeout_the_server_is_asked_whether_the_transaction_stands(
    start_server: Callable[..., ScratchServer], kind: str, rolls_back: bool
) -> None:
    """By default only the statement is undone; with innodb_rollback_on_timeout all of it, and then nothing goes on."""
    server = start_server(kind, options={"innodb_rollback_on_timeout": rolls_back, "innodb_lock_wait_timeout": 1})
    with Database(server.url(tls=False)) as db:
        db.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance INT) ENGINE=InnoDB")
        db.insert_many("accounts", [{"id": n, "balance": 10} for n in (1, 2)])
        holding, done = threading.Event(), threading.Event()

        def hold() -> None:
            with db.transaction():
                add(db, 2, 1)
                holding.set()
                done.wait(WAIT_S)

        holder = threading.Thread(target=hold)
        holder.start()
        assert holding.wait(WAIT_S)
        outcome: type[Exception] | None = None
        try:
            with db.transaction():
                add(db, 1, 1)
                with pytest.raises(millpond.LockTimeout):
                    add(db, 2, 100)
                done.set()
                holder.join(WAIT_S)
                add(db, 1, 5)
        except millpond.Error as error:
            outcome = type(error)
        assert (millpond.TransactionLost if rolls_back else None) == outcome
        assert {1: 10 if rolls_back else 16, 2: 11} == balances(db)


def test_a_transaction_with_ddl_is_not_run_again(two: Database) -> None:
    """Once something inside was committed, a passing error ends it for good."""
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        two.execute("CREATE TABLE other (x INT)")
        add(two, 1, 1)

    with pytest.raises(millpond.TransactionLost):
        two.run_transaction(work)
    assert [1] == runs
