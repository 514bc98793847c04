"""Ctrl-C, wherever it strikes: nothing half is committed, nobody is left in a transaction, no connection is lost."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millpond import _database, database
from millpond.database import Database
from tests.threads.striking import Looks, SignalAtLook, Signalled

STRIDE = 17  # all of the places, one by one, take half a minute
OURS = (Path(database.__file__), Path(_database.__file__).parent)


class LooksAtOurs(Looks):
    """Where an interpreter looks for signals in the helper layer; strikes within the pool have tests of their own."""

    def __missing__(self, code: types.CodeType) -> frozenset[int]:
        if not any(Path(code.co_filename).is_relative_to(path) for path in OURS):
            self[code] = frozenset()
            return self[code]
        return super().__missing__(code)


class SignalInOurs(SignalAtLook):
    """Strikes in the helper layer."""

    looks = LooksAtOurs()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Return a database of two accounts."""
    with Database(f"sqlite:///{tmp_path}/accounts.db", max_size=2, timeout=10) as made:
        made.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
        made.insert_many("accounts", [{"id": n, "balance": 0} for n in (1, 2)])
        yield made


def add(db: Database, account: int) -> None:
    """Add to an account."""
    db.execute("UPDATE accounts SET balance = balance + 1 WHERE id = ?", (account,))


def by_itself(db: Database) -> None:
    """Run one statement."""
    db.execute("UPDATE accounts SET balance = balance + 1")


def in_blocks(db: Database) -> None:
    """Run a transaction with a block in it."""
    with db.transaction():
        add(db, 1)
        with db.transaction():
            add(db, 2)


def many(db: Database) -> None:
    """Run a statement for each of many rows."""
    db.execute_many("UPDATE accounts SET balance = balance + 1 WHERE id = ?", [(1,), (2,)])


def by_a_stream(db: Database) -> None:
    """Leave a stream in a transaction that goes on."""
    with db.transaction():
        with db.stream("SELECT id FROM accounts") as found:
            next(found)
        by_itself(db)


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped", "ignore::millpond.UncommittedWork")
@pytest.mark.parametrize("work", [by_itself, in_blocks, many, by_a_stream])
def test_a_signal_leaves_all_or_nothing(
    work: Callable[[Database], None], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Struck at one place after another, each time all is done or nothing, and the next statement is by itself."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's own keeps the frames, and leases with them
    work(db)
    balances = db.select_column("SELECT balance FROM accounts ORDER BY id")
    struck = 0
    for turn in itertools.count(1, STRIDE):
        at = SignalInOurs(turn)
        with contextlib.suppress(Signalled), at:
            work(db)
        if db.pool.stats().leased:
            gc.collect()  # an error and a signal at once can leave a cycle of frames
        found = db.select_column("SELECT balance FROM accounts ORDER BY id")
        assert found in (balances, [balance + 1 for balance in balances]), at.where
        assert 0 == db.pool.stats().leased, at.where
        with db.transaction(read_only=True):  # which only the outermost block can be
            pass
        balances = found
        if not at.where:
            break
        struck += 1
    assert struck, "the signal never struck"
