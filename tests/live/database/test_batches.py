"""Many rows: all or nothing, in statements that the server takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import millpond
from millpond.database import Database
from millpond.testing import FaultProxy, ScratchServer


def rows(count: int) -> Iterator[dict[str, object]]:
    """Yield as many accounts."""
    return ({"id": n, "owner": f"owner {n} ' \\ % é", "balance": n} for n in range(count))


def test_many_rows_go_in_few_statements(
    server: ScratchServer, db: Database, open_database: Callable[..., Database]
) -> None:
    """Twenty thousand rows are three batches or so, in one transaction."""
    with FaultProxy(server.port, counting="mysql") as proxy:
        far = open_database(port=proxy.port)
        far.select_value("SELECT 1")
        proxy.reset_counts()
        assert 20_000 == far.insert_many("accounts", rows(20_000))
        assert len(proxy.commands) < 12, proxy.commands
    assert (20_000, "owner 7 ' \\ % é") == db.select_row("SELECT COUNT(*), MAX(IF(id = 7, owner, '')) FROM accounts")


def test_many_upserts_go_in_few_statements(
    server: ScratchServer, db: Database, open_database: Callable[..., Database]
) -> None:
    """Three thousand rows of which half are there already are one batch, by whatever name the server has for a row."""
    db.insert_many("accounts", rows(1_500))
    with FaultProxy(server.port, counting="mysql") as proxy:
        far = open_database(port=proxy.port)
        far.select_value("SELECT 1")
        proxy.reset_counts()
        changed = ({**row, "balance": -1} for row in rows(3_000))
        far.upsert("accounts", changed, key="id", update=["balance"])
        inserts = [command for command in proxy.commands if (command.text or "").startswith("INSERT")]
        assert 1 == len(inserts), proxy.commands
    assert (3_000, -3_000) == db.select_row("SELECT COUNT(*), SUM(balance) FROM accounts")


def test_all_rows_or_none(db: Database) -> None:
    """A row that is refused takes back all of them."""
    with pytest.raises(millpond.DuplicateKey):
        db.insert_many("accounts", [*rows(12_000), {"id": 1, "owner": "again", "balance": 0}])
    assert 0 == db.select_value("SELECT COUNT(*) FROM accounts")


def test_within_a_transaction_only_the_batch_is_taken_back(db: Database) -> None:
    """A batch that fails inside a transaction leaves the rest of that as it was."""
    with db.transaction():
        db.insert("accounts", {"id": 1, "owner": "one"})
        with pytest.raises(millpond.DuplicateKey):
            db.insert_many("accounts", [{"id": n, "owner": f"owner {n}"} for n in (2, 3, 1)])
    assert [1] == db.select_column("SELECT id FROM accounts")


def test_what_stands_behind_the_rows_is_as_it_was_written(db: Database) -> None:
    """Percent signs and values behind ON DUPLICATE KEY UPDATE arrive as they are, where drivers join rows as well."""
    both = [(1, "one"), (2, "two")]
    sql = "INSERT INTO accounts (id, owner) VALUES (%s, %s) ON DUPLICATE KEY UPDATE owner = "
    db.execute_many(sql + "'none'", both)
    db.execute_many(sql + "CONCAT(VALUES(owner), ' 5%')", both)
    assert ["one 5%", "two 5%"] == db.select_column("SELECT owner FROM accounts ORDER BY id")
    db.execute_many(sql + "%s", [(*row, f"new {row[0]}") for row in both])
    assert ["new 1", "new 2"] == db.select_column("SELECT owner FROM accounts ORDER BY id")


def test_other_statements_run_once_for_each_row(db: Database) -> None:
    """UPDATE and DELETE go row by row, in one transaction, by position or by name."""
    db.insert_many("accounts", rows(10))
    assert 3 == db.execute_many("UPDATE accounts SET balance = %s WHERE id = %s", [(50, n) for n in (1, 2, 3)])
    assert 2 == db.execute_many("DELETE FROM accounts WHERE id = :id", [{"id": 1}, {"id": 2}, {"id": 77}])
    assert 8 == db.select_value("SELECT COUNT(*) FROM accounts")


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_batches_stay_under_what_the_server_takes(start_server: Callable[..., ScratchServer], kind: str) -> None:
    """A server that takes 64 KiB at once gets a megabyte of rows."""
    server = start_server(kind, options={"max_allowed_packet": 65_536})
    with Database(server.url(tls=False)) as db:
        db.execute("CREATE TABLE many (id INT PRIMARY KEY, filling TEXT)")
        assert 2_000 == db.insert_many("many", ({"id": n, "filling": "é" * 250} for n in range(2_000)))
        assert 500_000 == db.select_value("SELECT SUM(CHAR_LENGTH(filling)) FROM many")
        with pytest.raises(millpond.InvalidValue):
            db.insert("many", {"id": 9_999, "filling": "x" * 70_000})
        assert 2_000 == db.select_value("SELECT COUNT(*) FROM many")
